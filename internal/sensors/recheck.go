package sensors

import (
	"maps"
	"slices"

	"github.com/packetboat/packetboat/internal/mqttfront"
)

// Recheck ends the connections of users that are not known any more and of
// certificates that are not trusted any more. It is to be called now and then,
// not twice at a time.
func (s *Sensors) Recheck() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	s.recheckUsers(all)
	s.recheckCertificates(all)
}

func (s *Sensors) recheckUsers(all []*session) {
	known := map[string]bool{}
	for _, c := range all {
		if c.tls != nil || s.o.Users == nil {
			continue
		}
		if _, asked := known[c.user]; !asked {
			known[c.user] = s.o.Users.Has(c.user)
		}
		if !known[c.user] {
			s.log.Info("user is gone, its connection ends", "user", c.user, "client", c.client)
			c.disconnect(mqttfront.NotAuthorized, "the user is not known any more")
		}
	}
}

// recheckCertificates looks at certificates that were not looked at since
// authorities or revocation lists changed last.
func (s *Sensors) recheckCertificates(all []*session) {
	if s.o.Trust == nil {
		return
	}
	trust := s.o.Trust()
	for _, c := range all {
		if c.tls == nil || c.checked == trust || trust == nil {
			continue
		}
		c.checked = trust
		if err := trust.Check(c.tls); err != nil {
			s.log.Info("certificate is not trusted any more, its connection ends", "user", c.user, "client", c.client, "error", err)
			c.disconnect(mqttfront.NotAuthorized, "the certificate is not trusted any more")
		}
	}
}
