package mqttfront

import "strings"

// retainChange is called before a message with p.Retain is handed to the Session
// (or, of QoS 2, before its release is saved) when the front has FanOut. It
// decides whether the message will be retained, and returns what the Store must
// get together with the message, or its release. Until retainHanded, which is
// called when that was handed over, other retained messages of the topic wait, so
// that Store and memory see them in one order. origin is the client id.
// Afterwards either fanOut.offer or fanOut.refuse is called with the same p.
func (l *local) retainChange(origin string, p *Publish) []Change {
	var lt *letter
	if len(p.Payload) > 0 { // else it clears [MQTT-3.3.1-6]
		lt = newLetter(origin, p, l.now())
	}
	change, hit := l.kept.begin(p, lt)
	if hit != limitNone {
		l.dropped("retained_full", hit)
	}
	if !change || l.store == nil {
		return nil
	}
	c := Change{Key: retainedKey(p.Topic)}
	if lt != nil {
		c.Value = appendRetained(lt, l.f.moment(), p.Expiry)
	}
	return []Change{c}
}

func (l *local) retainHanded(topic string) { l.kept.handed(topic) }

func retainedKey(topic string) string { return "r/" + topic }

// correct brings the Store to what is retained of topic.
func (l *local) correct(topic string) {
	l.kept.correct(topic, func(lt *letter) { l.saveRetained(topic, lt) })
}

// saveRetained is called while nothing can change the topic.
func (l *local) saveRetained(topic string, lt *letter) {
	if l.store == nil {
		return
	}
	c := Change{Key: retainedKey(topic)}
	if lt != nil {
		c.Value = appendRetained(lt, l.f.moment(), lt.remaining(l.now()))
	}
	l.store.Save([]Change{c}, nil)
}

// loadRetained takes an r/ key of the Store; false: it cannot be read. What has
// expired meanwhile is removed by the next look at it.
func (l *local) loadRetained(key string, value []byte) bool {
	lt, ok := decodeRetained(value, l.f.moment(), l.now())
	if !ok || !strings.HasPrefix(key, "r/") || key[2:] != lt.topic {
		return false
	}
	return l.kept.load(lt)
}

// awaited reports whether a subscription of a stored session matches topic: then
// a QoS 2 message has to outlive a restart between PUBREC and PUBREL.
func (l *local) awaited(topic string) bool {
	if l.store == nil || l.topics.count.Load() == 0 {
		return false
	}
	var f found
	l.topics.match(topic, &f)
	for _, g := range f.groups {
		f.subs = l.topics.membersOf(g, f.subs)
	}
	for _, sub := range f.subs {
		if l.stores(sub.s) {
			return true
		}
	}
	return false
}
