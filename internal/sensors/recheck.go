package sensors

import (
	"maps"
	"slices"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
)

// Recheck ends the connections of those who would not be let in any more: by
// their password, or by their certificate, which also ends by itself. It is to
// be called now and then, not twice at a time.
func (s *Sensors) Recheck() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	s.recheckUsers(all)
	s.recheckCertificates(all, time.Now())
}

// recheckUsers asks once for all connections that came with one password.
func (s *Sensors) recheckUsers(all []*session) {
	type login struct{ user, password string }
	good := map[login]bool{}
	for _, c := range all {
		if c.by != password {
			continue
		}
		l := login{c.user, c.password}
		if _, asked := good[l]; !asked {
			good[l] = s.o.Users.Authenticate(c.user, []byte(c.password))
		}
		if !good[l] {
			s.log.Info("user is gone or has another password, its connection ends", "user", c.user, "client", c.client)
			c.disconnect(mqttfront.NotAuthorized, "the user name and password are not accepted any more")
		}
	}
}

// recheckCertificates looks at certificates that are over, and at those that
// were not looked at since authorities or revocation lists changed last.
func (s *Sensors) recheckCertificates(all []*session, now time.Time) {
	if s.o.Trust == nil {
		return
	}
	trust := s.o.Trust()
	for _, c := range all {
		if c.tls == nil {
			continue
		}
		if end := pki.GoodUntil(c.tls); !end.IsZero() && now.After(end) {
			s.log.Info("certificate is over, its connection ends", "user", c.user, "client", c.client, "not_after", end)
			c.disconnect(mqttfront.NotAuthorized, "the certificate is over")
			continue
		}
		if c.checked == trust || trust == nil {
			continue
		}
		c.checked = trust
		if err := trust.Check(c.tls); err != nil {
			s.log.Info("certificate is not trusted any more, its connection ends", "user", c.user, "client", c.client, "error", err)
			c.disconnect(mqttfront.NotAuthorized, "the certificate is not trusted any more")
		}
	}
}
