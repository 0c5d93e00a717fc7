package mqttfront

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// maxFilterBytes bounds the text of one session's filters.
	maxFilterBytes = 192 << 10
	// maxFilterWeight bounds all filters together, see weightOf: 16 MiB.
	maxFilterWeight = 64 << 10

	noSubscriptionExisted = 0x11 // reason code of UNSUBACK
)

// subscriptions are those of one session, guarded by its mu.
type subscriptions struct {
	filters map[string]*subscription
	bytes   int      // of filters
	gather  struct { // fan-out goroutine only
		round uint64
		index int
	}
}

// filtersOf decodes a SUBSCRIBE or UNSUBSCRIBE. The filters lie in body.
func filtersOf(first byte, body []byte, version byte) (p packets.Packet, err *wireError) {
	if err := checkFilters(first, body, version); err != nil {
		return p, err
	}
	p.FixedHeader = packets.FixedHeader{Type: first >> 4, Qos: 1, Remaining: len(body)}
	p.ProtocolVersion = version
	decode := p.UnsubscribeDecode
	if first>>4 == typeSubscribe {
		decode = p.SubscribeDecode
	}
	if err := decode(body); err != nil {
		return p, malformed(err.Error())
	}
	return p, nil
}

// checkFilters says what is wrong with a SUBSCRIBE or UNSUBSCRIBE, as far as
// mochi's decoder would not mind, or would panic.
func checkFilters(first byte, body []byte, version byte) *wireError {
	if first&0x0f != 2 {
		return malformed("reserved flags are wrong") // [MQTT-3.8.1-1] [MQTT-3.10.1-1]
	}
	r := propReader{b: body}
	switch id := r.u16(); {
	case r.bad:
		return malformed("packet ends in its packet identifier")
	case id == 0:
		return broken("packet identifier 0") // [MQTT-2.2.1-3]
	}
	if version >= 5 {
		if _, err := r.checkProps(1 << (first >> 4)); err != nil {
			return err
		}
	}
	if len(r.b) == 0 {
		return broken("no topic filter") // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
	}
	for len(r.b) > 0 && !r.bad {
		filter := r.skipText()
		if first>>4 != typeSubscribe {
			continue
		}
		if options := r.take(1); !r.bad {
			if err := checkOptions(options[0], version, bytes.HasPrefix(filter, []byte(sharePrefix))); err != nil {
				return err
			}
		}
	}
	if r.bad {
		return malformed("a topic filter is cut short, not UTF-8, holds U+0000 or has no options") // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
	}
	return nil
}

// checkOptions says what is wrong with the options of a filter.
func checkOptions(options, version byte, shared bool) *wireError {
	switch {
	case version < 5 && options > 2 || options&0xc0 != 0:
		return malformed("reserved bits of the subscription options are set") // [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4]
	case options&3 == 3:
		return broken("subscription with QoS 3")
	case options>>4&3 == 3:
		return broken("retain handling 3")
	case options&(1<<2) != 0 && shared:
		return broken("no local on a shared subscription") // [MQTT-3.8.3-4]
	}
	return nil
}

// handleSubscribe handles a SUBSCRIBE: body is what follows the fixed header. The
// answer goes through conn.answer, once for each packet. Connection's goroutine.
func (c *conn) handleSubscribe(first byte, body []byte) *wireError {
	p, err := filtersOf(first, body, c.version)
	if err != nil {
		return err
	}
	subs := make([]*subscription, len(p.Filters))
	for i, f := range p.Filters {
		subs[i] = &subscription{
			s: c.s, filter: strings.Clone(f.Filter), qos: min(f.Qos, c.f.maxQoS()), identifier: uint32(f.Identifier),
			noLocal: f.NoLocal, asPublished: f.RetainAsPublished, handling: f.RetainHandling,
		}
	}
	codes := make([]byte, len(subs))
	for i, sub := range subs {
		codes[i] = c.checkFilter(sub.filter)
	}
	s := c.s
	s.mu.Lock()
	for i, sub := range subs {
		if codes[i] == Success {
			codes[i] = s.enter(sub)
		}
		if c.version < 5 {
			codes[i] = min(codes[i], UnspecifiedError) // [MQTT-3.9.3-2] of 3.1.1
		}
	}
	s.out.replay.asked++
	changes := s.saveFilters(subs)
	s.mu.Unlock()
	return c.answer(c.ackOfFilters(typeSuback, p.PacketID, codes), changes)
}

// handleUnsubscribe handles an UNSUBSCRIBE likewise.
func (c *conn) handleUnsubscribe(first byte, body []byte) *wireError {
	p, err := filtersOf(first, body, c.version)
	if err != nil {
		return err
	}
	subs := make([]*subscription, len(p.Filters))
	for i, f := range p.Filters {
		subs[i] = &subscription{filter: strings.Clone(f.Filter)}
	}
	codes := make([]byte, len(subs))
	s := c.s
	s.mu.Lock()
	for i, sub := range subs {
		_, plain := splitShare(sub.filter)
		switch {
		case s.cancel(sub.filter):
		case !validShare(sub.filter) || !ValidFilter(plain):
			codes[i] = TopicFilterInvalid
		default:
			codes[i] = noSubscriptionExisted
		}
	}
	s.out.replay.asked++
	changes := s.saveFilters(subs)
	s.mu.Unlock()
	return c.answer(c.ackOfFilters(typeUnsuback, p.PacketID, codes), changes)
}

// checkFilter says what is wrong with a filter as such, or Success.
func (c *conn) checkFilter(filter string) byte {
	_, plain := splitShare(filter)
	switch {
	case !validShare(filter) || !ValidFilter(plain):
		return TopicFilterInvalid
	case levelsOf(plain) > c.f.local.kept.levels:
		c.f.n.limit(limitTopicLevels)
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

// enter makes sub one of the session's, in place of one with the same filter; it
// returns what SUBACK says. The caller holds s.mu.
func (s *session) enter(sub *subscription) byte {
	l := s.f.local
	old := s.subs.filters[sub.filter]
	if old == nil && len(s.subs.filters) >= s.f.maxSubscriptions() {
		s.f.n.limit(limitSubscriptions)
		return QuotaExceeded
	}
	if old == nil && s.subs.bytes+len(sub.filter) > maxFilterBytes {
		s.f.n.limit(limitFilter)
		return QuotaExceeded
	}
	// [MQTT-3.3.1-9,10,11]
	retained := s.f.fan != nil && !isShared(sub.filter) && (sub.handling == 0 || sub.handling == 1 && old == nil)
	number := func() {
		if retained {
			sub.since = l.kept.applied.Load()
		}
	}
	if !l.topics.add(sub, old, maxFilterWeight, number) {
		s.f.n.limit(limitFilterLevels)
		return QuotaExceeded
	}
	s.subs.put(sub)
	s.out.replay.remove(sub.filter)
	if retained && sub.since > 0 {
		s.out.replay.add(sub)
	}
	return sub.qos
}

// put enters sub, in place of one with the same filter.
func (s *subscriptions) put(sub *subscription) {
	if s.filters == nil {
		s.filters = make(map[string]*subscription)
	}
	if s.filters[sub.filter] == nil {
		s.bytes += len(sub.filter)
	}
	s.filters[sub.filter] = sub
}

// cancel ends a subscription, if there is one. The caller holds s.mu.
func (s *session) cancel(filter string) bool {
	sub := s.subs.filters[filter]
	if sub == nil {
		return false
	}
	l := s.f.local
	delete(s.subs.filters, filter)
	s.subs.bytes -= len(filter)
	l.topics.remove(sub)
	s.out.replay.remove(filter)
	if sub.group != nil {
		l.giveBack(s, s.out.unsentOf(sub.group, nil))
	}
	return true
}

// saveFilters gives the changes that bring the Store's filters to what they are,
// as far as they are named in list. The caller holds s.mu.
func (s *session) saveFilters(list []*subscription) []Change {
	if !s.f.local.stores(s) {
		return nil
	}
	var out []Change
	seen := make(map[string]struct{}, len(list))
	for _, named := range list {
		if _, again := seen[named.filter]; again {
			continue
		}
		seen[named.filter] = struct{}{}
		change := Change{Key: filterKey(s.key, named.filter)}
		if sub := s.subs.filters[named.filter]; sub != nil {
			change.Value = appendSubscription(sub)
		} else if named.s != nil {
			continue // refused, and there was none before
		}
		out = append(out, change)
	}
	return out
}

func filterKey(session, filter string) string { return fmt.Sprint("f/", session, "/", filter) }

// loadSubscription takes an f/ key of the Store; false: it cannot be read.
func (s *session) loadSubscription(key string, value []byte) bool {
	prefix := filterKey(s.key, "")
	if !strings.HasPrefix(key, prefix) {
		return false
	}
	sub, ok := decodeSubscription(key[len(prefix):], value)
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.farAway()
	sub.s = s
	sub.qos = min(sub.qos, s.f.maxQoS())
	if s.subs.filters[sub.filter] != nil || !s.f.local.topics.add(sub, nil, maxFilterWeight, nil) {
		return false
	}
	s.subs.put(sub)
	return true
}

// ackOfFilters makes a SUBACK or UNSUBACK; nothing when it is too large for the
// client.
func (c *conn) ackOfFilters(kind byte, id uint16, codes []byte) []byte {
	p := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: c.version, PacketID: id, ReasonCodes: codes}
	encode := p.UnsubackEncode // without codes before MQTT 5
	if kind == typeSuback {
		encode = p.SubackEncode
	}
	return appendEncoded(nil, &p, encode, c.peerPacket)
}

func (f *Front) maxQoS() byte {
	if f.o.MaxQoS == 0 {
		return 2
	}
	return min(f.o.MaxQoS, 2)
}

func (f *Front) maxSubscriptions() int {
	if f.o.MaxSubscriptions <= 0 {
		return 256
	}
	return f.o.MaxSubscriptions
}
