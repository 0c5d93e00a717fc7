package mqttfront

import (
	"encoding/binary"
	"fmt"
	"strings"
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

// filterList is the payload of a SUBSCRIBE or UNSUBSCRIBE.
type filterList struct {
	id         uint16
	identifier uint32
	r          propReader
}

// filtersOf reads the head of a SUBSCRIBE or UNSUBSCRIBE.
func filtersOf(first byte, body []byte, version byte) (l filterList, err *wireError) {
	if first&0x0f != 2 {
		return l, malformed("reserved flags are wrong") // [MQTT-3.8.1-1] [MQTT-3.10.1-1]
	}
	l.r.b = body
	id := l.r.take(2)
	if l.r.bad {
		return l, malformed("packet ends in its packet identifier")
	}
	if l.id = binary.BigEndian.Uint16(id); l.id == 0 {
		return l, &wireError{ProtocolError, "protocol", "packet identifier 0"} // [MQTT-2.2.1-3]
	}
	if version >= 5 {
		n, size, ok := varint(l.r.b)
		if !ok {
			return l, malformed("packet ends in its properties")
		}
		l.r.take(size)
		props := l.r.take(n)
		if l.r.bad {
			return l, malformed("packet ends in its properties")
		}
		if l.identifier, err = filterProperties(props, first>>4 == typeSubscribe); err != nil {
			return l, err
		}
	}
	if len(l.r.b) == 0 {
		return l, &wireError{ProtocolError, "protocol", "no topic filter"} // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
	}
	return l, nil
}

// filterProperties reads the properties: a subscription identifier, which only
// SUBSCRIBE may have, and user properties, which nobody asks for.
func filterProperties(b []byte, subscribe bool) (identifier uint32, err *wireError) {
	r := propReader{b: b}
	for len(r.b) > 0 && !r.bad {
		switch id := r.take(1)[0]; {
		case id == propUser:
			r.text()
			r.text()
		case id == propSubID && subscribe:
			v, size, ok := varint(r.b)
			if !ok {
				return 0, malformed("subscription identifier is cut short")
			}
			r.take(size)
			if v == 0 || identifier != 0 {
				return 0, &wireError{ProtocolError, "protocol", "subscription identifier is 0 or stands twice"}
			}
			identifier = uint32(v)
		default:
			return 0, malformed("property does not belong here")
		}
	}
	if r.bad {
		return 0, malformed("a property is cut short or not UTF-8")
	}
	return identifier, nil
}

// filter reads the next filter.
func (l *filterList) filter() (string, *wireError) {
	b := l.r.bytes()
	if l.r.bad {
		return "", malformed("a topic filter is cut short")
	}
	if !validString(b) {
		return "", malformed("a topic filter is not UTF-8 or holds U+0000") // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
	}
	return string(b), nil
}

// subscriptionOf reads the options of a filter.
func subscriptionOf(filter string, options, version byte) (*subscription, *wireError) {
	s := &subscription{
		filter: filter, qos: options & 3, noLocal: options&(1<<2) != 0, asPublished: options&(1<<3) != 0, handling: options >> 4 & 3,
	}
	switch {
	case version < 5 && options > 2 || options&0xc0 != 0:
		return s, malformed("reserved bits of the subscription options are set") // [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4]
	case s.qos == 3:
		return s, &wireError{ProtocolError, "protocol", "subscription with QoS 3"}
	case s.handling == 3:
		return s, &wireError{ProtocolError, "protocol", "retain handling 3"}
	case s.noLocal && isShared(filter):
		return s, &wireError{ProtocolError, "protocol", "no local on a shared subscription"} // [MQTT-3.8.3-4]
	}
	return s, nil
}

// handleSubscribe handles a SUBSCRIBE: body is what follows the fixed header. The
// answer goes through conn.answer, once for each packet. Connection's goroutine.
func (c *conn) handleSubscribe(first byte, body []byte) *wireError {
	list, err := filtersOf(first, body, c.version)
	if err != nil {
		return err
	}
	var subs []*subscription
	for len(list.r.b) > 0 {
		filter, err := list.filter()
		if err != nil {
			return err
		}
		options := list.r.take(1)
		if list.r.bad {
			return malformed("a topic filter has no options")
		}
		sub, err := subscriptionOf(filter, options[0], c.version)
		if err != nil {
			return err
		}
		sub.s, sub.identifier = c.s, list.identifier
		sub.qos = min(sub.qos, c.f.maxQoS())
		subs = append(subs, sub)
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
	return c.answer(ackOfFilters(typeSuback, c.version, list.id, codes), changes)
}

// handleUnsubscribe handles an UNSUBSCRIBE likewise.
func (c *conn) handleUnsubscribe(first byte, body []byte) *wireError {
	list, err := filtersOf(first, body, c.version)
	if err != nil {
		return err
	}
	var subs []*subscription
	for len(list.r.b) > 0 {
		filter, err := list.filter()
		if err != nil {
			return err
		}
		subs = append(subs, &subscription{filter: filter})
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
	if c.version < 5 {
		codes = nil
	}
	return c.answer(ackOfFilters(typeUnsuback, c.version, list.id, codes), changes)
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

// ackOfFilters makes a SUBACK or UNSUBACK.
func ackOfFilters(kind, version byte, id uint16, codes []byte) []byte {
	n := 2 + len(codes)
	if version >= 5 {
		n++
	}
	b := appendVarint(append(make([]byte, 0, n+5), kind<<4), n)
	b = append(b, byte(id>>8), byte(id))
	if version >= 5 {
		b = append(b, 0)
	}
	return append(b, codes...)
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
