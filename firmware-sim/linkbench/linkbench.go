package linkbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Options say what is measured, and how it is said.
type Options struct {
	Data string // folder of recordings; "": the simulator's own car and ship
	Only string // measures only what has this in its name
	// Rounds is how often times are taken; the shortest counts.
	Rounds int
	// Messages bounds what is measured of one recording; 0: MostMessages.
	Messages int
	// Resolution is that of the lane: 1 ms, or what a lane is configured to.
	Resolution time.Duration
	// Short measures little of the own car and ship, and fails above a bound.
	Short  bool
	Format string // text, markdown or json
	Out    io.Writer
	Notes  io.Writer // what is being done

	tamper func(packet []byte, b *stream.Batch) // see link
}

// MostMessages is how many messages of a recording are measured unless Options
// say so: some hundred bytes of memory each.
const MostMessages = 1_000_000

// How much a made-up device says.
const (
	madeMessages  = 200_000
	shortMessages = 20_000
)

// sizes are the messages of a batch.
var sizes = [...]int{20, 200, 2000}

// timed is the size for which times and memory are shown.
const timed = 200

// check is how much of a body is its check.
const check = 4

// Result is what one set of telemetry cost.
type Result struct {
	Name     string  `json:"name"`
	Source   string  `json:"source,omitempty"`
	Messages int     `json:"messages"`
	Topics   int     `json:"topics"`
	Plain    float64 `json:"plain_mqtt_bytes_per_message"`
	// Figures are by mode, then by size.
	Figures []Figure `json:"figures"`
}

// Figure is what one way to send cost. Bytes are means.
type Figure struct {
	Mode  string `json:"mode"`
	Batch int    `json:"messages_per_batch"`
	// Bytes is all that MQTT carries; Coder is the body less its check.
	Bytes float64 `json:"bytes_per_message"`
	Coder float64 `json:"coder_bytes_per_message"`
	// Envelope is what a batch costs beyond the coder's output.
	Envelope float64 `json:"envelope_bytes_per_batch"`
	// Carried is with TLS 1.3 and TCP/IPv4.
	Carried      float64 `json:"tls_tcp_bytes_per_message"`
	PlainCarried float64 `json:"plain_mqtt_tls_tcp_bytes_per_message"`
	Connections  int     `json:"connections"`
	Resumed      int     `json:"connections_resumed"`

	EncodeNS     float64 `json:"encode_ns_per_message"`
	DecodeNS     float64 `json:"decode_ns_per_message"`
	EncodeAllocs float64 `json:"encode_allocs_per_message"`
	DecodeAllocs float64 `json:"decode_allocs_per_message"`
	// State is what the sessions say of themselves at most. Memory is what the
	// heap had for a side at the end, all scratch space included, and for both at
	// the most.
	EncoderState  int `json:"encoder_state_bytes"`
	DecoderState  int `json:"decoder_state_bytes"`
	EncoderMemory int `json:"encoder_memory_bytes,omitempty"`
	DecoderMemory int `json:"decoder_memory_bytes,omitempty"`
	PeakMemory    int `json:"peak_memory_bytes,omitempty"`
}

// Report is everything that was measured.
type Report struct {
	Machine    string   `json:"machine"`
	Resolution string   `json:"time_resolution"`
	Passed     []string `json:"not_recordings,omitempty"`
	Results    []Result `json:"recordings"`
	// PeakMemory is the most memory the process had, the messages included; 0
	// where the system does not say.
	PeakMemory int64 `json:"peak_memory_bytes,omitempty"`
	// Connect and Connack are what a connection costs that goes on with a
	// session, in no figure.
	Connect int `json:"connect_bytes"`
	Connack int `json:"connack_bytes"`
	// TLSUp and TLSDown are what a TLS 1.3 handshake takes, to some ten bytes.
	TLSUp   int `json:"tls_handshake_up_bytes"`
	TLSDown int `json:"tls_handshake_down_bytes"`
}

// Run measures, and prints what it found. It fails when a batch differs after
// it was decoded; a short run also when a figure is above its bound.
func Run(ctx context.Context, o Options) error {
	if o.Rounds < 1 || o.Messages < 0 || o.Resolution < time.Microsecond || o.Resolution%time.Microsecond != 0 {
		return fmt.Errorf("%d rounds of %d messages at %s: want at least one round, and whole microseconds", o.Rounds, o.Messages, o.Resolution)
	}
	print, ok := formats[o.Format]
	if !ok {
		return fmt.Errorf("format %.20q: use text, markdown or json", o.Format)
	}
	report, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if err := print(o.Out, report); err != nil {
		return fmt.Errorf("printing the figures: %w", err)
	}
	if o.Short {
		return judge(report.Results, bounds)
	}
	return nil
}

func measure(ctx context.Context, o Options) (*Report, error) {
	sets, report := made(), &Report{Machine: machine(), Resolution: o.Resolution.String()}
	most := o.Messages
	var err error
	switch {
	case o.Short:
		most, o.Resolution = shortMessages, time.Millisecond
	case o.Data != "":
		if sets, report.Passed, err = recorded(o.Data); err != nil {
			return nil, err
		}
	case most == 0:
		most = madeMessages
	}
	if most == 0 {
		most = MostMessages
	}
	for i := range sets {
		s := &sets[i]
		if !strings.Contains(s.name, o.Only) {
			continue
		}
		fmt.Fprintf(o.Notes, "%s\n", s.name)
		recs, err := s.records(ctx, most, o.Resolution)
		if err != nil {
			return nil, err
		}
		r, err := measureSet(ctx, o, recs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		r.Name, r.Source = s.name, s.source
		report.Results = append(report.Results, r)
	}
	if len(report.Results) == 0 {
		return nil, fmt.Errorf("%w whose name holds %q", ErrNone, o.Only)
	}
	report.PeakMemory = peak()
	if report.Connect, report.Connack, err = handshake(); err != nil {
		return nil, err
	}
	report.TLSUp, report.TLSDown, err = handshakeTLS()
	return report, err
}

// measureSet sends the records in every way.
func measureSet(ctx context.Context, o Options, recs []stream.Record) (r Result, err error) {
	topics := make(map[string]bool)
	for i := range recs {
		topics[recs[i].Topic] = true
	}
	r.Messages, r.Topics = len(recs), len(topics)
	for _, m := range modes {
		for _, size := range sizes {
			var best tally
			rounds := 1
			if size == timed {
				rounds = o.Rounds
			}
			for round := range rounds {
				if ctx.Err() != nil {
					return r, context.Cause(ctx)
				}
				l := &link{mode: m, size: size, tamper: o.tamper}
				if err := l.run(recs); err != nil {
					return r, fmt.Errorf("%s, batches of %d: %w", m.name, size, err)
				}
				if err := best.better(&l.sum, round); err != nil {
					return r, fmt.Errorf("%s, batches of %d: %w", m.name, size, err)
				}
			}
			if m.key == "learning" && size == timed {
				if err := best.weigh(m, size, recs); err != nil {
					return r, err
				}
			}
			r.Plain = float64(best.plain) / float64(best.messages)
			r.Figures = append(r.Figures, best.figure(m.key, size))
		}
	}
	return r, nil
}

// errUnsteady says that bytes depend on something else than the messages.
var errUnsteady = errors.New("two rounds of the same messages took different bytes")

// better keeps the shorter times of t and o.
func (t *tally) better(o *tally, round int) error {
	if round == 0 {
		*t = *o
		return nil
	}
	t.encoding, t.decoding = min(t.encoding, o.encoding), min(t.decoding, o.decoding)
	t.encodeAllocs, t.decodeAllocs = min(t.encodeAllocs, o.encodeAllocs), min(t.decodeAllocs, o.decodeAllocs)
	if t.bytes != o.bytes || t.bodies != o.bodies {
		return fmt.Errorf("%w: %d and %d", errUnsteady, t.bytes, o.bytes)
	}
	return nil
}

func (t *tally) figure(mode string, size int) Figure {
	n := float64(t.messages)
	coder := t.bodies - check*t.batches
	return Figure{
		Mode: mode, Batch: size, Bytes: float64(t.bytes) / n, Coder: float64(coder) / n,
		Envelope: float64(t.bytes-coder) / float64(t.batches), Carried: float64(t.carried) / n, PlainCarried: float64(t.plainCarried) / n,
		Connections: t.connections, Resumed: t.resumed,
		EncodeNS: float64(t.encoding.Nanoseconds()) / n, DecodeNS: float64(t.decoding.Nanoseconds()) / n,
		EncodeAllocs: float64(t.encodeAllocs) / n, DecodeAllocs: float64(t.decodeAllocs) / n,
		EncoderState: t.encoderState, DecoderState: t.decoderState, EncoderMemory: t.encoderMemory, DecoderMemory: t.decoderMemory, PeakMemory: t.peakMemory,
	}
}

// figure finds one of r's figures, nil if there is none.
func (r *Result) figure(mode string, size int) *Figure {
	for i := range r.Figures {
		if f := &r.Figures[i]; f.Mode == mode && f.Batch == size {
			return f
		}
	}
	return nil
}
