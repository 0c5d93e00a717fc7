package mqttfront

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// maxTotalLevels bounds the levels of all filters, which cost levelCost each.
	maxTotalLevels = 64 << 10
	// maxOwed bounds the memory of QoS 1 messages that subscribers, those away
	// included, have not acknowledged.
	maxOwed = 16 << 20
)

// roomForLevels counts the levels of a new filter in, unless there are too many.
func (f *Front) roomForLevels(filter string) bool {
	n := int64(strings.Count(filter, "/") + 1)
	if f.levels.Add(n) > maxTotalLevels {
		f.levels.Add(-n)
		return false
	}
	return true
}

// countLevels takes out again what has been unsubscribed. It looks only when
// half the room is used; who subscribes meanwhile is counted the next time.
func (f *Front) countLevels(all map[string]*mqtt.Client) {
	if f.levels.Load() <= maxTotalLevels/2 {
		return
	}
	n := 0
	for _, cl := range all {
		for filter := range cl.State.Subscriptions.GetAll() {
			n += strings.Count(filter, "/") + 1
		}
	}
	f.levels.Store(int64(n))
}

// owe notes that subscribers may owe an acknowledgement for another n bytes.
// When that may be too much it counts, and lets those who owe most lose what
// waits for them. Fan-out goroutine.
func (o *fanOut) owe(n int) {
	if o.owed += n; o.owed <= maxOwed {
		return
	}
	type debtor struct {
		cl    *mqtt.Client
		bytes int
	}
	var all []debtor
	o.owed = 0
	for _, cl := range o.f.engine.Clients.GetAll() {
		d := debtor{cl: cl}
		for _, pk := range cl.State.Inflight.GetAll(false) {
			d.bytes += inflightSize(&pk)
		}
		o.owed += d.bytes
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b debtor) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, d := range all {
		if o.owed <= maxOwed/2 {
			return
		}
		o.owed -= d.bytes
		for range d.cl.State.Inflight.Len() {
			o.f.n.fanDropped("undelivered_full")
		}
		d.cl.ClearInflights()
	}
}

func inflightSize(pk *packets.Packet) int {
	p := &pk.Properties
	n := packetCost + len(pk.TopicName) + len(pk.Payload) + len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
	for _, u := range p.User {
		n += len(u.Key) + len(u.Val) + userCost
	}
	return n
}

// tooLarge reports whether a PUBLISH has more than limit bytes; 0: no limit.
func tooLarge(pk packets.Packet, limit uint32) bool {
	if limit == 0 || pk.FixedHeader.Type != packets.Publish {
		return false
	}
	var b bytes.Buffer
	pk.ProtocolVersion, pk.Mods.AllowResponseInfo = 5, true
	return pk.PublishEncode(&b) != nil || b.Len() > int(limit)
}

// dropTooLarge takes from a session that c resumes what is larger than c's
// client allows: mochi would end the connection over it.
func (c *conn) dropTooLarge(old *mqtt.Client) {
	if c.peerPacket == 0 {
		return
	}
	for _, pk := range old.State.Inflight.GetAll(false) {
		if tooLarge(pk, c.peerPacket) {
			old.State.Inflight.Delete(pk.PacketID)
			c.f.n.fanDropped("too_large")
		}
	}
}
