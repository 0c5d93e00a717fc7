package rawmqtt

import "strings"

func (d *reader) connect() (Packet, error) {
	p := &Connect{ProtocolName: d.text("the protocol name"), Level: d.u8("the protocol level")}
	if d.err == nil && (p.Level != d.version || p.ProtocolName != nameOf(p.Level)) {
		return nil, broken("[MQTT-3.1.2-1]", "protocol %q level %d", p.ProtocolName, p.Level)
	}
	flags := d.u8("the connect flags")
	p.CleanStart = flags&flagClean != 0
	p.KeepAlive = d.u16("keep alive")
	p.Properties = d.properties(CONNECT)
	p.ClientID = d.text("the client identifier")
	switch {
	case flags&1 != 0:
		d.fail("[MQTT-3.1.2-3]", "the reserved connect flag is set")
	case flags&flagWill == 0 && flags&0x18 != 0:
		d.fail("[MQTT-3.1.2-11]", "will QoS without a will")
	case flags&flagWill == 0 && flags&flagRetain != 0:
		d.fail("[MQTT-3.1.2-13]", "will retain without a will")
	case flags&0x18 == 0x18:
		d.fail("[MQTT-3.1.2-12]", "will QoS 3")
	case d.version < V5 && flags&flagUsername == 0 && flags&flagPassword != 0:
		d.fail("[MQTT-3.1.2-22]", "a password without a user name")
	}
	if flags&flagWill != 0 {
		p.Will = &Will{QoS: flags >> 3 & 3, Retain: flags&flagRetain != 0, Properties: d.properties(will)}
		p.Will.Topic = d.text("the will's topic")
		p.Will.Payload = []byte(d.binary("the will's payload"))
		d.topic(p.Will.Topic)
	}
	if flags&flagUsername != 0 {
		name := d.text("the user name")
		p.Username = &name
	}
	if flags&flagPassword != 0 {
		p.Password = []byte(d.binary("the password"))
	}
	return p, nil
}

func nameOf(level byte) string {
	if level == V31 {
		return "MQIsdp"
	}
	return "MQTT"
}

func (d *reader) connack() (Packet, error) {
	flags := d.u8("the acknowledge flags")
	p := &Connack{SessionPresent: flags&1 != 0, Code: d.u8("the reason code"), Properties: d.properties(CONNACK)}
	switch {
	case d.err != nil:
	case flags > 1:
		d.fail("[MQTT-3.2.2-1]", "acknowledge flags 0x%02x", flags)
	case d.version < V5 && p.Code > 5:
		d.fail("3.2.2.3 of 3.1.1", "return code %d", p.Code)
	case d.version >= V5:
		d.code("[MQTT-3.2.2-8]", p.Code, connackCodes)
	}
	if d.err == nil && p.SessionPresent && p.Code != 0 {
		d.fail("[MQTT-3.2.2-6]", "session present with code 0x%02x", p.Code)
	}
	return p, nil
}

func (d *reader) publish(first byte) (Packet, error) {
	p := &Publish{Dup: first&8 != 0, QoS: first >> 1 & 3, Retain: first&1 != 0}
	switch {
	case p.QoS == 3:
		return nil, broken("[MQTT-3.3.1-4]", "PUBLISH with QoS 3")
	case p.QoS == 0 && p.Dup:
		return nil, broken("[MQTT-3.3.1-2]", "PUBLISH with QoS 0 and DUP")
	}
	p.Topic = d.text("the topic name")
	if p.QoS > 0 {
		p.ID = d.id()
	}
	p.Properties = d.properties(PUBLISH)
	if d.err == nil && p.Topic == "" && !p.Properties.Has(TopicAlias) {
		d.fail("[MQTT-4.7.3-1]", "PUBLISH without a topic")
	}
	if p.Topic != "" {
		d.topic(p.Topic)
	}
	if d.err == nil {
		p.Payload = append([]byte{}, d.b...)
		d.b = nil
	}
	return p, nil
}

func (d *reader) topic(s string) {
	if s == "" {
		d.fail("[MQTT-4.7.3-1]", "empty topic name")
	}
	if strings.ContainsAny(s, "+#") {
		d.fail("[MQTT-3.3.2-2]", "topic name %q has wildcards", s)
	}
}

func (d *reader) ack() (Packet, error) {
	p := &Ack{Kind: d.kind, ID: d.id()}
	if d.version < V5 || len(d.b) == 0 {
		return p, nil
	}
	p.Code = d.u8("the reason code")
	if len(d.b) > 0 {
		p.Properties = d.properties(d.kind)
	}
	codes, clause := pubackCodes, "[MQTT-3.4.2-1]"
	switch d.kind {
	case PUBREC:
		clause = "[MQTT-3.5.2-1]"
	case PUBREL:
		codes, clause = pubrelCodes, "[MQTT-3.6.2-1]"
	case PUBCOMP:
		codes, clause = pubrelCodes, "[MQTT-3.7.2-1]"
	}
	d.code(clause, p.Code, codes)
	return p, nil
}

func (d *reader) subscribe() (Packet, error) {
	p := &Subscribe{ID: d.id(), Properties: d.properties(SUBSCRIBE)}
	for d.err == nil && len(d.b) > 0 {
		f := Filter{d.filter(), d.u8("the subscription options")}
		reserved := reservedSubscribe
		if d.version < V5 {
			reserved = reservedSubscribeV4
		}
		switch {
		case f.Options&reserved != 0:
			d.fail("[MQTT-3.8.3-5]", "reserved subscription options in 0x%02x", f.Options)
		case f.Options&3 == 3, f.Options&retainHandling == retainHandling:
			d.fail("3.8.3.1", "subscription options 0x%02x", f.Options)
		case f.Options&NoLocal != 0 && strings.HasPrefix(f.Filter, "$share/"):
			d.fail("[MQTT-3.8.3-4]", "No Local on a shared subscription")
		}
		p.Filters = append(p.Filters, f)
	}
	if d.err == nil && len(p.Filters) == 0 {
		d.fail("[MQTT-3.8.3-2]", "SUBSCRIBE without a filter")
	}
	return p, nil
}

func (d *reader) filter() string {
	s := d.text("a topic filter")
	if s == "" {
		d.fail("[MQTT-4.7.3-1]", "empty topic filter")
	}
	return s
}

func (d *reader) unsubscribe() (Packet, error) {
	p := &Unsubscribe{ID: d.id(), Properties: d.properties(UNSUBSCRIBE)}
	for d.err == nil && len(d.b) > 0 {
		p.Filters = append(p.Filters, d.filter())
	}
	if d.err == nil && len(p.Filters) == 0 {
		d.fail("[MQTT-3.10.3-2]", "UNSUBSCRIBE without a filter")
	}
	return p, nil
}

func (d *reader) suback() (Packet, error) {
	p := &Suback{ID: d.id(), Properties: d.properties(SUBACK), Codes: d.rest()}
	if d.err == nil && len(p.Codes) == 0 {
		d.fail("[MQTT-3.8.4-6]", "SUBACK without a code")
	}
	for _, c := range p.Codes {
		if d.version < V5 {
			d.code("[MQTT-3.9.3-2]", c, subackCodesV3)
		} else {
			d.code("[MQTT-3.9.3-2]", c, subackCodes)
		}
	}
	return p, nil
}

func (d *reader) unsuback() (Packet, error) {
	p := &Unsuback{ID: d.id()}
	if d.version < V5 {
		return p, nil
	}
	p.Properties, p.Codes = d.properties(UNSUBACK), d.rest()
	if d.err == nil && len(p.Codes) == 0 {
		d.fail("[MQTT-3.11.3-1]", "UNSUBACK without a code")
	}
	for _, c := range p.Codes {
		d.code("[MQTT-3.11.3-2]", c, unsubackCodes)
	}
	return p, nil
}

func (d *reader) rest() []byte {
	if d.err != nil {
		return nil
	}
	out := append([]byte{}, d.b...)
	d.b = nil
	return out
}

// reason reads a DISCONNECT or an AUTH, which may end early.
func (d *reader) reason(code *byte, props *Properties) error {
	if d.version < V5 {
		if d.kind == DISCONNECT && d.sender == FromServer {
			return broken("3.14 of 3.1.1", "a server sends DISCONNECT")
		}
		return nil
	}
	if len(d.b) > 0 {
		*code = d.u8("the reason code")
	}
	if len(d.b) > 0 {
		*props = d.properties(d.kind)
	}
	switch {
	case d.kind == AUTH && d.sender == FromServer:
		d.code("[MQTT-3.15.2-1]", *code, []byte{0x00, 0x18})
	case d.kind == AUTH:
		d.code("[MQTT-3.15.2-1]", *code, []byte{0x18, 0x19})
	case d.sender == FromServer:
		d.code("[MQTT-3.14.2-1]", *code, disconnectCodes)
	default:
		d.code("[MQTT-3.14.2-1]", *code, disconnectCodesOfClient)
	}
	return nil
}

func (d *reader) code(clause string, c byte, allowed []byte) {
	for _, x := range allowed {
		if x == c {
			return
		}
	}
	d.fail(clause, "%s has code 0x%02x", d.kind, c)
}

// The reason codes of each packet.
var (
	connackCodes            = []byte{0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}
	pubackCodes             = []byte{0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	pubrelCodes             = []byte{0, 0x92}
	subackCodes             = []byte{0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}
	subackCodesV3           = []byte{0, 1, 2, 0x80}
	unsubackCodes           = []byte{0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}
	disconnectCodes         = []byte{0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2}
	disconnectCodesOfClient = []byte{0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
)
