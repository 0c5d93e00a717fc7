package rawmqtt

import (
	"fmt"
	"strings"
)

// Describe is a packet in one line, for logs and failures. Long payloads are cut.
func Describe(p Packet) string {
	switch p := p.(type) {
	case *Connect:
		s := fmt.Sprintf("CONNECT id=%q clean=%t keepalive=%d", short(p.ClientID), p.CleanStart, p.KeepAlive)
		if p.Will != nil {
			s += fmt.Sprintf(" will=%q qos=%d retain=%t payload=%q%s", short(p.Will.Topic), p.Will.QoS, p.Will.Retain, short(string(p.Will.Payload)), p.Will.Properties)
		}
		return s + p.Properties.String()
	case *Connack:
		return fmt.Sprintf("CONNACK present=%t code=0x%02x%s", p.SessionPresent, p.Code, p.Properties)
	case *Publish:
		return fmt.Sprintf("PUBLISH %q qos=%d id=%d dup=%t retain=%t payload=%q%s", short(p.Topic), p.QoS, p.ID, p.Dup, p.Retain, short(string(p.Payload)), p.Properties)
	case *Ack:
		return fmt.Sprintf("%s id=%d code=0x%02x%s", p.Kind, p.ID, p.Code, p.Properties)
	case *Subscribe:
		var b strings.Builder
		for _, f := range p.Filters {
			fmt.Fprintf(&b, " %q:0x%02x", short(f.Filter), f.Options)
		}
		return fmt.Sprintf("SUBSCRIBE id=%d%s%s", p.ID, b.String(), p.Properties)
	case *Suback:
		return fmt.Sprintf("SUBACK id=%d codes=% x%s", p.ID, p.Codes, p.Properties)
	case *Unsubscribe:
		return fmt.Sprintf("UNSUBSCRIBE id=%d %q%s", p.ID, p.Filters, p.Properties)
	case *Unsuback:
		return fmt.Sprintf("UNSUBACK id=%d codes=% x%s", p.ID, p.Codes, p.Properties)
	case *Disconnect:
		return fmt.Sprintf("DISCONNECT code=0x%02x%s", p.Code, p.Properties)
	case *Auth:
		return fmt.Sprintf("AUTH code=0x%02x%s", p.Code, p.Properties)
	case Raw:
		return fmt.Sprintf("raw % x", []byte(short(string(p))))
	}
	return p.Type().String()
}

func short(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%s… (%d bytes)", s[:60], len(s))
	}
	return s
}

// String is the properties in one line, with a space before each.
func (p Properties) String() string {
	var b strings.Builder
	for _, x := range p {
		switch rules[x.ID].kind {
		case text, binaryData:
			fmt.Fprintf(&b, " {%s %q}", x.ID, short(x.Text))
		case textPair:
			fmt.Fprintf(&b, " {%q=%q}", short(x.Text), short(x.Value))
		default:
			fmt.Fprintf(&b, " {%s %d}", x.ID, x.Num)
		}
	}
	return b.String()
}
