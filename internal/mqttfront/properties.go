package mqttfront

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// propRule is what is demanded of a property that a client sends.
type propRule struct {
	in   uint16 // the packets it may stand in, bits of the types; inWill
	kind propKind
	zero bool // 0 is a value
}

// propKind is how a value is written, and what all values of the kind obey
// (MQTT 5, 2.2.2.2).
type propKind byte

const (
	kindFlag  propKind = iota // a byte that is 0 or 1
	kindTwo                   // two bytes
	kindFour                  // four bytes
	kindVar                   // variable byte integer
	kindData                  // bytes
	kindText                  // UTF-8 without U+0000
	kindTopic                 // such text without wildcards
	kindPair                  // two texts; the only one that may repeat
)

const (
	inWill        = 1 << 0 // no packet has type 0
	inConnect     = 1 << typeConnect
	inAck         = 1 << typePuback // and its three likes
	inSubscribe   = 1 << typeSubscribe
	inUnsubscribe = 1 << typeUnsubscribe
	inDisconnect  = 1 << typeDisconnect
)

// propRules are those of all packets of clients but PUBLISH, which is read where
// it is checked, see decodeProps.
var propRules = [...]propRule{
	packets.PropPayloadFormat:          {inWill, kindFlag, true},
	packets.PropMessageExpiryInterval:  {inWill, kindFour, true},
	packets.PropContentType:            {inWill, kindText, true},
	packets.PropResponseTopic:          {inWill, kindTopic, true}, // [MQTT-3.3.2-14]
	packets.PropCorrelationData:        {inWill, kindData, true},
	packets.PropWillDelayInterval:      {inWill, kindFour, true},
	packets.PropSubscriptionIdentifier: {inSubscribe, kindVar, false}, // 3.8.2.1.2
	packets.PropSessionExpiryInterval:  {inConnect | inDisconnect, kindFour, true},
	packets.PropAuthenticationMethod:   {inConnect, kindText, true},
	packets.PropAuthenticationData:     {inConnect, kindData, true},
	packets.PropRequestProblemInfo:     {inConnect, kindFlag, true},
	packets.PropRequestResponseInfo:    {inConnect, kindFlag, true},
	packets.PropReceiveMaximum:         {inConnect, kindTwo, false}, // 3.1.2.11.3
	packets.PropTopicAliasMaximum:      {inConnect, kindTwo, true},
	packets.PropMaximumPacketSize:      {inConnect, kindFour, false}, // 3.1.2.11.4
	packets.PropReasonString:           {inAck | inDisconnect, kindText, true},
	packets.PropUser:                   {inWill | inConnect | inAck | inSubscribe | inUnsubscribe | inDisconnect, kindPair, true},
}

// checkProps takes properties with their length off r. seen has a bit for each
// property that is there: mochi's decoder, which reads them afterwards, does not
// tell an empty value from none, and neither minds where the properties end, nor
// how often one stands there, nor what its value is.
func (r *propReader) checkProps(in uint16) (seen uint64, err *wireError) {
	n, size, ok := varint(r.b)
	r.take(size)
	p := propReader{b: r.take(n)}
	if !ok || r.bad {
		return 0, malformed("packet ends in its properties")
	}
	for len(p.b) > 0 && !p.bad {
		id := p.take(1)[0]
		if int(id) >= len(propRules) || propRules[id].in&in == 0 {
			return 0, malformed(fmt.Sprintf("property 0x%02x does not belong there", id)) // 2.2.2.2
		}
		rule := propRules[id]
		if seen&(1<<id) != 0 && rule.kind != kindPair {
			return 0, broken("property 0x%02x stands twice", id)
		}
		seen |= 1 << id
		if !p.skip(rule) && !p.bad {
			return 0, broken("property 0x%02x has a value that it may not have", id)
		}
	}
	if p.bad {
		return 0, malformed("a property is cut short or not UTF-8") // [MQTT-1.5.4-1,2]
	}
	return seen, nil
}

func broken(format string, args ...any) *wireError {
	return &wireError{ProtocolError, "protocol", fmt.Sprintf(format, args...)}
}

// skip takes a value, and reports whether it may be that.
func (r *propReader) skip(rule propRule) bool {
	v := 1
	switch rule.kind {
	case kindFlag:
		b := r.take(1)
		return !r.bad && b[0] <= 1
	case kindTwo:
		v = int(r.u16())
	case kindFour:
		v = int(min(r.u32(), 1)) // whether it is 0
	case kindVar:
		n, size, ok := varint(r.b)
		r.bad = r.bad || !ok
		r.take(size)
		v = n
	case kindData:
		r.bytes()
	case kindText:
		r.skipText()
	case kindTopic:
		return !bytes.ContainsAny(r.skipText(), "+#")
	case kindPair:
		r.skipText()
		r.skipText()
	}
	return rule.zero || v != 0
}

// skipText takes a text of the packet, and leaves it there.
func (r *propReader) skipText() []byte {
	v := r.bytes()
	if !validString(v) {
		r.bad = true
	}
	return v
}

func (r *propReader) u16() uint16 {
	if v := r.take(2); !r.bad {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *propReader) u32() uint32 {
	if v := r.take(4); !r.bad {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// pairsOf copies user properties that mochi has read.
func pairsOf(user []packets.UserProperty) []stream.Property {
	if len(user) == 0 {
		return nil
	}
	out := make([]stream.Property, len(user))
	for i, u := range user {
		out[i] = stream.Property{Key: strings.Clone(u.Key), Value: strings.Clone(u.Val)}
	}
	return out
}
