package sensors

import (
	"fmt"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/stream"
)

// LaneRule says what becomes of the topics that match one of its filters.
type LaneRule struct {
	Lane stream.Lane
	// Drop acknowledges and counts the messages and keeps none. Lane is ignored.
	Drop    bool
	Filters []string
	// Resolution of the recorded times, a whole number of µs; 0: 1 ms.
	Resolution time.Duration
}

// rule is a LaneRule as Publish needs it.
type rule struct {
	lane       stream.Lane
	drop       bool
	resolution int64 // µs
}

// rules find the rule of a topic. They are immutable.
type rules struct {
	exact     map[string]place // filters without wildcards
	wild      []wildFilter     // in order
	otherwise rule
}

// place is a rule and how early it stands.
type place struct {
	rule  *rule
	index int
}

type wildFilter struct {
	place
	filter string
}

const defaultResolution = int64(time.Millisecond / time.Microsecond)

func compile(in []LaneRule) (*rules, error) {
	r := &rules{exact: make(map[string]place), otherwise: rule{lane: stream.Normal, resolution: defaultResolution}}
	for i, l := range in {
		if !l.Drop && !l.Lane.Valid() {
			return nil, fmt.Errorf("rule %d: %s is not a lane", i+1, l.Lane)
		}
		if len(l.Filters) == 0 {
			return nil, fmt.Errorf("rule %d has no topic filter", i+1)
		}
		if l.Resolution < 0 || l.Resolution%time.Microsecond != 0 {
			return nil, fmt.Errorf("rule %d: resolution %s is not a whole number of microseconds", i+1, l.Resolution)
		}
		one := &rule{lane: l.Lane, drop: l.Drop, resolution: int64(l.Resolution / time.Microsecond)}
		if one.resolution == 0 {
			one.resolution = defaultResolution
		}
		for _, f := range l.Filters {
			if !mqttfront.ValidFilter(f) {
				return nil, fmt.Errorf("rule %d: %q is not a topic filter", i+1, f)
			}
			p := place{one, i}
			if strings.ContainsAny(f, "+#") {
				r.wild = append(r.wild, wildFilter{p, f})
			} else if _, earlier := r.exact[f]; !earlier {
				r.exact[f] = p
			}
		}
	}
	return r, nil
}

// find gives the first rule that matches, or the default.
func (r *rules) find(topic string) *rule {
	exact, found := r.exact[topic]
	for i := range r.wild {
		w := &r.wild[i]
		if found && w.index >= exact.index {
			break
		}
		if matches(w.filter, topic) {
			return w.rule
		}
	}
	if found {
		return exact.rule
	}
	return &r.otherwise
}

// matches reports whether a valid filter matches a topic name. [MQTT-4.7]
func matches(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter[0] != '$' {
		return false // [MQTT-4.7.2-1]
	}
	for {
		if filter == "#" {
			return true
		}
		f, fRest, fMore := strings.Cut(filter, "/")
		t, tRest, tMore := strings.Cut(topic, "/")
		switch {
		case f != "+" && f != t:
			return false
		case !fMore || !tMore:
			return fMore == tMore || fRest == "#" // "a/#" matches "a"
		}
		filter, topic = fRest, tRest
	}
}
