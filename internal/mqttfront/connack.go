package mqttfront

import "github.com/packetboat/packetboat/pkg/stream"

// connack is a CONNACK. Before MQTT 5 only its first line is said.
type connack struct {
	version, code   byte
	present         bool
	limit           uint32 // of the packet; 0: none
	hasExpiry       bool
	expiry          uint32
	receiveMaximum  uint16
	maxPacket       uint32
	topicAliases    uint16
	noQoS2          bool
	noRetain        bool
	assignedID      string
	keepAlive       uint16
	serverReference string
	reason          string
	user            []stream.Property
}

// append appends the packet; nothing when it can never fit.
func (a *connack) append(dst []byte) []byte {
	if a.version < 5 {
		var present byte
		if a.present && a.code == Success && a.version == 4 {
			present = 1 // [MQTT-3.2.2-2] of 3.1.1; MQTT 3.1 does not know it
		}
		return append(dst, typeConnack<<4, 2, present, connackV3(a.code))
	}
	need := a.needed(nil)
	props := need
	if a.reason != "" {
		props = appendString(append(props[:len(props):len(props)], propReasonString), a.reason[:min(len(a.reason), 1024)])
	}
	props = appendUser(props[:len(props):len(props)], a.user)
	if !a.fits(len(props)) {
		props = need // [MQTT-3.2.2-19,20]
	}
	if !a.fits(len(props)) {
		return dst // [MQTT-3.1.2-24]
	}
	dst = appendVarint(append(dst, typeConnack<<4), 2+varintSize(len(props))+len(props))
	var present byte
	if a.present && a.code == Success {
		present = 1 // [MQTT-3.2.2-6]
	}
	dst = appendVarint(append(dst, present, a.code), len(props))
	return append(dst, props...)
}

func (a *connack) fits(props int) bool {
	remaining := 2 + varintSize(props) + props
	return a.limit == 0 || 1+varintSize(remaining)+remaining <= int(a.limit)
}

// needed appends the properties that must not be left out.
func (a *connack) needed(dst []byte) []byte {
	number := func(id byte, v uint32, size int) {
		dst = append(dst, id)
		for i := size - 1; i >= 0; i-- {
			dst = append(dst, byte(v>>(8*i)))
		}
	}
	if a.hasExpiry {
		number(propSessionExpiry, a.expiry, 4)
	}
	if a.receiveMaximum > 0 {
		number(propReceiveMaximum, uint32(a.receiveMaximum), 2)
	}
	if a.noQoS2 {
		number(propMaximumQoS, 1, 1) // [MQTT-3.2.2-9]
	}
	if a.noRetain {
		number(propRetainAvailable, 0, 1)
	}
	if a.maxPacket > 0 {
		number(propMaxPacketSize, a.maxPacket, 4)
	}
	if a.assignedID != "" {
		dst = appendString(append(dst, propAssignedID), a.assignedID)
	}
	if a.topicAliases > 0 {
		number(propTopicAliasMax, uint32(a.topicAliases), 2)
	}
	if a.keepAlive > 0 {
		number(propServerKeepAlive, uint32(a.keepAlive), 2)
	}
	if a.serverReference != "" {
		dst = appendString(append(dst, propServerReference), a.serverReference)
	}
	return dst
}

// Properties of CONNACK alone.
const (
	propAssignedID      = 0x12
	propServerKeepAlive = 0x13
	propServerReference = 0x1C
	propMaximumQoS      = 0x24
	propRetainAvailable = 0x25
)
