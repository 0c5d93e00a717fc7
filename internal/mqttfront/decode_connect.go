package mqttfront

import (
	"bytes"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Properties of CONNECT and of a will that other packets have too, and the flags
// of CONNECT.
const (
	propSessionExpiry   = packets.PropSessionExpiryInterval
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
	seen, err := h.check(b)
	if err != nil {
		return h, err
	}
	p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(b)}}
	// ConnectValidate is not asked: it refuses wills without payload, and check
	// has seen to the rest.
	if err := p.ConnectDecode(b); err != nil {
		return h, malformed(err.Error())
	}
	c := &p.Connect
	h.clean, h.keepAlive = c.Clean, c.Keepalive
	h.id, h.username, h.password = strings.Clone(c.ClientIdentifier), string(c.Username), bytes.Clone(c.Password)
	h.user = pairsOf(p.Properties.User)
	h.sessionExpiry, h.maxPacket, h.aliases = p.Properties.SessionExpiryInterval, p.Properties.MaximumPacketSize, p.Properties.TopicAliasMaximum
	if n := p.Properties.ReceiveMaximum; n > 0 {
		h.receiveMaximum = n
	}
	h.noProblemInfo = p.Properties.RequestProblemInfoFlag && p.Properties.RequestProblemInfo == 0
	h.enhancedAuth = seen&(1<<packets.PropAuthenticationMethod) != 0
	if c.WillFlag {
		h.takeWill(c)
	}
	return h, nil
}

func (h *hello) takeWill(c *packets.ConnectParams) {
	p := &c.WillProperties
	h.willDelay = p.WillDelayInterval
	h.will = &Publish{
		Topic: strings.Clone(c.WillTopic), Payload: bytes.Clone(c.WillPayload), QoS: c.WillQos, Retain: c.WillRetain, Will: true,
		Expiry: p.MessageExpiryInterval,
	}
	keep := &stream.Properties{
		PayloadUTF8: p.PayloadFormat == 1, ContentType: strings.Clone(p.ContentType), ResponseTopic: strings.Clone(p.ResponseTopic),
		CorrelationData: bytes.Clone(p.CorrelationData), User: pairsOf(p.User),
	}
	if !keep.IsZero() {
		h.will.Properties = keep
	}
}

// check says what is wrong with the body of a CONNECT, as far as mochi's decoder
// would not mind, or would not say it in the words of the specification. seen are
// the properties that are there, a bit each.
func (h *hello) check(b []byte) (seen uint64, err *wireError) {
	r := propReader{b: b}
	name := string(r.bytes())
	version := r.take(1)
	switch {
	case r.bad, name != "MQTT" && name != "MQIsdp":
		return 0, malformed("not a CONNECT of MQTT") // [MQTT-3.1.2-1]
	case name == "MQTT" && version[0] != 4 && version[0] != 5, name == "MQIsdp" && version[0] != 3:
		h.version = 4                                                                                // it is answered in the form that every version has
		return 0, &wireError{UnsupportedProtocolVersion, "version", "protocol version is not known"} // [MQTT-3.1.2-2]
	}
	h.version = version[0]
	flags := r.take(1)
	r.take(2)
	if r.bad {
		return 0, malformed("CONNECT is cut short")
	}
	if err := h.checkFlags(flags[0]); err != nil {
		return 0, err
	}
	if h.version >= 5 {
		if seen, err = r.checkProps(inConnect); err != nil {
			return 0, err
		}
		if seen&(1<<packets.PropAuthenticationData) != 0 && seen&(1<<packets.PropAuthenticationMethod) == 0 {
			return 0, broken("authentication data without a method") // MQTT 5, 3.1.2.11.10
		}
	}
	return seen, h.checkPayload(&r, flags[0])
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

// checkPayload checks what follows the variable header.
func (h *hello) checkPayload(r *propReader, flags byte) *wireError {
	r.skipText() // client id
	if flags&flagWill != 0 {
		if h.version >= 5 {
			if _, err := r.checkProps(inWill); err != nil {
				return err
			}
		}
		r.skipText() // topic
		r.bytes()    // payload
	}
	if flags&flagUsername != 0 {
		r.skipText()
	}
	if flags&flagPassword != 0 {
		r.bytes()
	}
	switch {
	case r.bad:
		return malformed("CONNECT is cut short, or a string is not UTF-8") // [MQTT-1.5.4-1]
	case len(r.b) > 0:
		return malformed("CONNECT is followed by something")
	}
	return nil
}
