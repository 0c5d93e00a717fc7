package httpapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// anyBytes draws payloads that are text, nearly text and not text at all.
func anyBytes(t *rapid.T, label string) []byte {
	if rapid.Bool().Draw(t, label+" is text") {
		return []byte(rapid.String().Draw(t, label))
	}
	return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, label)
}

func anyStored(t *rapid.T) commitlog.Stored {
	s := commitlog.Stored{
		Device: rapid.StringMatching(`[A-Za-z0-9._-]{1,64}`).Draw(t, "device"), Epoch: stream.NewEpoch(),
		Lane:  rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane"),
		Flags: stream.Flags(rapid.IntRange(0, 3).Draw(t, "flags")), Received: rapid.Int64().Draw(t, "received"),
		Shard: rapid.IntRange(0, 4095).Draw(t, "shard"), Offset: rapid.Int64Min(0).Draw(t, "offset"),
	}
	s.Seq = rapid.Uint64Min(1).Draw(t, "seq")
	s.Topic = string(anyBytes(t, "topic"))
	s.Payload = anyBytes(t, "payload")
	s.Time = rapid.Int64().Draw(t, "time")
	s.Quality = stream.TimeQuality(rapid.IntRange(0, 2).Draw(t, "quality"))
	if s.Quality == stream.TimeUnknown {
		s.Boot, s.Mono = stream.NewEpoch(), rapid.Int64().Draw(t, "mono")
	}
	s.QoS, s.Retain = uint8(rapid.IntRange(0, 2).Draw(t, "qos")), rapid.Bool().Draw(t, "retain")
	if rapid.Bool().Draw(t, "has properties") {
		s.Properties = &stream.Properties{ContentType: "text/plain; \u2028", ResponseTopic: rapid.String().Draw(t, "response"),
			CorrelationData: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "correlation"),
			User:            []stream.Property{{Key: "k", Value: rapid.String().Draw(t, "value")}, {Key: "k", Value: ""}}, PayloadUTF8: true}
	}
	return s
}

// A line gives back every field of the record, whatever the bytes are, and is
// one line.
func TestLineLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyStored(t)
		text := appendLine(nil, NewLine(&want, "0:1"))
		if n := bytes.IndexByte(text, '\n'); n != len(text)-1 {
			t.Fatalf("not one line: %q", text)
		}
		if problemLine(text) != nil {
			t.Fatalf("taken for a problem: %s", text)
		}
		got, err := parseLine(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Payload) == 0 {
			got.Payload = want.Payload // nil and empty are the same payload
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("read back\n%+v\nwant\n%+v", *got, want)
		}
	})
}

func TestLineOfBadText(t *testing.T) {
	for _, bad := range []string{
		`{`, `{"epoch":"x"}`, `{"lane":"express"}`, `{"payload_base64":"%"}`, `{"topic_base64":"%"}`, `{"boot":"1"}`, `[]`,
	} {
		if s, err := parseLine([]byte(bad)); err == nil {
			t.Errorf("%s reads as %+v", bad, s)
		}
	}
}

// Coverage crosses the API without loss, and what it says of it is what the
// log says.
func TestCoverageLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cov := &commitlog.DeviceCoverage{}
		epochs := []stream.Epoch{stream.NewEpoch(), stream.NewEpoch()}
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			first := rapid.Uint64Range(1, 60).Draw(t, "first")
			e := commitlog.Entry{ID: stream.ID{Device: "d", Epoch: rapid.SampledFrom(epochs).Draw(t, "epoch"), Lane: rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")},
				Head: rapid.Uint64Range(0, 80).Draw(t, "head"), Received: rapid.Int64Range(1, 1e15).Draw(t, "received"),
				Current: rapid.SampledFrom(epochs).Draw(t, "current"), Flags: stream.Flags(2 * rapid.IntRange(0, 1).Draw(t, "fifo"))}
			if rapid.Bool().Draw(t, "is loss") {
				e.Losses = []stream.Loss{{Range: stream.Range{First: first, Last: first + 3}, Reason: rapid.SampledFrom(stream.Reasons[:]).Draw(t, "reason"), From: 5, To: 9}}
			} else {
				e.Records = []stream.Record{{Seq: first, Message: stream.Message{Time: rapid.Int64Range(1, 1e15).Draw(t, "time"), Quality: stream.TimeLocal}}}
				e.Floor, e.Oldest = first, rapid.Int64Range(0, 1e15).Draw(t, "oldest")
			}
			if _, err := cov.Apply(&e); err != nil {
				continue // settled already
			}
			cov.Expire(e.ID, stream.Range{First: 1, Last: first})
		}
		shown := newDeviceStreams(Device{Device: "d"}, cov, nil, -1)
		text, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		var read DeviceStreams
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		got, err := read.Coverage()
		if err != nil {
			t.Fatal(err)
		}
		a, b := normal(cov), normal(got)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("read back\n%s\nwant\n%s", b, a)
		}
		for i := range read.Streams {
			s := &read.Streams[i]
			if s.In.Count+s.Lost.Count+s.OutThere.Count != s.Head {
				t.Fatalf("%d in, %d lost and %d out there are not %d", s.In.Count, s.Lost.Count, s.OutThere.Count, s.Head)
			}
		}
	})
}

// normal gives coverage in a form in which empty and nil are the same.
func normal(c *commitlog.DeviceCoverage) string {
	text, err := json.Marshal(newDeviceStreams(Device{}, c, nil, -1))
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A set that was cut short never passes for the whole one.
func TestCutRangesAreNoCoverage(t *testing.T) {
	set := stream.NewRangeSet(stream.Range{First: 1, Last: 2}, stream.Range{First: 4, Last: 4})
	whole, cut := newRanges(&set, -1), newRanges(&set, 1)
	if got, err := whole.set(); err != nil || !got.Equal(&set) {
		t.Errorf("whole: %v %v", got.String(), err)
	}
	if got, err := cut.set(); err == nil || cut.Count != 3 || !cut.Cut {
		t.Errorf("cut: %v of %d, error %v", got.String(), cut.Count, err)
	}
}

func TestCompleteTo(t *testing.T) {
	whole := Stream{NewestUS: 100, CompleteToUS: 100}
	missing := Stream{OutThere: Ranges{Count: 1}, CompleteToUS: 40}
	unknown := Stream{OutThere: Ranges{Count: 1}}
	for i, c := range []struct {
		all  []Stream
		want int64
	}{
		{nil, 0}, {[]Stream{whole}, 100}, {[]Stream{whole, missing}, 40}, {[]Stream{missing, {OutThere: Ranges{Count: 2}, CompleteToUS: 30}, whole}, 30}, {[]Stream{missing, unknown}, 0},
	} {
		if got := completeTo(c.all); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
}
