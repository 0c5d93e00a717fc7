package rawmqtt

// Judge follows one connection from the side of the client and says what the
// server may not do at this point of it, beyond the form of a packet. The zero
// value judges an MQTT 3.1.1 connection that begins. Sent and Received are called
// in the order of the wire; it is not safe for concurrent use.
type Judge struct {
	connect  *Connect
	version  byte
	connack  *Connack
	ended    bool              // a DISCONNECT or a refusal came
	aliases  map[uint32]string // the server's
	out      map[uint16]state  // what the client sent: id to what is due
	in       map[uint16]state  // what the server sent
	subs     map[uint16][]byte // options of a SUBSCRIBE, by id
	unsubs   map[uint16]int    // filters of an UNSUBSCRIBE, by id
	pings    int
	quota    int // QoS 1 and 2 messages of the server on the way
	exchange bool
}

type state byte

const (
	wantPuback state = iota + 1
	wantPubrec
	wantPubrel  // from the server, which has a PUBREC
	wantPubcomp // after a PUBREL
)

func (j *Judge) init() {
	if j.out == nil {
		j.aliases, j.out, j.in = map[uint32]string{}, map[uint16]state{}, map[uint16]state{}
		j.subs, j.unsubs = map[uint16][]byte{}, map[uint16]int{}
	}
}

// Sent notes a packet of the client, whether the client may send it or not.
func (j *Judge) Sent(p Packet, version byte) {
	j.init()
	j.version = version
	switch p := p.(type) {
	case *Connect:
		if j.connect == nil {
			j.connect = p
			j.exchange = p.Properties.Has(AuthMethod)
		}
	case *Publish:
		switch p.QoS {
		case 1:
			j.out[p.ID] = wantPuback
		case 2:
			j.out[p.ID] = wantPubrec
		}
	case *Subscribe:
		for _, f := range p.Filters {
			j.subs[p.ID] = append(j.subs[p.ID], f.Options)
		}
	case *Unsubscribe:
		j.unsubs[p.ID] += len(p.Filters)
	case *Pingreq:
		j.pings++
	case *Ack:
		j.sentAck(p)
	}
}

func (j *Judge) sentAck(p *Ack) {
	switch {
	case p.Kind == PUBREL:
		j.out[p.ID] = wantPubcomp
	case p.Kind == PUBREC && p.Code < 0x80:
		if j.in[p.ID] != 0 {
			j.in[p.ID] = wantPubrel
		}
	default: // the end of an exchange
		if _, ok := j.in[p.ID]; ok {
			delete(j.in, p.ID)
			j.quota--
		}
	}
}

func (j *Judge) props() Properties {
	if j.connect == nil {
		return nil
	}
	return j.connect.Properties
}

// Received judges a packet of the server that has size bytes.
func (j *Judge) Received(p Packet, size int) error {
	j.init()
	if j.ended {
		return broken("[MQTT-3.14.4-1]", "%s after the end", p.Type())
	}
	if limit := j.props().Num(MaximumPacketSize, 0); limit > 0 && size > int(limit) { // 0 is no size, and an error
		return broken("[MQTT-3.1.2-24]", "%s of %d bytes, the client takes %d", p.Type(), size, limit)
	}
	if err := j.order(p); err != nil {
		return err
	}
	if err := j.problemInfo(p); err != nil {
		return err
	}
	switch p := p.(type) {
	case *Connack:
		return j.acknowledged(p)
	case *Publish:
		return j.published(p)
	case *Ack:
		return j.receivedAck(p)
	case *Suback:
		return j.suback(p)
	case *Unsuback:
		n, ok := j.unsubs[p.ID]
		delete(j.unsubs, p.ID)
		if !ok || j.version >= V5 && n != len(p.Codes) {
			return broken("[MQTT-3.10.4-5]", "UNSUBACK of id %d with %d codes, %d are due", p.ID, len(p.Codes), n)
		}
	case *Pingresp:
		if j.pings--; j.pings < 0 {
			return broken("3.13", "PINGRESP without a PINGREQ")
		}
	case *Disconnect:
		j.ended = true
	}
	return nil
}

// order checks what may come before and after CONNACK.
func (j *Judge) order(p Packet) error {
	switch p.(type) {
	case *Connack:
		if j.connack != nil {
			return broken("[MQTT-3.2.0-2]", "a second CONNACK")
		}
		return nil
	case *Auth:
		if !j.exchange {
			return broken("[MQTT-4.12.0-6]", "AUTH to a client without an authentication method")
		}
		return nil
	case *Disconnect:
		if j.connack == nil {
			return broken("[MQTT-3.14.0-1]", "DISCONNECT before CONNACK")
		}
		return nil
	}
	if j.connack == nil {
		return broken("[MQTT-3.2.0-1]", "%s before CONNACK", p.Type())
	}
	return nil
}

// problemInfo checks [MQTT-3.1.2-29].
func (j *Judge) problemInfo(p Packet) error {
	if j.props().Num(RequestProblemInfo, 1) == 1 {
		return nil
	}
	var props Properties
	switch p := p.(type) {
	case *Ack:
		props = p.Properties
	case *Suback:
		props = p.Properties
	case *Unsuback:
		props = p.Properties
	case *Auth:
		props = p.Properties
	}
	if props.Has(ReasonString) || props.Has(UserProperty) {
		return broken("[MQTT-3.1.2-29]", "%s explains itself to a client that asked it not to", p.Type())
	}
	return nil
}

func (j *Judge) acknowledged(p *Connack) error {
	j.connack = p
	if j.connect == nil {
		return broken("[MQTT-3.1.0-1]", "CONNACK without CONNECT")
	}
	if p.Code != 0 {
		j.ended = true
		return nil
	}
	switch {
	case j.connect.CleanStart && p.SessionPresent:
		return broken("[MQTT-3.2.2-2]", "clean start, and yet a session is present")
	case j.version < V5:
	case (j.connect.ClientID == "") != p.Properties.Has(AssignedClientID):
		return broken("[MQTT-3.2.2-16]", "client identifier %q, assigned %q", j.connect.ClientID, p.Properties.Text(AssignedClientID))
	case p.Properties.Has(AuthMethod) && !j.exchange:
		return broken("[MQTT-4.12.0-6]", "CONNACK with an authentication method that the client did not name")
	case p.Properties.Has(ResponseInfo) && j.props().Num(RequestResponseInfo, 0) == 0:
		return broken("[MQTT-3.1.2-28]", "response information that nobody asked for")
	}
	return nil
}

func (j *Judge) published(p *Publish) error {
	if a, ok := p.Properties.Get(TopicAlias); ok {
		if most := j.props().Num(TopicAliasMaximum, 0); a.Num > most {
			return broken("[MQTT-3.1.2-26]", "topic alias %d, the client takes %d", a.Num, most)
		}
		if p.Topic == "" && j.aliases[a.Num] == "" {
			return broken("3.3.2.3.4", "topic alias %d was never announced", a.Num)
		}
		if p.Topic != "" {
			j.aliases[a.Num] = p.Topic
		}
	}
	if p.QoS == 0 {
		return nil
	}
	if s, used := j.in[p.ID]; used {
		return broken("[MQTT-2.2.1-4]", "packet identifier %d is in use (%d)", p.ID, s)
	}
	if p.Dup && !j.connack.SessionPresent {
		return broken("[MQTT-3.3.1-3]", "DUP on a message of a new session")
	}
	j.in[p.ID] = wantPuback
	j.quota++
	if most := int(j.props().Num(ReceiveMaximum, 65535)); j.quota > most {
		return broken("[MQTT-3.3.4-9]", "%d messages on the way, the client takes %d", j.quota, most)
	}
	return nil
}

// Topic is the topic of a message that the server sent, its alias resolved.
func (j *Judge) Topic(p *Publish) string {
	if p.Topic == "" {
		return j.aliases[p.Properties.Num(TopicAlias, 0)]
	}
	return p.Topic
}

func (j *Judge) receivedAck(p *Ack) error {
	if p.Kind == PUBREL {
		s, known := j.in[p.ID]
		if known && s != wantPubrel && s != wantPubcomp || !known && !j.connack.SessionPresent && p.Code == 0 {
			return broken("[MQTT-4.3.3-4]", "PUBREL of id %d without a PUBREC", p.ID)
		}
		if known {
			j.in[p.ID] = wantPubcomp
		}
		return nil
	}
	due := map[Type]state{PUBACK: wantPuback, PUBREC: wantPubrec, PUBCOMP: wantPubcomp}[p.Kind]
	if j.out[p.ID] != due {
		return broken("[MQTT-2.2.1-5]", "%s of id %d, for which none is due", p.Kind, p.ID)
	}
	if p.Kind == PUBREC && p.Code < 0x80 {
		return nil // a PUBLISH that is sent again gets another
	}
	delete(j.out, p.ID)
	return nil
}

func (j *Judge) suback(p *Suback) error {
	options, ok := j.subs[p.ID]
	delete(j.subs, p.ID)
	if !ok {
		return broken("[MQTT-3.8.4-2]", "SUBACK of id %d, for which none is due", p.ID)
	}
	if len(options) != len(p.Codes) {
		return broken("[MQTT-3.8.4-6]", "SUBACK with %d codes for %d filters", len(p.Codes), len(options))
	}
	for i, c := range p.Codes {
		if c <= 2 && c > options[i]&3 {
			return broken("[MQTT-3.8.4-7]", "granted QoS %d where %d was asked for", c, options[i]&3)
		}
	}
	return nil
}
