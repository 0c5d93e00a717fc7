package uplink

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// MQTT 5 reason codes that say something to an uplink.
const (
	codeNoSubscribers = 0x10
	codeMalformed     = 0x82
	codeVersion       = 0x84
	codeClientID      = 0x85
	codePassword      = 0x86
	codeNotAuthorized = 0x87
	codeUnavailable   = 0x88
	codeBusy          = 0x89
	codeBanned        = 0x8A
	codeShuttingDown  = 0x8B
	codeTakenOver     = 0x8E
	codePacketTooBig  = 0x95
	codeQuota         = 0x97
	codePayload       = 0x99
	codeUseAnother    = 0x9C
	codeMoved         = 0x9D
)

// ending says why a connection, or a try for one, ended, and what that means
// for the next.
type ending struct {
	what string // one line for the operator
	hint string // the remedy, "" if there is none

	retryAfter time.Duration // asked for by the hub; 0: not
	reference  string        // of a hub that refers to another
	slow       bool          // trying again soon is no use
	err        error         // nil, or what errors.Is may look for
}

func (e *ending) Error() string {
	if e.hint == "" {
		return e.what
	}
	return e.what + " (" + e.hint + ")"
}

func (e *ending) Unwrap() error { return e.err }

// endingOf makes an ending of any error.
func endingOf(err error) *ending {
	var e *ending
	if errors.As(err, &e) {
		return e
	}
	e = &ending{what: err.Error(), err: err}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.hint = "is the clock of this machine right?"
	case errors.As(err, &unknown):
		e.hint, e.slow = "set hub.tls.ca_file to the authority that signed the hub's certificate", true
	case errors.As(err, &host):
		e.hint, e.slow = "use a name of the hub that is in its certificate", true
	}
	return e
}

// refused makes an ending of the reason code and properties of a CONNACK or
// DISCONNECT.
func refused(code byte, reason, reference string, user []stream.Property, device string) *ending {
	e := &ending{what: fmt.Sprintf("hub refused with reason code 0x%02x", code), reference: reference}
	switch code {
	case codePassword, codeNotAuthorized:
		e.what, e.slow = fmt.Sprintf("hub does not accept device %s and its secret", device), true
		e.hint = "add it at the hub with packetboat-hub device add, and check hub.secret_file here"
	case codeClientID:
		e.what, e.slow = fmt.Sprintf("hub does not accept %q as a device id", device), true
	case codeBanned:
		e.what, e.slow = fmt.Sprintf("hub has banned device %s", device), true
	case codeVersion:
		e.what, e.slow, e.hint = "hub does not speak this version of the link protocol", true, "is this port a packetboat-hub's?"
	case codeTakenOver:
		e.what, e.slow = fmt.Sprintf("another connection of device %s took over", device), true
		e.hint = "is a second edge running under this device id?"
	case codePacketTooBig:
		e.what, e.slow = "hub finds a packet too large", true
	case codeBusy, codeQuota, codeUnavailable:
		e.what = "hub is busy"
	case codeShuttingDown:
		e.what = "hub is shutting down"
	case codeUseAnother, codeMoved:
		e.what = "hub refers to another"
	}
	if code != codeUseAnother && code != codeMoved {
		e.reference = ""
	}
	if reason != "" {
		e.what += fmt.Sprintf(": %.200s", reason)
	}
	if d, ok := wire.RetryAfter(user); ok {
		e.retryAfter = max(d, time.Millisecond)
	}
	return e
}
