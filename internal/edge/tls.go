package edge

import (
	"fmt"
	"slices"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/pki"
)

// checkSensorTLS opens the files as a start would.
func (c *Config) checkSensorTLS(r *config.Report) {
	t := &c.Sensors.TLS
	if *t == (SensorTLS{}) {
		return
	}
	wanted := t.ClientAuth == pki.AuthOptional || t.ClientAuth == pki.AuthRequired
	switch {
	case t.ClientAuth != "" && !slices.Contains(pki.ClientAuths, t.ClientAuth):
		r.Add("sensors.tls.client_auth", fmt.Sprintf("%.40q is no way to ask for certificates", t.ClientAuth), "write none, optional or required")
		return
	case t.CertFile == "" || t.KeyFile == "":
		r.Add("sensors.tls", "wants both cert_file and key_file", "a certificate needs its key")
		return
	case wanted && t.ClientCAFile == "":
		r.Add("sensors.tls.client_auth", "asks for certificates that nobody may sign", "set sensors.tls.client_ca_file")
		return
	case t.CRLFile != "" && t.ClientCAFile == "":
		r.Add("sensors.tls.crl_file", "revokes certificates that nobody asks for", "set sensors.tls.client_ca_file")
		return
	}
	if _, err := pki.OpenServerTLS(t.files()); err != nil {
		r.Add("sensors.tls", err.Error(), "")
	}
}

func (t SensorTLS) files() pki.ServerFiles {
	return pki.ServerFiles{Cert: t.CertFile, Key: t.KeyFile, ClientCAFile: t.ClientCAFile, ClientAuth: t.ClientAuth, CRLFile: t.CRLFile}
}

// asksForCertificates reports whether a sensor can prove its name by one.
func (t *SensorTLS) asksForCertificates() bool {
	return t.ClientCAFile != "" && t.ClientAuth != pki.AuthNone
}

// warnBefore is how long before a certificate ends that is said.
const warnBefore = 14 * 24 * time.Hour

// Certificate is a file of the configuration with a time to live.
type Certificate struct {
	Name     string    `json:"name"` // sensors, sensor_ca or hub
	Key      string    `json:"key"`  // of the configuration
	NotAfter time.Time `json:"not_after"`
}

// problem says what is wrong with the time to live: nothing while all is well.
func (x *Certificate) problem(now time.Time) string {
	switch left := x.NotAfter.Sub(now); {
	case left <= 0:
		return fmt.Sprintf("%s: the certificate is expired since %s", x.Key, x.NotAfter.UTC().Format(time.DateOnly))
	case left < warnBefore:
		return fmt.Sprintf("%s: the certificate expires in %s, on %s", x.Key, spanOf(left), x.NotAfter.UTC().Format(time.DateOnly))
	}
	return ""
}

// certificates looks at the files of now; what cannot be read is left out.
func certificates(sensors *pki.Server, hub *pki.Client) (list []Certificate) {
	add := func(name, key string, end time.Time) {
		if !end.IsZero() {
			list = append(list, Certificate{name, key, end.UTC()})
		}
	}
	if sensors != nil {
		s := sensors.Stats()
		add("sensors", "sensors.tls.cert_file", s.NotAfter)
		add("sensor_ca", "sensors.tls.client_ca_file", s.ClientCANotAfter)
	}
	if hub != nil {
		add("hub", "hub.tls.cert_file", clientCertEnd(hub))
	}
	return list
}

// clientCertEnd is when the edge's own certificate for the hub ends; zero: it has
// none.
func clientCertEnd(hub *pki.Client) time.Time {
	c, err := hub.Config()
	if err != nil || c.GetClientCertificate == nil {
		return time.Time{}
	}
	pair, err := c.GetClientCertificate(nil)
	if err != nil || pair.Leaf == nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter
}

// Certificates says what is wrong with the ends of certificates, one line each:
// those that are over, and those that will be within 14 days. A running edge
// says it by itself, and goes on.
func (c *Config) Certificates() (expired, expiring []string) {
	var sensors *pki.Server
	if c.Sensors.TLS.CertFile != "" {
		sensors, _ = pki.OpenServerTLS(c.Sensors.TLS.files()) // the checks say what is wrong
	}
	hub, err := pki.OpenClientTLS(c.Hub.TLS.files())
	if err != nil {
		hub = nil
	}
	now := time.Now()
	for _, x := range certificates(sensors, hub) {
		switch text := x.problem(now); {
		case text == "":
		case x.NotAfter.After(now):
			expiring = append(expiring, text)
		default:
			expired = append(expired, text)
		}
	}
	return expired, expiring
}
