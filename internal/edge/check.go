package edge

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/gate"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Check reports what is wrong beyond the types of single keys.
func (c *Config) Check(r *config.Report) {
	for _, l := range limits {
		if n := l.get(c); n < l.least || n > l.most {
			r.Add(l.key, fmt.Sprintf("is out of range: %s to %s", l.text(l.least), l.text(l.most)), l.why)
		}
	}
	if n, most := int64(c.Buffer.MaxState), buffer.MaxState(int64(c.Buffer.MaxBytes)); n > most && most > 0 && n <= buffer.MaxStateBytes {
		r.Add("buffer.max_state", "is more than the journal has room for: "+size(most&^1023), "write 0 to let it choose, or raise buffer.max_bytes")
	}
	switch {
	case c.Device == "":
		r.Add("device", "is missing", "name this vehicle: device: truck-17, or --device truck-17")
	case stream.CheckDeviceID(c.Device) != nil:
		r.Add("device", stream.CheckDeviceID(c.Device).Error(), "")
	}
	if c.DataDir == "" {
		r.Add("data_dir", "is empty", "name a directory that the edge may write to")
	}
	c.checkSensorTLS(r)
	c.checkListen(r)
	c.checkLanes(r)
	c.checkHub(r)
	if f := c.Sensors.UsersFile; f != "" {
		if _, err := pki.OpenUsers(f, 0); err != nil {
			r.Add("sensors.users_file", err.Error(), "`packetboat-edge user add NAME --file "+f+"` makes one")
		}
	}
	c.checkACL(r)
}

// checkACL reports every violation of the ACL file.
func (c *Config) checkACL(r *config.Report) {
	if c.Sensors.ACLFile == "" {
		return
	}
	_, err := acl.Open(c.Sensors.ACLFile)
	bad, ok := errors.AsType[*acl.FileError](err)
	switch {
	case ok:
		for _, v := range bad.All {
			r.Add(fmt.Sprintf("sensors.acl_file[%s:%d]", filepath.Base(bad.Path), v.Line), v.Message, v.Hint)
		}
	case err != nil:
		r.Add("sensors.acl_file", err.Error(), "")
	}
}

// door is a listener for sensors.
type door struct {
	key, addr, example string
	tls                bool
}

// doors lists the listeners for sensors, those that are off included.
func (l *Listen) doors() []door {
	return []door{
		{"listen.mqtt", l.MQTT, "127.0.0.1:1883", false}, {"listen.mqtts", l.MQTTS, "127.0.0.1:8883", true},
		{"listen.ws", l.WS, "127.0.0.1:8083", false}, {"listen.wss", l.WSS, "127.0.0.1:8084", true},
	}
}

// Sensors lists the addresses at which sensors connect, those other than MQTT
// over TCP with their scheme.
func (l *Listen) Sensors() (list []string) {
	for _, d := range l.doors() {
		if d.addr == Off {
			continue
		}
		scheme := ""
		if d.key != "listen.mqtt" {
			scheme = strings.TrimPrefix(d.key, "listen.") + "://"
		}
		list = append(list, scheme+d.addr)
	}
	return list
}

func (c *Config) checkListen(r *config.Report) {
	open := 0
	for _, d := range c.Listen.doors() {
		if d.addr == Off {
			continue
		}
		open++
		host, ok := checkAddr(r, d.key, d.addr, d.example+`, or "off"`)
		proves := d.tls && c.Sensors.TLS.ClientAuth == pki.AuthRequired
		switch {
		case ok && !isLoopback(host) && c.anonymous() && !c.AllowAnonymous && !proves:
			hint := "set sensors.users_file, or allow_anonymous: true where everybody on the network may publish"
			if d.tls {
				hint = "set sensors.users_file or sensors.tls.client_auth: required, or allow_anonymous: true where everybody on the network may publish"
			}
			r.Add(d.key, "is reachable from elsewhere, and nobody would be asked for a name", hint)
		case ok && d.tls && c.Sensors.TLS.CertFile == "":
			r.Add(d.key, "has no certificate", "set sensors.tls.cert_file and sensors.tls.key_file, or "+strings.TrimPrefix(d.key, "listen.")+": off")
		}
	}
	if open == 0 {
		r.Add("listen.mqtt", "is off, and so is every listener for sensors", "set one of mqtt, mqtts, ws and wss to an address")
	}
	for i, o := range c.Listen.WSOrigins {
		if err := gate.CheckOrigin(o); err != nil {
			r.Add(fmt.Sprintf("listen.ws_origins[%d]", i), err.Error(), "")
		}
	}
	if c.Listen.HTTP == Off {
		return
	}
	if host, ok := checkAddr(r, "listen.http", c.Listen.HTTP, `127.0.0.1:8461, or "off"`); ok && !isLoopback(host) && !c.Listen.HTTPPublic {
		r.Add("listen.http", "is reachable from elsewhere, and HTTP asks nobody for a name",
			"keep it on 127.0.0.1, or set listen.http_public: true where the network may read the status")
	}
}

// checkAddr wants host:port.
func checkAddr(r *config.Report, key, addr, example string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		r.Add(key, fmt.Sprintf("%.80q is not an address", addr), "write host:port, as "+example)
	}
	return host, err == nil
}

// hostOf is the host of an address that passed its check.
func hostOf(addr string) (string, bool) {
	host, _, err := net.SplitHostPort(addr)
	return host, err == nil
}

// isLoopback reports whether a listener on host is reachable from this machine
// only. Of names only localhost is trusted to be it.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkLanes(r *config.Report) {
	first := map[LaneName]int{}
	for i := range c.Lanes {
		l, key := &c.Lanes[i], fmt.Sprintf("lanes[%d].", i)
		if l.Name == "" {
			r.Add(key+"name", "is missing", "write urgent, normal, bulk or drop")
			continue
		}
		if len(l.Filters) == 0 {
			r.Add(key+"filters", "is empty", "write at least one topic filter, as alarm/#")
		}
		for j, f := range l.Filters {
			if msg := checkFilter(f); msg != "" {
				r.Add(fmt.Sprintf("%sfilters[%d]", key, j), fmt.Sprintf("%.80q is not a topic filter: %s", f, msg), "")
			}
		}
		if d := time.Duration(l.Resolution); d != 0 && (d < time.Microsecond || d > time.Second || d%time.Microsecond != 0) {
			r.Add(key+"resolution", "is out of range: 1us to 1s, whole microseconds", "1ms is the default")
		}
		checkBatch(r, key+"batch.", l.Batch)
		settings := l.Overflow != "" || l.Batch != (Batch{})
		if l.Name == Drop && (settings || l.Resolution != 0 || l.Drain != "") {
			r.Add(key+"name", "drop keeps nothing, so it takes filters only", "remove the other keys")
		}
		if at, again := first[l.Name]; again && l.Name != Drop && settings {
			r.Add(key+"name", fmt.Sprintf("overflow and batch of %s belong into its first rule, lanes[%d]", l.Name, at), "")
		} else if !again {
			first[l.Name] = i
		}
	}
}

// maxBatchMessages is the buffer's own bound of a batch.
const maxBatchMessages = 65_536

func checkBatch(r *config.Report, key string, b Batch) {
	if b.Messages < 0 || b.Messages > maxBatchMessages {
		r.Add(key+"messages", fmt.Sprintf("is out of range: 0 to %d", maxBatchMessages), "0 takes the lane's default")
	}
	if b.Bytes != 0 && b.Bytes < 256 || b.Bytes > 1<<20 {
		r.Add(key+"bytes", "is out of range: 256B to 1MiB", "0 takes the lane's default")
	}
	if time.Duration(b.Age) > time.Hour {
		r.Add(key+"age", "is more than 1h", "messages would wait longer than an outage")
	}
}

// CheckTopic says what is wrong with an MQTT topic name, or with a topic filter;
// nothing when it is one.
func CheckTopic(text string, filter bool) string {
	switch {
	case filter:
		return checkFilter(text)
	case strings.ContainsAny(text, "+#"):
		return "+ and # stand in filters only"
	}
	return checkFilter(text)
}

// checkFilter says what is wrong with an MQTT topic filter [MQTT-4.7.1].
func checkFilter(f string) string {
	switch {
	case f == "":
		return "it is empty"
	case len(f) > 65_535 || !utf8.ValidString(f) || strings.ContainsRune(f, 0):
		return "it is not MQTT text"
	case strings.HasPrefix(f, "$"):
		return "topics that begin with $ are the broker's own"
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		switch {
		case l != "#" && strings.Contains(l, "#"), l == "#" && i != len(levels)-1:
			return "# stands alone, as the last level"
		case l != "+" && strings.Contains(l, "+"):
			return "+ stands alone in its level"
		}
	}
	return ""
}

func (c *Config) checkHub(r *config.Report) {
	if len(c.Hub.URLs) == 0 {
		r.Add("hub.urls", "is missing", "name the hub: hub: {urls: [tcp://hub.example:1884]}, or --hub tcp://hub.example:1884")
	}
	for i, u := range c.Hub.URLs {
		if msg, hint := checkURL(u); msg != "" {
			r.Add(fmt.Sprintf("hub.urls[%d]", i), fmt.Sprintf("%.80q %s", u, msg), hint)
		}
	}
	if f := c.Hub.SecretFile; f != "" {
		if _, err := pki.ReadSecret(f); err != nil {
			r.Add("hub.secret_file", err.Error(), "put the secret there that `packetboat-hub device add "+c.Device+"` prints")
		}
	}
	if (c.Hub.TLS.CertFile == "") != (c.Hub.TLS.KeyFile == "") {
		r.Add("hub.tls", "names only one of cert_file and key_file", "a certificate needs its key")
		return
	}
	if c.Hub.TLS != (TLS{}) {
		if _, err := pki.OpenClientTLS(c.Hub.TLS.files()); err != nil {
			r.Add("hub.tls", err.Error(), "")
		}
	}
}

func (t TLS) files() pki.ClientFiles {
	return pki.ClientFiles{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile, ServerName: t.ServerName}
}

var urlSchemes = map[string]bool{"tcp": false, "mqtt": false, "tls": true, "mqtts": true} // to whether TLS is used

func checkURL(text string) (message, hint string) {
	const example = "write tcp://host:1884 or tls://host:8884"
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Scheme == "" {
		return "is not a url", example
	}
	if _, ok := urlSchemes[u.Scheme]; !ok {
		return fmt.Sprintf("has the scheme %s", u.Scheme), example
	}
	port := u.Port()
	if _, err := strconv.ParseUint(port, 10, 16); u.Hostname() == "" || port != "" && err != nil {
		return "names no host and port", example
	}
	switch {
	case u.User != nil:
		return "holds a name or password", "use hub.username and hub.secret_file"
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "has more than host and port", example
	}
	return "", ""
}
