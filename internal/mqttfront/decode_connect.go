package mqttfront

import (
	"encoding/binary"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Properties of CONNECT and of a will, beside those of PUBLISH.
const (
	propSessionExpiry   = 0x11
	propAuthMethod      = 0x15
	propAuthData        = 0x16
	propProblemInfo     = 0x17
	propWillDelay       = 0x18
	propResponseInfo    = 0x19
	propReceiveMaximum  = 0x21
	propTopicAliasMax   = 0x22
	propMaxPacketSize   = 0x27
	flagUsername        = 0x80
	flagPassword        = 0x40
	flagWillRetain      = 0x20
	flagWill            = 0x04
	flagClean           = 0x02
	flagConnectReserved = 0x01
)

// hello is a decoded CONNECT. It shares no memory with the packet.
type hello struct {
	version        byte // 0: not MQTT
	clean          bool
	keepAlive      uint16
	id             string
	username       string
	password       []byte
	will           *Publish
	willDelay      uint32
	user           []stream.Property
	sessionExpiry  uint32
	receiveMaximum uint16 // 65,535 when the client says nothing
	maxPacket      uint32 // 0: any
	aliases        uint16 // Topic Alias Maximum
	noProblemInfo  bool
	enhancedAuth   bool
}

// decodeConnect reads the body of a CONNECT. With an error, version is what the
// client can be answered in.
func decodeConnect(b []byte) (h hello, err *wireError) {
	h.receiveMaximum = 65535
	r := propReader{b: b}
	name := string(r.bytes())
	version := r.take(1)
	switch {
	case r.bad, name != "MQTT" && name != "MQIsdp":
		return h, malformed("not a CONNECT of MQTT") // [MQTT-3.1.2-1]
	case name == "MQTT" && version[0] != 4 && version[0] != 5, name == "MQIsdp" && version[0] != 3:
		h.version = 4                                                                                // it is answered in the form that every version has
		return h, &wireError{UnsupportedProtocolVersion, "version", "protocol version is not known"} // [MQTT-3.1.2-2]
	}
	h.version = version[0]
	flags := r.take(1)
	keepAlive := r.take(2)
	if r.bad {
		return h, malformed("CONNECT is cut short")
	}
	h.keepAlive = binary.BigEndian.Uint16(keepAlive)
	if err := h.checkFlags(flags[0]); err != nil {
		return h, err
	}
	h.clean = flags[0]&flagClean != 0
	if h.version >= 5 {
		if err := h.decodeProps(r.props()); err != nil {
			return h, err
		}
	}
	return h, h.decodePayload(&r, flags[0])
}

func (h *hello) checkFlags(flags byte) *wireError {
	willQoS := flags >> 3 & 3
	switch {
	case flags&flagConnectReserved != 0:
		return malformed("reserved flag of CONNECT is set") // [MQTT-3.1.2-3]
	case flags&flagWill == 0 && (willQoS != 0 || flags&flagWillRetain != 0):
		return malformed("CONNECT has flags of a will, but no will") // [MQTT-3.1.2-11,13]
	case willQoS == 3:
		return malformed("will with QoS 3") // [MQTT-3.1.2-12]
	case h.version < 5 && flags&flagPassword != 0 && flags&flagUsername == 0:
		return malformed("password without user name") // [MQTT-3.1.2-22] of 3.1.1
	}
	return nil
}

// decodePayload reads what follows the variable header.
func (h *hello) decodePayload(r *propReader, flags byte) *wireError {
	h.id = r.text()
	if flags&flagWill != 0 {
		h.will = &Publish{QoS: flags >> 3 & 3, Retain: flags&flagWillRetain != 0, Will: true}
		if h.version >= 5 {
			if err := h.decodeWillProps(r.props()); err != nil {
				return err
			}
		}
		h.will.Topic = r.text()
		h.will.Payload = append([]byte(nil), r.bytes()...)
	}
	if flags&flagUsername != 0 {
		h.username = r.text()
	}
	if flags&flagPassword != 0 {
		h.password = append([]byte(nil), r.bytes()...)
	}
	switch {
	case r.bad:
		return malformed("CONNECT is cut short, or a string is not UTF-8") // [MQTT-1.5.4-1]
	case len(r.b) > 0:
		return malformed("CONNECT is followed by something")
	}
	return nil
}

// props takes properties with their length; nil when they are cut short.
func (r *propReader) props() *propReader {
	n, size, ok := varint(r.b)
	if !ok {
		r.bad = true
		return nil
	}
	r.take(size)
	if v := r.take(n); !r.bad {
		return &propReader{b: v}
	}
	return nil
}

// walk calls each for every property. A property that may stand once only is
// refused the second time.
func (r *propReader) walk(where string, each func(id byte) *wireError) *wireError {
	if r == nil {
		return malformed(where + " ends in its properties")
	}
	var seen [64]bool
	for len(r.b) > 0 && !r.bad {
		id := r.take(1)[0]
		if int(id) < len(seen) && id != propUser {
			if seen[id] {
				return &wireError{ProtocolError, "protocol", "property stands twice in " + where}
			}
			seen[id] = true
		}
		if err := each(id); err != nil {
			return err
		}
	}
	if r.bad {
		return malformed("a property of " + where + " is cut short or not UTF-8")
	}
	return nil
}

func (r *propReader) u16() uint16 {
	if v := r.take(2); !r.bad {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *propReader) u32() uint32 {
	if v := r.take(4); !r.bad {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// flag takes a byte that is 0 or 1.
func (r *propReader) flag(what string) (bool, *wireError) {
	v := r.take(1)
	if r.bad {
		return false, nil
	}
	if v[0] > 1 {
		return false, &wireError{ProtocolError, "protocol", what + " is neither 0 nor 1"}
	}
	return v[0] == 1, nil
}

// user takes a user property.
func (r *propReader) user() stream.Property {
	k := r.text()
	return stream.Property{Key: k, Value: r.text()}
}

func (h *hello) decodeProps(r *propReader) *wireError {
	hasData := false
	err := r.walk("CONNECT", func(id byte) (err *wireError) {
		switch id {
		case propSessionExpiry:
			h.sessionExpiry = r.u32()
		case propReceiveMaximum:
			if h.receiveMaximum = r.u16(); h.receiveMaximum == 0 && !r.bad {
				return &wireError{ProtocolError, "protocol", "Receive Maximum 0"} // MQTT 5, 3.1.2.11.3
			}
		case propMaxPacketSize:
			if h.maxPacket = r.u32(); h.maxPacket == 0 && !r.bad {
				return &wireError{ProtocolError, "protocol", "Maximum Packet Size 0"} // MQTT 5, 3.1.2.11.4
			}
		case propTopicAliasMax:
			h.aliases = r.u16()
		case propResponseInfo:
			_, err = r.flag("Request Response Information")
		case propProblemInfo:
			var v bool
			v, err = r.flag("Request Problem Information")
			h.noProblemInfo = !v
		case propUser:
			h.user = append(h.user, r.user())
		case propAuthMethod:
			r.text()
			h.enhancedAuth = true
		case propAuthData:
			r.bytes()
			hasData = true
		default:
			return &wireError{ProtocolError, "protocol", "property does not belong in CONNECT"}
		}
		return err
	})
	if err == nil && hasData && !h.enhancedAuth {
		return &wireError{ProtocolError, "protocol", "authentication data without a method"} // MQTT 5, 3.1.2.11.10
	}
	return err
}

func (h *hello) decodeWillProps(r *propReader) *wireError {
	keep := &stream.Properties{}
	err := r.walk("the will", func(id byte) (err *wireError) {
		switch id {
		case propWillDelay:
			h.willDelay = r.u32()
		case propPayloadFormat:
			keep.PayloadUTF8, err = r.flag("payload format indicator")
		case propMessageExpiry:
			h.will.Expiry = r.u32()
		case propContentType:
			keep.ContentType = r.text()
		case propResponseTopic:
			keep.ResponseTopic = r.text()
			if strings.ContainsAny(keep.ResponseTopic, "+#") {
				return &wireError{ProtocolError, "protocol", "response topic holds a wildcard"} // [MQTT-3.3.2-14]
			}
		case propCorrelationData:
			keep.CorrelationData = append([]byte(nil), r.bytes()...)
		case propUser:
			keep.User = append(keep.User, r.user())
		default:
			return &wireError{ProtocolError, "protocol", "property does not belong in a will"}
		}
		return err
	})
	if !keep.IsZero() {
		h.will.Properties = keep
	}
	return err
}
