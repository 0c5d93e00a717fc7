package mqttfront

import (
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

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
	p := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: a.version,
		SessionPresent: a.present && a.code == Success, // [MQTT-3.2.2-6]
		ReasonCode:     a.code,
	}
	if a.version < 5 {
		p.SessionPresent = p.SessionPresent && a.version == 4 // [MQTT-3.2.2-2] of 3.1.1; MQTT 3.1 does not know it
		p.ReasonCode = connackV3(a.code)
		return appendEncoded(dst, &p, p.ConnackEncode, 0)
	}
	p.Properties = packets.Properties{
		SessionExpiryInterval: a.expiry, SessionExpiryIntervalFlag: a.hasExpiry,
		ReceiveMaximum:    a.receiveMaximum,
		MaximumPacketSize: a.maxPacket,
		TopicAliasMaximum: a.topicAliases,
		MaximumQos:        1, MaximumQosFlag: a.noQoS2, // [MQTT-3.2.2-9]
		RetainAvailable: 0, RetainAvailableFlag: a.noRetain,
		AssignedClientID: a.assignedID,
		ServerKeepAlive:  a.keepAlive, ServerKeepAliveFlag: a.keepAlive > 0,
		ServerReference: cut(a.serverReference, maxString),
		ReasonString:    cut(a.reason, maxReason),
		User:            userOf(a.user),
	}
	return appendEncoded(dst, &p, p.ConnackEncode, a.limit)
}
