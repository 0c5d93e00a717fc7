package rawmqtt

import "encoding/binary"

// Encode is the packet's bytes for a protocol level.
func Encode(p Packet, version byte) []byte { return p.Append(nil, version) }

// AppendVarint appends a variable byte integer, at most 268,435,455.
func AppendVarint(dst []byte, n uint32) []byte {
	for n >= 128 {
		dst = append(dst, byte(n)|128)
		n >>= 7
	}
	return append(dst, byte(n))
}

// AppendString appends a string or binary data with its length; only the first
// 65,535 bytes of it.
func AppendString(dst []byte, s string) []byte {
	s = s[:min(len(s), 0xFFFF)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// finish puts the fixed header before a body.
func (w *Wire) finish(dst []byte, first byte, body []byte) []byte {
	body = append(body[:max(0, len(body)-w.Cut)], w.Extra...)
	if w.First != nil {
		first = *w.First
	}
	dst = append(dst, first)
	if w.Length != nil {
		dst = append(dst, w.Length...)
	} else {
		dst = AppendVarint(dst, uint32(len(body)))
	}
	return append(dst, body...)
}

func (w *Wire) properties(dst []byte, p Properties, version byte) []byte {
	if version < V5 {
		return dst
	}
	b := p.appendTo(nil)
	if w.PropertyLength != nil {
		dst = append(dst, w.PropertyLength...)
	} else {
		dst = AppendVarint(dst, uint32(len(b)))
	}
	return append(dst, b...)
}

// Append implements Packet.
func (p *Connect) Append(dst []byte, version byte) []byte {
	name, level := p.ProtocolName, p.Level
	if level == 0 {
		level = version
	}
	if name == "" {
		name = "MQTT"
		if version == V31 {
			name = "MQIsdp"
		}
	}
	flags := p.flags()
	if p.Flags != nil {
		flags = *p.Flags
	}
	body := append(AppendString(nil, name), level, flags)
	body = binary.BigEndian.AppendUint16(body, p.KeepAlive)
	body = p.properties(body, p.Properties, version)
	body = AppendString(body, p.ClientID)
	if w := p.Will; w != nil {
		none := Wire{}
		body = none.properties(body, w.Properties, version)
		body = AppendString(AppendString(body, w.Topic), string(w.Payload))
	}
	if p.Username != nil {
		body = AppendString(body, *p.Username)
	}
	if p.Password != nil {
		body = AppendString(body, string(p.Password))
	}
	return p.finish(dst, byte(CONNECT)<<4, body)
}

// The connect flags.
const (
	flagClean    = 0x02
	flagWill     = 0x04
	flagRetain   = 0x20
	flagPassword = 0x40
	flagUsername = 0x80
)

func (p *Connect) flags() (f byte) {
	if p.CleanStart {
		f |= flagClean
	}
	if w := p.Will; w != nil {
		f |= flagWill | w.QoS<<3
		if w.Retain {
			f |= flagRetain
		}
	}
	if p.Username != nil {
		f |= flagUsername
	}
	if p.Password != nil {
		f |= flagPassword
	}
	return f
}

// Append implements Packet.
func (p *Connack) Append(dst []byte, version byte) []byte {
	body := []byte{0, p.Code}
	if p.SessionPresent {
		body[0] = 1
	}
	return p.finish(dst, byte(CONNACK)<<4, p.properties(body, p.Properties, version))
}

// Append implements Packet.
func (p *Publish) Append(dst []byte, version byte) []byte {
	first := byte(PUBLISH)<<4 | p.QoS<<1
	if p.Dup {
		first |= 8
	}
	if p.Retain {
		first |= 1
	}
	body := AppendString(nil, p.Topic)
	if p.QoS > 0 {
		body = binary.BigEndian.AppendUint16(body, p.ID)
	}
	body = p.properties(body, p.Properties, version)
	return p.finish(dst, first, append(body, p.Payload...))
}

// Append implements Packet.
func (p *Ack) Append(dst []byte, version byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, p.ID)
	if version >= V5 && (p.Code != 0 || len(p.Properties) > 0 || p.Full || p.PropertyLength != nil) {
		body = append(body, p.Code)
		if len(p.Properties) > 0 || p.Full || p.PropertyLength != nil {
			body = p.properties(body, p.Properties, version)
		}
	}
	return p.finish(dst, byte(p.Kind)<<4|p.Kind.flags(), body)
}

// Append implements Packet.
func (p *Subscribe) Append(dst []byte, version byte) []byte {
	body := p.properties(binary.BigEndian.AppendUint16(nil, p.ID), p.Properties, version)
	for _, f := range p.Filters {
		body = append(AppendString(body, f.Filter), f.Options)
	}
	return p.finish(dst, byte(SUBSCRIBE)<<4|2, body)
}

// Append implements Packet.
func (p *Suback) Append(dst []byte, version byte) []byte {
	body := p.properties(binary.BigEndian.AppendUint16(nil, p.ID), p.Properties, version)
	return p.finish(dst, byte(SUBACK)<<4, append(body, p.Codes...))
}

// Append implements Packet.
func (p *Unsubscribe) Append(dst []byte, version byte) []byte {
	body := p.properties(binary.BigEndian.AppendUint16(nil, p.ID), p.Properties, version)
	for _, f := range p.Filters {
		body = AppendString(body, f)
	}
	return p.finish(dst, byte(UNSUBSCRIBE)<<4|2, body)
}

// Append implements Packet.
func (p *Unsuback) Append(dst []byte, version byte) []byte {
	body := p.properties(binary.BigEndian.AppendUint16(nil, p.ID), p.Properties, version)
	if version >= V5 {
		body = append(body, p.Codes...)
	}
	return p.finish(dst, byte(UNSUBACK)<<4, body)
}

// Append implements Packet.
func (p *Pingreq) Append(dst []byte, _ byte) []byte { return p.finish(dst, byte(PINGREQ)<<4, nil) }

// Append implements Packet.
func (p *Pingresp) Append(dst []byte, _ byte) []byte { return p.finish(dst, byte(PINGRESP)<<4, nil) }

// Append implements Packet.
func (p *Disconnect) Append(dst []byte, version byte) []byte {
	return p.finish(dst, byte(DISCONNECT)<<4, p.reason(version, p.Code, p.Properties, p.Full))
}

// Append implements Packet.
func (p *Auth) Append(dst []byte, version byte) []byte {
	return p.finish(dst, byte(AUTH)<<4, p.reason(version, p.Code, p.Properties, p.Full))
}

func (w *Wire) reason(version, code byte, props Properties, full bool) []byte {
	if version < V5 || code == 0 && len(props) == 0 && !full && w.PropertyLength == nil {
		return nil
	}
	return w.properties([]byte{code}, props, version)
}

// Append implements Packet.
func (p Raw) Append(dst []byte, _ byte) []byte { return append(dst, p...) }
