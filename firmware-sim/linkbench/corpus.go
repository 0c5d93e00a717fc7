package linkbench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/recording"
	"github.com/packetboat/packetboat/pkg/stream"
)

// set is telemetry to be measured.
type set struct {
	name   string
	source string // where it can be had; "": nobody else has it
	format recording.Format
	layout layout
	// messages can be ranged over several times.
	messages iter.Seq2[recording.Message, error]
}

// ErrNone says that there is nothing to measure.
var ErrNone = errors.New("no recordings")

// made gives the simulator's own devices.
func made() []set {
	var all []set
	for _, profile := range []string{"car", "ship"} {
		all = append(all, set{
			name: "made-up " + profile + ", JSON per signal", source: "packetboat-sim sensors --profile " + profile + " --seed 1",
			messages: simulated(profile),
		})
	}
	return all
}

// simulated yields what a made-up device says, without end.
func simulated(profile string) iter.Seq2[recording.Message, error] {
	return func(yield func(recording.Message, error) bool) {
		d, err := signals.New(signals.Options{Profile: profile, Name: profile + "-1-1", Seed: 1, Start: start})
		if err != nil {
			yield(recording.Message{}, err)
			return
		}
		for {
			s := d.Next()
			if !yield(recording.Message{T: s.T, Topic: s.Topic, Payload: append([]byte(nil), s.Payload...)}, nil) {
				return
			}
		}
	}
}

// recorded gives the recordings in dir, and the files that are none.
func recorded(dir string) (all []set, passed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for recordings: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			passed = append(passed, e.Name())
			continue
		}
		format, err := recording.RecogniseFile(path)
		if errors.Is(err, recording.ErrUnknown) {
			passed = append(passed, e.Name())
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		sets, err := file(path, format)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, sets...)
	}
	if len(all) == 0 {
		return nil, passed, fmt.Errorf("%w in %s", ErrNone, dir)
	}
	return all, passed, nil
}

// file gives the sets of one recording.
func file(path string, format recording.Format) (all []set, err error) {
	sum, err := digest(path)
	if err != nil {
		return nil, err
	}
	known, title := sources[sum], filepath.Base(path)
	if known.title != "" {
		title = known.title + " (" + title + ")"
	}
	if format != recording.CSV {
		return []set{{title + ", " + layoutOf[format], known.public, format, layout{}, recording.ReadFile(path, recording.Options{})}}, nil
	}
	layouts := known.layouts
	if layouts == nil {
		layouts = anyCSV
	}
	for _, l := range layouts {
		o := recording.Options{Layout: l.o, Start: start, Clocks: true}
		all = append(all, set{title + ", " + l.name, known.public, format, l, recording.ReadFile(path, o)})
	}
	return all, nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("opening a recording: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// remark is how long the name of a column may be: a longer one is a sentence,
// not a signal.
const remark = 60

// turnSearch is how many sentences are looked at for one that ends a turn.
const turnSearch = 1000

// records makes the records of a lane of the first most messages of s, with
// times cut to the lane's resolution.
func (s *set) records(ctx context.Context, most int, resolution time.Duration) (all []stream.Record, err error) {
	in := newArrivals(s.format, s.format == recording.NMEA0183 && s.inTurns())
	unit := resolution.Microseconds()
	topics := make(map[string]string) // one string a topic, as at an edge
	for m, err := range s.messages {
		if err != nil {
			return nil, err
		}
		if len(all) == most || len(all)%10_000 == 0 && ctx.Err() != nil {
			break
		}
		if s.format == recording.CSV && len(m.Topic) > len("vehicle/")+remark {
			continue
		}
		at := in.at(&m)
		if s.layout.sent { // a tenth of a millisecond before it arrives
			m.Payload = recording.AppendSignal(nil, (at-100)/1000, string(m.Payload))
		}
		topic, ok := topics[m.Topic]
		if !ok {
			topic = strings.Clone(m.Topic)
			topics[topic] = topic
		}
		all = append(all, stream.Record{Seq: uint64(len(all) + 1), Message: stream.Message{
			Topic: topic, Payload: m.Payload, QoS: 1, Quality: stream.TimeLocal, Time: at / unit * unit,
		}})
	}
	if len(all) == 0 && ctx.Err() == nil {
		return nil, fmt.Errorf("%s: %w: it holds no message", s.name, ErrNone)
	}
	return all, context.Cause(ctx)
}

// inTurns reports whether the recording has a sentence that ends each turn.
func (s *set) inTurns() bool {
	n := 0
	for m, err := range s.messages {
		if n++; err != nil || n > turnSearch {
			return false
		}
		if strings.HasSuffix(m.Topic, turnEnd) {
			return true
		}
	}
	return false
}
