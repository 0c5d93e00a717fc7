package sensors

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
)

// maxCommonName is the longest common name, in bytes, that is taken for a user.
const maxCommonName = 128

// proof is what makes a name that of a sensor.
type proof int

const (
	nothing proof = iota // it has no name
	password
	certificate
)

// Connect admits a sensor, or returns a *mqttfront.Refusal. It sets p.Username
// to the name that was proved, to nothing where none was.
func (s *Sensors) Connect(_ context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	user, by, refusal := s.who(p)
	if refusal != nil {
		s.n.badLogins.Add(1)
		return nil, mqttfront.Welcome{}, refusal
	}
	p.Username = user
	c := &session{s: s, user: user, client: p.ClientID, by: by, view: s.o.ACL.For(user, p.ClientID), disconnect: p.Disconnect}
	if p.Will != nil && !c.view.Publish(p.Will.Topic) {
		s.denied(&s.n.deniedWills, "will", c, p.Will.Topic)
		return nil, mqttfront.Welcome{}, &mqttfront.Refusal{Code: mqttfront.NotAuthorized, Reason: "the acl does not allow the topic of the will"}
	}
	switch by {
	case nothing:
		s.n.anonymous.Add(1)
	case certificate:
		s.n.certified.Add(1)
	case password:
		c.password = string(p.Password)
	}
	// Also of who did not need it: the handshake may have, and would not let it
	// in again.
	if p.TLS != nil && len(p.TLS.VerifiedChains) > 0 {
		c.tls = p.TLS
	}
	if by == nothing && c.tls == nil {
		return c, mqttfront.Welcome{}, nil
	}
	s.mu.Lock()
	s.sessions[c] = struct{}{}
	s.mu.Unlock()
	return c, mqttfront.Welcome{}, nil
}

// UserExists reports whether a sensor can still come as user: what is not certain
// counts as yes, such as the common name of a certificate.
func (s *Sensors) UserExists(user string) bool {
	if user == "" {
		return s.o.AllowAnonymous
	}
	if s.o.Trust != nil && s.o.Trust() != nil {
		return true
	}
	known, ok := s.o.Users.(interface{ Has(name string) bool })
	return s.o.Users != nil && (!ok || known.Has(user))
}

// who finds the name under which a sensor acts. A verified certificate proves
// its common name; a password that of the users file. A name that neither
// proves is refused, or means nothing where there are no users.
func (s *Sensors) who(p *mqttfront.Peer) (user string, by proof, refusal *mqttfront.Refusal) {
	name, cn := p.Username, commonName(p.TLS)
	switch {
	case cn != "" && (name == "" || name == cn):
		return cn, certificate, nil
	case name != "" && s.o.Users != nil:
		if s.o.Users.Authenticate(name, p.Password) {
			return name, password, nil
		}
		return "", nothing, &mqttfront.Refusal{Code: mqttfront.BadUsernameOrPassword, Reason: fmt.Sprintf("bad user name or password for %.60q", name)}
	case cn != "":
		return cn, certificate, nil
	case s.o.AllowAnonymous:
		return "", nothing, nil
	case name != "":
		return "", nothing, &mqttfront.Refusal{Code: mqttfront.BadUsernameOrPassword, Reason: fmt.Sprintf("bad user name or password for %.60q", name)}
	case p.TLS != nil && len(p.TLS.VerifiedChains) > 0:
		return "", nothing, &mqttfront.Refusal{Code: mqttfront.NotAuthorized, Reason: "the certificate has no common name that could be a user's"}
	}
	return "", nothing, &mqttfront.Refusal{Code: mqttfront.NotAuthorized, Reason: "this edge wants a user name and password"}
}

// commonName is the CN of a client certificate that was verified, or "".
func commonName(state *tls.ConnectionState) string {
	cn := pki.UserOf(state)
	bad := len(cn) > maxCommonName || !utf8.ValidString(cn) || strings.ContainsFunc(cn, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0
	})
	if bad {
		return ""
	}
	return cn
}
