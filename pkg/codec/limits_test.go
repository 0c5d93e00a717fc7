package codec

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// send1 sends records at once, and checks what came.
func (l *link) send1(recs ...stream.Record) []byte {
	l.Helper()
	for i := range recs {
		recs[i].Seq = uint64(i + 1)
	}
	body, err := l.e.Append(nil, recs, 0)
	l.must(err)
	l.way = append(l.way, sent{bytes.Clone(body), recs, 0, l.e.Position()})
	l.deliver(1)
	return body
}

// Whatever a session meets, it keeps to its limit, forgets in step, and a topic
// that was forgotten is one that is new.
func TestForgetting(t *testing.T) {
	for name, of := range map[string]func(i int) stream.Record{
		"topics":       func(i int) stream.Record { return message(fmt.Sprintf("fleet/%d", i), []byte("1")) },
		"long topics":  func(i int) stream.Record { return message(strings.Repeat("t/", i%32768)+fmt.Sprint(i), nil) },
		"templates":    func(i int) stream.Record { return message("t", []byte(strings.Repeat("a b", i%900)+fmt.Sprint(i))) },
		"numbers":      func(i int) stream.Record { return message("t", []byte(strings.Repeat("1,", i%600))) },
		"dictionaries": func(i int) stream.Record { return message(fmt.Sprint(i%300), fmt.Append(nil, i*7919%10007)) },
		"payloads": func(i int) stream.Record {
			return message(fmt.Sprint(i%90), bytes.Repeat([]byte{byte(i), 0}, i*37%3000))
		},
		"words": func(i int) stream.Record {
			return message(fmt.Sprint(i%90), []byte(strings.Repeat("a1b2", 1+i*37%1000)+" "+strings.Repeat("0aff", i%50)))
		},
		"properties": func(i int) stream.Record {
			m := message(fmt.Sprint(i%90), nil)
			m.Properties = &stream.Properties{ResponseTopic: strings.Repeat("r", i*53%5000)}
			return m
		},
		"texts": func(i int) stream.Record {
			return message(fmt.Sprint(i%9), bytes.Repeat([]byte("a text "), 2600/(1+i%6)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, byRand(1), MinState)
			kept := message("kept", []byte(`{"kept":17.5}`))
			l.send1(kept)
			first := len(l.send1(kept))
			rounds := 30
			if testing.Short() { // under an emulator
				rounds = 12
			}
			for i := range rounds {
				recs := make([]stream.Record, 8)
				for k := range recs {
					recs[k] = of(i*len(recs) + k)
				}
				recs = append(recs, of(i))
				if i == 9 {
					recs = append(recs, kept)
				}
				l.send1(recs...)
				if spare := l.d.s.used - MinState; spare > 300<<10 {
					t.Fatalf("%d bytes above the limit", spare)
				}
			}
			l.send1(kept)
			if again := len(l.send1(kept)); again > first+4 {
				t.Errorf("a topic that came back takes %d bytes, before it took %d", again, first)
			}
		})
	}
}

// A tiny state still holds what a small device has.
func TestSmallState(t *testing.T) {
	l := newLink(t, byRand(1), MinState)
	recs := make([]stream.Record, 100)
	size := 0
	for round := range 12 {
		for i := range recs {
			recs[i] = message(fmt.Sprint("sensor/", i), fmt.Appendf(nil, `{"value":%d}`, i))
			recs[i].Time = int64(round*1e6 + i*1000)
		}
		size = len(l.send1(recs...))
	}
	if len(l.d.s.topics) != len(recs) || size > 40 {
		t.Errorf("%d topics are known, 100 messages take %d bytes, the state %d", len(l.d.s.topics), size, l.d.s.used)
	}
}

// What is within a decoder's limits is decoded, whatever it is made of; one byte
// less is too much.
func TestLimitsAreExact(t *testing.T) {
	user := message("user", nil)
	user.Properties = &stream.Properties{User: make([]stream.Property, 900)}
	text := message("text", nil)
	text.Properties = &stream.Properties{ContentType: strings.Repeat("é", 20_000)}
	for name, r := range map[string]stream.Record{
		"hex":       message("t", bytes.Repeat([]byte("ab12"), 12_000)),
		"hex pairs": message("t", bytes.Repeat([]byte("ab:"), 12_000)),
		"words":     message("t", bytes.Repeat([]byte("a1g2 "), 500)),
		"numbers":   message("t", bytes.Repeat([]byte("1,"), 500)),
		"texts":     message("t", bytes.Repeat([]byte("a text "), 4000)),
		"template":  message("t", bytes.Repeat([]byte("a text "), 2000)),
		"bytes":     message("t", bytes.Repeat([]byte{0, 1}, 20_000)),
		"topic":     message(strings.Repeat("t", 65535), nil),
		"user":      user,
		"property":  text,
	} {
		for _, recs := range [][]stream.Record{{r}, {r, r, r}} {
			content := 0
			for i := range recs {
				content += contentSize(&recs[i])
			}
			e := NewEncoder(DefaultState)
			body, err := e.Append(nil, recs, 0)
			if err != nil {
				t.Fatal(name, err)
			}
			if _, err := NewDecoder(DefaultState).Decode(body, 1, 0, Limits{Bytes: content}); err != nil {
				t.Errorf("%d x %s, %d bytes: %v", len(recs), name, content, err)
			}
			if _, err := NewDecoder(DefaultState).Decode(body, 1, 0, Limits{Bytes: content - 1}); !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d x %s, a byte less: %v", len(recs), name, err)
			}
			if _, err := NewDecoder(DefaultState).Decode(body, 1, 0, Limits{Records: len(recs) - 1}); len(recs) > 1 && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d x %s, a record less: %v", len(recs), name, err)
			}
		}
	}
}

// A small body costs its decoder a bounded amount of memory, whatever it says.
func TestMemoryOfSmallBodies(t *testing.T) {
	user, text := message("t", nil), message("t", bytes.Repeat([]byte("text "), 20_000))
	user.Properties = &stream.Properties{User: make([]stream.Property, 63_000)}
	for name, m := range map[string]stream.Record{"user properties": user, "text": text} {
		l := newLiar(byRand(1), DefaultState)
		l.s.StartEncoding(nil)
		l.s.batch(40, 1000) // of which the decoder sees the first few
		for range 40 {
			r := m
			l.s.record(&r)
		}
		d := NewDecoder(DefaultState)
		body := d.checked(l.s.Finish(0)[:2000], Limits{}.withDefaults())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := d.Decode(body, 1, 0, Limits{})
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 8*(freeBytes+ratio*uint64(len(body))) {
			t.Errorf("%s: a body of %d bytes took %d bytes of memory (%v)", name, len(body), got, err)
		}
	}
}

// What an encoder makes, a decoder with the default limits takes: also the most
// foreseen batch.
func TestNothingIsTooLarge(t *testing.T) {
	for _, n := range []int{20_000, 40_000, MaxRecords} {
		recs := make([]stream.Record, n)
		for i := range recs {
			recs[i] = message("vehicle/engine/coolant/temperature/celsius", []byte(`{"value":12.5,"unit":"C"}`))
		}
		body, err := NewEncoder(DefaultState).Append(nil, recs, 0)
		if errors.Is(err, ErrInvalid) {
			continue
		}
		if _, err := NewDecoder(DefaultState).Decode(body, 1, 0, Limits{}); err != nil {
			t.Errorf("%d messages in a body of %d bytes: %v", n, len(body), err)
		}
		if block, err := AppendBlock(nil, recs[:1]); err != nil {
			t.Error(err)
		} else if _, err := DecodeBlock(block, Limits{}); err != nil {
			t.Error(err)
		}
	}
}

// What was large once does not stay.
func TestScratchIsGivenBack(t *testing.T) {
	l := newLink(t, byRand(1), MinState)
	user := message("t", nil)
	user.Properties = &stream.Properties{ResponseTopic: strings.Repeat("r", 300_000)}
	l.send1(message("t", bytes.Repeat([]byte("text "), 60_000)))
	l.send1(message("t", bytes.Repeat([]byte("0a1b"), 90_000)))
	l.send1(user)
	for range 3 {
		l.send1(message("t", []byte("1")))
	}
	for name, s := range map[string]*session{"encoder": &l.e.s, "decoder": &l.d.s} {
		if n := cap(s.out) + cap(s.words.out) + cap(s.hex) + cap(s.props) + cap(s.text); n > 256<<10 {
			t.Errorf("the %s keeps %d bytes of scratch", name, n)
		}
	}
}

// What costs time and gives no bytes is bounded, too: tokens that are empty.
func TestWorkIsBounded(t *testing.T) {
	l := newLiar(byRand(1), MinState)
	s := &l.s
	s.StartEncoding(nil)
	const n = 30_000
	s.batch(n, 1000)
	tp := s.topic("t")
	for i := range n {
		var r stream.Record
		if i > 0 {
			s.topic("t")
		}
		s.current = tp
		s.time(tp, 0)
		s.about(tp, &r)
		s.tokens = s.tokens[:0]
		if i == 0 {
			s.text = append(s.text[:0], bytes.Repeat([]byte{tokenWord}, maxTokens)...)
			s.newShape(tp, shapeTemplate)
		} else {
			s.Bit(&tp.same, 0)
		}
		s.fields(&tp.refs[0], &r)
		s.Note(tp.sum) // as record does
		for range 4 {
			s.Note(0)
		}
		s.settle()
	}
	d := NewDecoder(MinState)
	if _, err := d.Decode(d.checked(s.Finish(0), Limits{}.withDefaults()), 1, 0, Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%d empty tokens in a small body: %v", n*maxTokens, err)
	}
}
