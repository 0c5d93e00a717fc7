package mqttfront

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	fanQueue         = 1024     // messages on their way to local subscribers
	fanBytes         = 4 << 20  // and their bytes
	maxRetained      = 10_000   // retained messages
	maxRetainedBytes = 32 << 20 // and their memory, see keptSize
	maxOutInflight   = 64       // QoS 1 messages on the way to one subscriber
)

// fanOut gives settled messages to local subscribers and keeps retained ones,
// on one goroutine, in the order in which each client published. When it lags
// behind it drops and counts.
type fanOut struct {
	f     *Front
	queue chan fanItem
	bytes atomic.Int64 // in queue

	// Fan-out goroutine only.
	kept      map[string]keptMessage
	keptBytes int
	owed      int // bytes of QoS 1 messages that subscribers may not have had, at most
}

type fanItem struct {
	c      *conn
	pub    Publish
	expiry uint32
}

type keptMessage struct {
	size  int
	until time.Time // zero: for ever
}

func newFanOut(f *Front) *fanOut {
	return &fanOut{f: f, queue: make(chan fanItem, fanQueue), kept: make(map[string]keptMessage)}
}

func (i *fanItem) size() int64 {
	return int64(len(i.pub.Topic) + len(i.pub.Payload) + propertiesSize(i.pub.Properties))
}

// propertiesSize is the memory that p takes, roughly.
func propertiesSize(p *stream.Properties) int {
	if p == nil {
		return 0
	}
	n := len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
	for _, u := range p.User {
		n += len(u.Key) + len(u.Value) + userCost
	}
	return n
}

// offer queues a settled message. It never blocks.
func (o *fanOut) offer(c *conn, e *entry) {
	item := fanItem{c, e.pub, e.expiry}
	if o.bytes.Add(item.size()) > fanBytes {
		o.bytes.Add(-item.size())
		o.f.n.fanDropped("queue_full")
		return
	}
	select {
	case o.queue <- item:
	default:
		o.bytes.Add(-item.size())
		o.f.n.fanDropped("queue_full")
	}
}

// run delivers until ctx ends.
func (o *fanOut) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			o.expire(now)
		case item := <-o.queue:
			o.bytes.Add(-item.size())
			o.deliver(&item)
		}
	}
}

// deliver injects the message in the name of its sender, so that "no local"
// holds.
func (o *fanOut) deliver(item *fanItem) {
	c := item.c
	if c.fan == nil {
		c.fan = o.f.engine.NewClient(nil, mqtt.LocalListener, c.id, true)
	}
	pub := &item.pub
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: pub.QoS, Retain: pub.Retain},
		TopicName:   pub.Topic, Payload: pub.Payload, PacketID: uint16(pub.QoS), // mochi wants one, and uses its own
		Properties: sentProperties(pub.Properties, item.expiry),
	}
	if pub.Retain || pub.QoS > 0 {
		// It may stay for long, and would keep its neighbours in the reader's slab.
		pk.Payload = bytes.Clone(pub.Payload)
	}
	if pub.Retain {
		pk.FixedHeader.Retain = o.keep(item)
		o.f.retained.Lock()
		defer o.f.retained.Unlock()
	}
	if err := o.f.engine.InjectPacket(c.fan, pk); err != nil {
		o.f.n.fanDropped("refused")
		return
	}
	o.f.n.fanOut.Add(1)
	if pub.QoS > 0 {
		o.owe(int(item.size()) + packetCost)
	}
}

// keep decides whether a retained message is retained, and accounts for it.
func (o *fanOut) keep(item *fanItem) bool {
	pub := &item.pub
	old, had := o.kept[pub.Topic]
	size := keptSize(item)
	switch {
	case len(pub.Payload) == 0: // clears [MQTT-3.3.1-6]
		delete(o.kept, pub.Topic)
		o.keptBytes -= old.size
		return had
	case strings.Count(pub.Topic, "/") >= maxLevels || len(pub.Topic) > maxFilterBytes,
		!had && len(o.kept) >= maxRetained,
		o.keptBytes-old.size+size > maxRetainedBytes:
		o.f.n.fanDropped("retained_full")
		return false
	}
	until := time.Time{}
	if item.expiry > 0 {
		until = time.Now().Add(time.Duration(item.expiry) * time.Second)
	}
	o.kept[pub.Topic] = keptMessage{size, until}
	o.keptBytes += size - old.size
	return true
}

// The memory that mochi takes for a packet that it keeps, and for a level of a
// topic or filter in its index.
const (
	packetCost = 1 << 10
	levelCost  = 640
)

// keptSize is the memory that a retained message takes at most.
func keptSize(item *fanItem) int {
	return int(item.size()) + packetCost + levelCost*strings.Count(item.pub.Topic, "/")
}

// expire forgets retained messages whose time has come, by the monotonic clock.
func (o *fanOut) expire(now time.Time) {
	for topic, k := range o.kept {
		if k.until.IsZero() || now.Before(k.until) {
			continue
		}
		delete(o.kept, topic)
		o.keptBytes -= k.size
		o.f.retained.Lock()
		o.f.engine.Topics.RetainMessage(packets.Packet{TopicName: topic})
		o.f.retained.Unlock()
	}
}

func sentProperties(p *stream.Properties, expiry uint32) packets.Properties {
	out := packets.Properties{MessageExpiryInterval: expiry}
	if p == nil {
		return out
	}
	out.ContentType, out.ResponseTopic, out.CorrelationData = p.ContentType, p.ResponseTopic, p.CorrelationData
	out.User = toUser(p.User)
	if p.PayloadUTF8 {
		out.PayloadFormat, out.PayloadFormatFlag = 1, true
	}
	return out
}

func keptProperties(p *packets.Properties) *stream.Properties {
	out := &stream.Properties{
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
		User: fromUser(p.User), PayloadUTF8: p.PayloadFormat == 1,
	}
	if out.IsZero() {
		return nil
	}
	return out
}
