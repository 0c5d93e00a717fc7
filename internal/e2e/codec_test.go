package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/rig/badlink"
)

// samples are those of a metrics page, by name with its labels. What is not
// there reads as 0, and so does everything while nobody answers.
type samples map[string]float64

func scrape(addr string) samples {
	all := samples{}
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return all
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(b)) {
		at := strings.LastIndexByte(line, ' ')
		var v float64
		if at < 0 || line[0] == '#' {
			continue
		}
		if _, err := fmt.Sscan(line[at+1:], &v); err == nil {
			all[line[:at]] = v
		}
	}
	return all
}

// edgeCodec is what an edge counts of the link since it started.
type edgeCodec struct {
	Fresh, Resumed, Alone           float64 // sessions, batches without one
	Bad, Lowered, Distrusted        float64
	State                           float64 // bytes
	Connects, Up, InFlight, Settled float64 // Settled: batches, by their answer
	Sent, Body, Messages            float64 // bytes on the link, of records; messages settled by an answer
}

func (e *edge) codec() edgeCodec {
	s := scrape(e.http)
	link := func(name string) float64 { return s["packetboat_edge_link_"+name] }
	return edgeCodec{
		Fresh: link(`codec_sessions_total{how="fresh"}`), Resumed: link(`codec_sessions_total{how="resumed"}`), Alone: link("codec_self_contained_batches_total"),
		Bad: link("batches_bad_total"), Lowered: link("codec_lowered_grants_total"), Distrusted: link("codec_distrusted_total"),
		State:    link("codec_state_bytes"),
		Connects: link("connects_total"), Up: link("up"), InFlight: link("in_flight_batches"), Settled: link("batches_settled_total"),
		Sent: link("sent_bytes_total"), Body: link("body_bytes_total"), Messages: link("messages_settled_total"),
	}
}

// hubCodec is what a hub counts of all devices since it started.
type hubCodec struct {
	Fresh, Resumed, Alone, Bad      float64
	Connects                        float64
	Sessions, State, Kept, KeptSize float64
	Dropped                         map[string]float64 // by reason, without zeros
}

func (w *world) codec() hubCodec {
	s := scrape(w.hubHTTP)
	hub := func(name string) float64 { return s["packetboat_hub_"+name] }
	c := hubCodec{
		Fresh: hub("codec_fresh_sessions_total"), Resumed: hub("codec_resumed_sessions_total"), Alone: hub("codec_self_contained_batches_total"),
		Bad: hub("bad_batches_total"), Connects: hub("connects_total"),
		Sessions: hub("codec_sessions"), State: hub("codec_state_bytes"), Kept: hub("codec_kept_sessions"), KeptSize: hub("codec_kept_bytes"),
		Dropped: map[string]float64{},
	}
	for name, n := range s {
		if rest, ok := strings.CutPrefix(name, `packetboat_hub_codec_dropped_sessions_total{reason="`); ok && n > 0 {
			c.Dropped[strings.TrimSuffix(rest, `"}`)] = n
		}
	}
	return c
}

// devices asks the hub how the batches of the devices that are there are encoded.
func (w *world) devices() map[string]*httpapi.DeviceCodec {
	w.t.Helper()
	c, err := httpapi.NewClient(w.hubHTTP)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	all := map[string]*httpapi.DeviceCodec{}
	for d, err := range c.ListDevices(context.Background()) {
		if err != nil {
			w.t.Fatal(err)
		}
		if d.Connected {
			all[d.Device] = d.Codec
		}
	}
	return all
}

// said is what the process has logged, all its lives together.
func (p *process) said() string {
	p.t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// beside runs tests at the same time, as they wait most of theirs.
func beside(t *testing.T, tests map[string]func(*testing.T)) {
	var wg sync.WaitGroup
	for name, f := range tests {
		wg.Go(func() { t.Run(name, f) })
	}
	wg.Wait()
}

// chance is a source of random numbers whose seed the test prints.
func chance(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// settles waits until the hub has answered a batch on a connection made after
// so many: both sides have agreed on a codec session then.
func (e *edge) settles(connects float64) {
	e.w.t.Helper()
	settled := -1.0
	eventually(e.w.t, e.name+" settles a batch on a new connection", func() bool {
		c := e.codec()
		if c.Connects <= connects || c.Up == 0 {
			return false
		}
		if settled < 0 {
			settled = c.Settled
		}
		return c.Settled > settled
	})
}

// breakage is a way in which a link breaks.
type breakage struct {
	name string
	cut  func(t *testing.T, l *badlink.Link, e *edge)
}

func change(t *testing.T, l *badlink.Link, f func(*badlink.Conditions)) {
	t.Helper()
	if err := l.Change(f); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, l *badlink.Link, c badlink.Cut) {
	t.Helper()
	change(t, l, func(now *badlink.Conditions) { now.Cut = c })
}

// breakages are all of them. Each leaves the link up, and the connection ended.
var breakages = []breakage{
	{"reset", func(t *testing.T, l *badlink.Link, _ *edge) {
		cut(t, l, badlink.Reset)
		cut(t, l, badlink.Up)
	}},
	{"closed", func(t *testing.T, l *badlink.Link, e *edge) {
		cut(t, l, badlink.Refuse)
		eventually(t, "the edge sees that the hub is gone", func() bool { return e.codec().Up == 0 })
		cut(t, l, badlink.Up)
	}},
	// The batches never reach the hub, so the edge has to go back behind them.
	{"batches lost", func(t *testing.T, l *badlink.Link, e *edge) {
		change(t, l, func(c *badlink.Conditions) { c.RateUp = 1 })
		flies(t, e)
		cut(t, l, badlink.Reset)
		change(t, l, func(c *badlink.Conditions) { c.RateUp, c.Cut = 0, badlink.Up })
	}},
	// The hub decodes batches and the edge never hears of it.
	{"answers lost", func(t *testing.T, l *badlink.Link, e *edge) {
		change(t, l, func(c *badlink.Conditions) { c.RateDown = 1 })
		flies(t, e)
		cut(t, l, badlink.Reset)
		change(t, l, func(c *badlink.Conditions) { c.RateDown, c.Cut = 0, badlink.Up })
	}},
	{"black hole, then reset", func(t *testing.T, l *badlink.Link, e *edge) {
		cut(t, l, badlink.BlackHole)
		flies(t, e)
		cut(t, l, badlink.Reset)
		cut(t, l, badlink.Up)
	}},
	// The hub hangs up; what is still on its way then comes to nobody.
	{"black hole", func(t *testing.T, l *badlink.Link, e *edge) {
		cut(t, l, badlink.BlackHole)
		eventually(t, "the hub gives the connection up", func() bool { return e.w.codec().Sessions == 0 })
		cut(t, l, badlink.Up)
	}},
}

// flies waits until batches are in flight, two at least, or a slow machine has
// ended the connection by itself.
func flies(t *testing.T, e *edge) {
	t.Helper()
	connects := e.codec().Connects
	eventually(t, "two batches are in flight", func() bool {
		c := e.codec()
		return c.InFlight > 1 || c.Up == 0 || c.Connects != connects
	})
}

// pauseOf moves what follows within the cycle of batches; nothing is asserted
// on it.
func pauseOf(r *rand.Rand, most time.Duration) { <-time.After(time.Duration(r.Int64N(int64(most)))) }
