package mqttfront

import (
	"slices"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	maxSubscriptions = 256 // filters of a client
	maxFilterBytes   = 1024
	maxLevels        = 64 // of a filter, and of a topic that is retained
)

// hook is what mochi calls. A client whose connection is not a *conn is one of
// the fan-out's own.
type hook struct {
	mqtt.HookBase
	f *Front
}

func (h *hook) ID() string { return "packetboat" }

var provided = []byte{
	mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect,
	mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketProcessed,
	mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnPublish, mqtt.OnPublishDropped, mqtt.OnQosPublish,
}

func (h *hook) Provides(b byte) bool { return slices.Contains(provided, b) }

func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	return connOf(cl).admit(cl, pk)
}

func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	connOf(cl).establish(cl, pk.Connect.Clean)
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) { connOf(cl).settleIn(cl) }

// OnDisconnect keeps a new connection of the client out of mochi's way while it
// clears the old one away: it would delete the new one from its table.
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) {
	if c := connOf(cl); c != nil {
		c.lockStripe()
	}
}

// OnPublish is where nothing of a client ever comes: the door took it.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if c := connOf(cl); c != nil {
		h.f.n.protocol("bypassed")
		c.end(errEnded, ImplementationSpecificError, "message came the wrong way")
		return pk, packets.ErrRejectPacket
	}
	return pk, nil
}

func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	switch {
	case c == nil:
	case pk.FixedHeader.Type == packets.Connack:
		return c.connack(cl, pk)
	case pk.FixedHeader.Type == packets.Suback, pk.FixedHeader.Type == packets.Unsuback:
		return c.suback(pk)
	}
	return pk
}

// OnACLCheck is asked for every filter of a SUBSCRIBE, which OnSubscribe has
// decided, and for every delivery.
func (h *hook) OnACLCheck(cl *mqtt.Client, _ string, write bool) bool {
	c := connOf(cl)
	if c == nil || write || c.subscribe.deciding.Load() || c.deliverable() {
		return true
	}
	h.f.n.fanDropped("slow_subscriber")
	return false
}

// deliverable reports whether the client can take another message: its window
// (ours, since mochi's is not used) and its socket have room.
func (c *conn) deliverable() bool {
	return c.windowOpen() && c.outPending() < slowOut
}

func (c *conn) windowOpen() bool {
	window := int(c.cl.Properties.Props.ReceiveMaximum)
	if window == 0 {
		window = maxOutInflight
	}
	return c.cl.State.Inflight.Len() < min(window, maxOutInflight)
}

func (h *hook) OnPublishDropped(*mqtt.Client, packets.Packet) { h.f.n.fanDropped("queue_full") }

// OnPacketRead moves the packet identifier of SUBSCRIBE and UNSUBSCRIBE out of
// the way: mochi refuses one that a message to the client bears, although the
// two sides number independently. suback puts the client's own back.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	t := pk.FixedHeader.Type
	if c == nil || t != packets.Subscribe && t != packets.Unsubscribe || pk.PacketID == 0 {
		return pk, nil
	}
	c.subscribe.clientID, c.subscribe.ownID = pk.PacketID, 65535
	for {
		if _, taken := cl.State.Inflight.Get(c.subscribe.ownID); !taken {
			break
		}
		c.subscribe.ownID--
	}
	pk.PacketID = c.subscribe.ownID
	return pk, nil
}

func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if c := connOf(cl); c != nil {
		c.decideFilters(&pk)
	}
	return pk
}

func (h *hook) OnSubscribed(cl *mqtt.Client, _ packets.Packet, codes []byte) {
	if c := connOf(cl); c != nil {
		c.subscribe.deciding.Store(false)
		c.subscribe.retained.granted(codes)
	}
}

// OnPacketProcessed goes on with retained messages: after a SUBSCRIBE, and when
// an acknowledgement may have made room.
func (h *hook) OnPacketProcessed(cl *mqtt.Client, _ packets.Packet, _ error) {
	if c := connOf(cl); c != nil {
		c.sendRetained()
	}
}

// OnQosPublish is called when mochi has noted a QoS 1 message to a client. One
// that is larger than the client allows would stay there for ever, and end each
// connection that resumes the session. [MQTT-3.1.2-25]
func (h *hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	if c := connOf(cl); c != nil && tooLarge(pk, c.peerPacket) {
		cl.State.Inflight.Delete(pk.PacketID)
		h.f.n.fanDropped("too_large")
	}
}

// decideFilters asks the Session for each filter. One that it refuses becomes
// empty, which mochi refuses too; suback names the reason.
func (c *conn) decideFilters(pk *packets.Packet) {
	s := &c.subscribe
	s.deciding.Store(true)
	s.codes = make([]byte, len(pk.Filters))
	have := c.cl.State.Subscriptions.Len()
	pk.Filters = slices.Clone(pk.Filters)
	s.retained.asked = s.retained.asked[:0]
	for i := range pk.Filters {
		sub := &pk.Filters[i]
		sub.Qos = min(sub.Qos, 1)
		if s.codes[i] = c.checkFilter(sub.Filter, have+i); s.codes[i] != Success {
			sub.Filter = ""
		}
		s.retained.ask(c, sub)
	}
}

func (c *conn) checkFilter(filter string, have int) byte {
	_, known := c.cl.State.Subscriptions.Get(filter)
	plain := filter
	if isShared(filter) {
		// mochi takes it in any spelling; the Session is asked about one.
		var group string
		if group, plain, _ = strings.Cut(filter[len(share):], "/"); group == "" {
			return TopicFilterInvalid // [MQTT-4.8.2-1]
		}
	}
	switch {
	case len(filter) > maxFilterBytes || strings.Count(filter, "/") >= maxLevels || !ValidFilter(plain):
		return TopicFilterInvalid
	case !known && (have >= maxSubscriptions || !c.f.roomForLevels(filter)):
		return QuotaExceeded
	}
	c.calling = true
	granted := c.session.Subscribe(plain)
	c.calling = false
	if !granted {
		return NotAuthorized
	}
	return Success
}

const share = "$share/"

func isShared(filter string) bool {
	return len(filter) >= len(share) && strings.EqualFold(filter[:len(share)], share)
}

// ValidFilter reports whether f is a topic filter: a wildcard fills its level, #
// is the last, and there is at least one character. [MQTT-4.7.1-1,2]
func ValidFilter(f string) bool {
	if f == "" {
		return false
	}
	for len(f) > 0 {
		level, rest, more := strings.Cut(f, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return false
		}
		f = rest
	}
	return true
}

// suback puts into a SUBACK or UNSUBACK what the client expects.
func (c *conn) suback(pk packets.Packet) packets.Packet {
	s := &c.subscribe
	if pk.PacketID == s.ownID {
		pk.PacketID = s.clientID
	}
	if pk.FixedHeader.Type == packets.Unsuback {
		return pk
	}
	for i, code := range s.codes {
		if code != Success && i < len(pk.ReasonCodes) {
			pk.ReasonCodes[i] = code
			if c.version < 5 {
				pk.ReasonCodes[i] = UnspecifiedError // [MQTT-3.9.3-2] of 3.1.1
			}
		}
	}
	return pk
}
