package wire

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// find gives the value of the first property that is called key.
func find(props []stream.Property, key string) (string, bool) {
	for _, p := range props {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// FormatVersion gives the property of CONNECT that says Version.
func FormatVersion() stream.Property {
	return stream.Property{Key: PropVersion, Value: strconv.Itoa(Version)}
}

// ParseVersion reads the version that an edge speaks, 1 or more; it may be
// newer than Version.
func ParseVersion(props []stream.Property) (int, error) {
	text, ok := find(props, PropVersion)
	if !ok {
		return 0, fmt.Errorf("%w: no %s", ErrMalformed, PropVersion)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: %s %.20q", ErrMalformed, PropVersion, text)
	}
	return int(n), nil
}

// FormatRetryAfter gives the property that says when to try again, in ms,
// rounded up, at most MaxRetryAfter.
func FormatRetryAfter(d time.Duration) stream.Property {
	d = min(max(d, 0), MaxRetryAfter)
	ms := (d + time.Millisecond - 1) / time.Millisecond
	return stream.Property{Key: PropRetryAfter, Value: strconv.FormatInt(int64(ms), 10)}
}

// RetryAfter reads it; false when there is none or it is not a number. A longer
// time is cut to MaxRetryAfter.
func RetryAfter(props []stream.Property) (time.Duration, bool) {
	text, _ := find(props, PropRetryAfter)
	ms, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, false
	}
	return time.Duration(min(ms, uint64(MaxRetryAfter/time.Millisecond))) * time.Millisecond, true
}

// FormatLogID gives the property of CONNACK that names the log.
func FormatLogID(l stream.LogID) stream.Property {
	return stream.Property{Key: PropLog, Value: l.String()}
}

// ParseLogID reads it; it is an error when there is none.
func ParseLogID(props []stream.Property) (stream.LogID, error) {
	text, ok := find(props, PropLog)
	if !ok {
		return stream.LogID{}, fmt.Errorf("%w: no %s", ErrMalformed, PropLog)
	}
	l, err := stream.ParseLogID(text)
	if err != nil {
		return stream.LogID{}, fmt.Errorf("%w: %s: %w", ErrMalformed, PropLog, err)
	}
	if l.Name.IsZero() || l.Incarnation.IsZero() {
		return stream.LogID{}, fmt.Errorf("%w: %s of zeros", ErrMalformed, PropLog)
	}
	return l, nil
}

// An answer is never cut short, so it may take several properties: a batch has
// at most MaxRecords numbers and MaxLosses losses.
const (
	answerChunk  = 60_000 // bytes of one property, below MQTT's 65,535
	answerRanges = MaxRecords/2 + MaxLosses
)

// FormatAnswer gives the properties of a PUBACK with reason 0: which numbers of
// the batch's records the log counts as lost, and which of its losses are in
// the log. There are none in the usual answer.
func FormatAnswer(lost, in stream.RangeSet) []stream.Property {
	return appendAnswer(appendAnswer(nil, PropLost, &lost), PropIn, &in)
}

func appendAnswer(props []stream.Property, key string, s *stream.RangeSet) []stream.Property {
	var b strings.Builder
	for _, r := range s.Ranges() {
		text := r.String()
		if b.Len() > 0 && b.Len()+1+len(text) > answerChunk {
			props = append(props, stream.Property{Key: key, Value: b.String()})
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text)
	}
	if b.Len() > 0 {
		props = append(props, stream.Property{Key: key, Value: b.String()})
	}
	return props
}

// ParseAnswer reads what FormatAnswer gives; other properties are passed over.
func ParseAnswer(props []stream.Property) (lost, in stream.RangeSet, err error) {
	for _, p := range props {
		var to *stream.RangeSet
		switch p.Key {
		case PropLost:
			to = &lost
		case PropIn:
			to = &in
		default:
			continue
		}
		s, err := stream.ParseRangeSet(p.Value, answerRanges)
		if err != nil {
			return lost, in, fmt.Errorf("%w: %s: %w", ErrMalformed, p.Key, err)
		}
		if to.AddSet(&s); to.Len() > answerRanges {
			return lost, in, fmt.Errorf("%w: %s: more than %d ranges", ErrMalformed, p.Key, answerRanges)
		}
	}
	return lost, in, nil
}

// laneLetters name the lanes in text.
const laneLetters = " unb"

func laneOf(letter byte) stream.Lane {
	if letter == ' ' {
		return 0
	}
	return stream.Lane(max(strings.IndexByte(laneLetters, letter), 0))
}

// splitEpoch cuts "<epoch>:rest" or "<epoch>".
func splitEpoch(key, value string) (e stream.Epoch, rest string, err error) {
	name, rest, _ := strings.Cut(value, ":")
	if e, err = stream.ParseEpoch(name); err == nil && e.IsZero() {
		err = fmt.Errorf("an epoch of zeros")
	}
	if err != nil {
		return e, "", fmt.Errorf("%w: %s: %w", ErrMalformed, key, err)
	}
	return e, rest, nil
}

// fields yields the parts of "a=b;c;d=e" as name and value.
func fields(text string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for text != "" {
			var one string
			one, text, _ = strings.Cut(text, ";")
			name, value, _ := strings.Cut(one, "=")
			if !yield(name, value) {
				return
			}
		}
	}
}

// budget counts what properties take in a packet.
type budget int

// propertyCost is what a property takes in a packet beside key and value.
const propertyCost = 5

func (b *budget) fits(key, value string) bool {
	n := len(key) + len(value) + propertyCost
	if n > int(*b) {
		return false
	}
	*b -= budget(n)
	return true
}
