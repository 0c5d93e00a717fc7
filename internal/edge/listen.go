package edge

import (
	"crypto/tls"
	"net"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/gate"
	"github.com/packetboat/packetboat/internal/pki"
)

// strangersPerAddress bounds the connections of one address that are not
// through the gate. A gateway with all sensors behind it may come back at once;
// what is closed comes again.
const strangersPerAddress = 256

func (e *Edge) gateOptions() gate.Options {
	s := &e.config.Sensors
	return gate.Options{
		// After a restart all sensors come back at the same moment.
		Rate: float64(s.AcceptRate), Burst: max(s.AcceptRate, s.MaxClients),
		PerAddress: strangersPerAddress, Logger: e.log.With("part", "sensors"),
	}
}

// listen opens the sensors' listeners, all or none.
func (e *Edge) listen(addrs *Addrs) (list []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range list {
				_ = l.Close()
			}
		}
	}()
	var conf *tls.Config
	if e.tls != nil {
		conf = e.tls.Config()
	}
	web := gate.WebSocketOptions{AllowedOrigins: e.config.Listen.WSOrigins}
	at := []*net.Addr{&addrs.MQTT, &addrs.MQTTS, &addrs.WS, &addrs.WSS}
	for i, d := range e.config.Listen.doors() {
		if d.addr == Off {
			continue
		}
		raw, err := net.Listen("tcp", d.addr)
		if err != nil {
			return list, cli.ListenError(d.key, d.addr, err)
		}
		*at[i] = raw.Addr()
		switch d.key {
		case "listen.mqtts":
			list = append(list, e.gate.TLS(raw, conf))
		case "listen.ws":
			list = append(list, e.gate.WebSocket(raw, nil, web))
		case "listen.wss":
			list = append(list, e.gate.WebSocket(raw, conf, web))
		default:
			list = append(list, e.gate.TCP(raw))
		}
		e.log.Info("listening", "for", "sensors", "key", d.key, "address", raw.Addr().String(),
			"anonymous", e.config.anonymous() && !(d.tls && e.config.Sensors.TLS.ClientAuth == pki.AuthRequired))
	}
	return list, nil
}
