package commitlog

import (
	"errors"
	"fmt"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Filter selects records. The zero value selects all that is there.
type Filter struct {
	// Device is a device id; "": all.
	Device string
	// Topic is an MQTT topic filter; "": all.
	Topic string
	// From and To bound Stored.At: From <= at < To, µs; 0: not bounded.
	From, To int64
	// Follow waits for more at the end.
	Follow bool
}

// Check returns an error that says what is wrong with the filter.
func (f *Filter) Check() error {
	if f.Device != "" {
		if err := stream.CheckDeviceID(f.Device); err != nil {
			return err
		}
	}
	if f.To != 0 && f.From > f.To {
		return errors.New("the time to end at lies before the one to begin at")
	}
	return CheckTopicFilter(f.Topic)
}

// Match reports whether s is selected.
func (f *Filter) Match(s *Stored) bool {
	if f.Device != "" && f.Device != s.Device {
		return false
	}
	if f.From != 0 || f.To != 0 {
		at := s.At()
		if !f.Overlaps(at, at) {
			return false
		}
	}
	return f.Topic == "" || MatchTopic(f.Topic, s.Topic)
}

// Overlaps reports whether any time from first to last, both included, is
// selected.
func (f *Filter) Overlaps(first, last int64) bool {
	return (f.From == 0 || last >= f.From) && (f.To == 0 || first < f.To)
}

// CheckTopicFilter returns an error unless s is "" or an MQTT topic filter.
func CheckTopicFilter(s string) error {
	for rest, more := s, s != ""; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && level != "+" && (level != "#" || more) {
			return fmt.Errorf("%.80q is not an MQTT topic filter: + stands for one whole level, # for all that is left", s)
		}
	}
	if strings.ContainsRune(s, 0) {
		return fmt.Errorf("%.80q is not an MQTT topic filter: it holds a zero byte", s)
	}
	return nil
}

// MatchTopic reports whether a topic matches an MQTT topic filter.
func MatchTopic(filter, topic string) bool {
	// [MQTT-4.7.2-1] a leading wildcard leaves out what begins with $
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		want, restFilter, moreFilter := strings.Cut(filter, "/")
		if want == "#" && !moreFilter {
			return true
		}
		have, restTopic, moreTopic := strings.Cut(topic, "/")
		if want != "+" && want != have {
			return false
		}
		if !moreTopic {
			// "a/#" matches "a" too
			return !moreFilter || restFilter == "#"
		}
		if !moreFilter {
			return false
		}
		filter, topic = restFilter, restTopic
	}
}
