package linkbench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(out io.Writer) Options {
	return Options{Rounds: 1, Messages: 5000, Resolution: time.Millisecond, Format: "json", Out: out, Notes: io.Discard}
}

func report(t *testing.T, o Options) (r Report) {
	t.Helper()
	var b bytes.Buffer
	o.Out = &b
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// The own car and ship are measured in every way, the parts make up the whole,
// and the bytes are the same each time.
func TestOwnDevices(t *testing.T) {
	o := options(nil)
	first, again := report(t, o), report(t, o)
	if len(first.Results) != 2 || first.Connect < 100 || first.Connack < 100 || first.TLSUp < 200 || first.TLSDown < 500 {
		t.Fatalf("%+v", first)
	}
	for i, r := range first.Results {
		if r.Messages != 5000 || r.Topics < 100 || r.Plain < 50 || len(r.Figures) != len(modes)*len(sizes) {
			t.Fatalf("%s: %d messages to %d topics, plain %v, %d figures", r.Name, r.Messages, r.Topics, r.Plain, len(r.Figures))
		}
		for k, f := range r.Figures {
			g := again.Results[i].Figures[k]
			if f.Bytes != g.Bytes || f.Coder != g.Coder {
				t.Errorf("%s, %s, %d: %v bytes, then %v", r.Name, f.Mode, f.Batch, f.Bytes, g.Bytes)
			}
			batches := 0.0
			for _, m := range modes {
				if m.key == f.Mode {
					batches = float64(batchesOf(r.Messages, f.Batch, m.reconnect))
				}
			}
			whole := f.Coder + f.Envelope*batches/float64(r.Messages)
			if f.Bytes <= f.Coder || f.Bytes >= r.Plain || f.Carried <= f.Bytes || f.PlainCarried <= r.Plain || whole-f.Bytes > 1e-9 || f.Bytes-whole > 1e-9 {
				t.Errorf("%s, %s, %d: plain %v, %+v, parts make %v", r.Name, f.Mode, f.Batch, r.Plain, f, whole)
			}
			if f.EncodeNS <= 0 || f.DecodeNS <= 0 {
				t.Errorf("%s, %s, %d: no time passed", r.Name, f.Mode, f.Batch)
			}
		}
		for _, size := range sizes {
			resume, anew, through := r.figure("resume", size), r.figure("reconnect", size), r.figure("learning", size)
			if resume.Connections != 3 || resume.Resumed != 2 || anew.Resumed != 0 || through.Connections != 1 {
				t.Errorf("%s, %d: %+v %+v %+v", r.Name, size, resume, anew, through)
			}
			if resume.Bytes >= anew.Bytes {
				t.Errorf("%s, batches of %d: %v bytes when a session is resumed, %v when it is not", r.Name, size, resume.Bytes, anew.Bytes)
			}
		}
		if f := r.figure("learning", timed); f.EncoderState <= 0 || f.DecoderState <= 0 || f.EncoderMemory <= 0 || f.DecoderMemory <= 0 || f.PeakMemory < max(f.EncoderMemory, f.DecoderMemory) {
			t.Errorf("%s: %+v", r.Name, f)
		}
	}
}

// batchesOf is how many batches there are when connections end.
func batchesOf(messages, size, reconnect int) (n int) {
	if reconnect == 0 {
		reconnect = messages
	}
	for ; messages > 0; messages -= reconnect {
		n += (min(messages, reconnect) + size - 1) / size
	}
	return n
}

// Whatever differs after decoding fails the run.
func TestDifferenceFailsTheRun(t *testing.T) {
	record := func(change func(*stream.Record)) func([]byte, *stream.Batch) {
		return func(_ []byte, b *stream.Batch) {
			if b != nil && len(b.Records) > 3 && b.First > 1000 {
				change(&b.Records[3])
			}
		}
	}
	batch := func(change func(*stream.Batch)) func([]byte, *stream.Batch) {
		return func(_ []byte, b *stream.Batch) {
			if b != nil && b.First > 1000 {
				change(b)
			}
		}
	}
	for name, tamper := range map[string]func([]byte, *stream.Batch){
		"payload":    record(func(r *stream.Record) { r.Payload[0] ^= 1 }),
		"longer":     record(func(r *stream.Record) { r.Payload = append(r.Payload, ' ') }),
		"topic":      record(func(r *stream.Record) { r.Topic += "x" }),
		"time":       record(func(r *stream.Record) { r.Time += 1000 }),
		"quality":    record(func(r *stream.Record) { r.Quality = stream.TimeFixed }),
		"boot":       record(func(r *stream.Record) { r.Boot[0] = 1 }),
		"mono":       record(func(r *stream.Record) { r.Mono++ }),
		"QoS":        record(func(r *stream.Record) { r.QoS = 0 }),
		"retain":     record(func(r *stream.Record) { r.Retain = true }),
		"expiry":     record(func(r *stream.Record) { r.Expiry = 1 }),
		"number":     record(func(r *stream.Record) { r.Seq++ }),
		"properties": record(func(r *stream.Record) { r.Properties = &stream.Properties{ContentType: "x"} }),
		"one less":   batch(func(b *stream.Batch) { b.Records = b.Records[:len(b.Records)-1] }),
		"one more":   batch(func(b *stream.Batch) { b.Records = append(b.Records, stream.Record{}) }),
		"device":     batch(func(b *stream.Batch) { b.ID.Device = "truck" }),
		"lane":       batch(func(b *stream.Batch) { b.ID.Lane = stream.Bulk }),
		"first":      batch(func(b *stream.Batch) { b.First++ }),
		"head":       batch(func(b *stream.Batch) { b.Head++ }),
		"floor":      batch(func(b *stream.Batch) { b.Floor-- }),
		"oldest":     batch(func(b *stream.Batch) { b.Oldest++ }),
		"flags":      batch(func(b *stream.Batch) { b.Flags = 0 }),
		"losses":     batch(func(b *stream.Batch) { b.Losses = []stream.Loss{{}} }),
	} {
		o := options(io.Discard)
		o.Messages, o.tamper = 2000, tamper
		if err := Run(t.Context(), o); !errors.Is(err, ErrDiffers) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	o := options(io.Discard)
	o.Messages, o.tamper = 2000, func(packet []byte, _ *stream.Batch) {
		if len(packet) > 0 {
			packet[len(packet)-1] ^= 1
		}
	}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "decoding the batch at 1") {
		t.Errorf("a bit that flipped on the way: %v", err)
	}
}

func TestBoundsAreKept(t *testing.T) {
	o := options(io.Discard)
	o.Short, o.Messages = true, 0
	if err := Run(t.Context(), o); err != nil {
		t.Error(err)
	}
	for _, b := range bounds {
		r := Result{Name: made()[b.set].name, Figures: []Figure{{Mode: b.mode, Batch: b.size, Bytes: b.most}}}
		if err := judge([]Result{r}, []bound{b}); err != nil {
			t.Errorf("at the bound: %v", err)
		}
		r.Figures[0].Bytes += 0.001
		if err := judge([]Result{r}, []bound{b}); !errors.Is(err, ErrAbove) {
			t.Errorf("above the bound %+v: %v", b, err)
		}
		if err := judge([]Result{{Name: r.Name}}, []bound{b}); err == nil {
			t.Errorf("%+v passes without a figure", b)
		}
	}
	if len(bounds) == 0 {
		t.Error("there are no bounds")
	}
}

func TestWhatIsPrinted(t *testing.T) {
	for format, wants := range map[string][]string{
		"text":     {"learning session", "made-up car, JSON per signal", "5,000", "Every batch was decoded and compared", "packetboat-sim sensors --profile ship"},
		"markdown": {"| bytes per message on the link | messages | plain MQTT | rows + zstd |", "|---|---|", "| made-up car, JSON per signal | 5,000 | "},
	} {
		var b strings.Builder
		o := options(&b)
		o.Format = format
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %q in\n%s", format, want, b.String())
			}
		}
		if !strings.HasSuffix(b.String(), ".\n") || strings.Contains(b.String(), "NaN") {
			t.Errorf("%s:\n%s", format, b.String())
		}
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no rounds":     func(o *Options) { o.Rounds = 0 },
		"messages":      func(o *Options) { o.Messages = -1 },
		"resolution":    func(o *Options) { o.Resolution = time.Nanosecond },
		"uneven":        func(o *Options) { o.Resolution = 1500 * time.Nanosecond },
		"format":        func(o *Options) { o.Format = "xml" },
		"nothing named": func(o *Options) { o.Only = "submarine" },
		"no folder":     func(o *Options) { o.Data = "nowhere" },
	} {
		o := options(io.Discard)
		change(&o)
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	o := options(io.Discard)
	o.Data = t.TempDir()
	if err := Run(t.Context(), o); !errors.Is(err, ErrNone) {
		t.Errorf("an empty folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, options(io.Discard)); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

// A batch closes on bytes too, and nothing is lost or doubled by that.
func TestGather(t *testing.T) {
	var recs []stream.Record
	for i := range 50 {
		recs = append(recs, stream.Record{Seq: uint64(i + 1), Message: stream.Message{Topic: "t", Payload: make([]byte, 1<<20)}})
	}
	l := &link{size: 20}
	next, rest := uint64(1), recs
	for len(rest) > 0 {
		n := l.gather(rest)
		total := 0
		for _, b := range l.batches {
			if b.First != next || len(b.Records) != 4 && b.Last() != 50 {
				t.Fatalf("a batch of %d at %d, %d is next", len(b.Records), b.First, next)
			}
			next, total = b.Last()+1, total+len(b.Records)
		}
		if n != total || n > 20 {
			t.Fatalf("%d taken, %d in batches", n, total)
		}
		rest = rest[n:]
	}
	if next != 51 {
		t.Errorf("next is %d", next)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0.1334: "0.133", 3.888: "3.89", 57.72: "57.7", 311.2: "311"} {
		if got := digits(v); got != want {
			t.Errorf("%v is %s", v, got)
		}
	}
	for v, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(v); got != want {
			t.Errorf("%d is %s", v, got)
		}
	}
	for n, want := range map[int]int{1: 1 + 22 + 52, 1448 - 22: 1448 + 52, 1448 - 21: 1449 + 104, 16<<10 + 1: 16<<10 + 1 + 44 + 12*52} {
		if got := carried(n); got != want {
			t.Errorf("%d bytes take %d, want %d", n, got, want)
		}
	}
}
