package ingest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// lineage is a disk of the device and what is known of it from outside.
type lineage struct {
	*simEdge
	acked   map[string]bool // durable on this disk
	excused map[string]bool // went with a log that was cut, while settled here
	dialing chan dialed     // not nil: a connect is under way
}

type dialed struct {
	conn *simConn
	err  error
}

// model drives one device, with up to two disks, against one hub and its log,
// through every fault there is, and judges what the log holds in the end.
type model struct {
	*world
	rt      tb
	r       *rand.Rand
	edges   []*lineage
	image   *lineage
	second  *hub // a hub beside the first, over the same log
	backup  *logtest.Backup
	fifo    bool
	single  bool // there was only ever one disk
	cut     bool // the log went back or was replaced
	quiet   bool // the log went back and nobody noticed
	content map[stream.Epoch][]string
	order   []stream.Epoch // as they began
	n       int
	hog     hog // of the first hub
	met     stats
}

var (
	walks    = flag.Int("walks", 300, "random walks of TestAgainstModel, for each kind of lane")
	walkSeed = flag.Uint64("walkseed", 0, "seed of the first walk; 0: random")
)

// The promises of the protocol hold at every end: I1 nothing twice; I2 what was
// acknowledged is in the log, or declared lost, or went with a log that was cut;
// I3 order of fifo lanes; I4 one content for each number; I5 it comes to rest,
// without gaps; I6 nothing is given up as stale; I7 edge and hub never get out
// of step, and what the hub counts of codec sessions is what there is.
func TestAgainstModel(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for _, fifo := range []bool{false, true} {
		t.Run(fmt.Sprintf("fifo=%v", fifo), func(t *testing.T) {
			met := stats{}
			for i := range *walks {
				r := rand.New(rand.NewPCG(seed+uint64(i), 0))
				plan := make([]uint64, 20+r.IntN(200))
				for i := range plan {
					plan[i] = r.Uint64()
				}
				failed := walk(t, plan, fifo, met, nil)
				if failed == "" {
					continue
				}
				plan = shorten(t, plan, fifo)
				var trace []string
				again := walk(t, plan, fifo, nil, &trace)
				t.Fatalf("walk -walkseed=%d: %s\nshortened to %d steps: %s\n%s", seed+uint64(i), failed, len(plan), again, strings.Join(trace, "\n"))
			}
			met.mustHave(t, fifo)
		})
	}
}

// shorten leaves out steps as long as some promise is broken.
func shorten(t *testing.T, plan []uint64, fifo bool) []uint64 {
	for n := len(plan) / 2; n > 0; n /= 2 {
		for i := 0; i+n <= len(plan); {
			if less := slices.Delete(slices.Clone(plan), i, i+n); walk(t, less, fifo, nil, nil) != "" {
				plan = less
			} else {
				i += n
			}
		}
	}
	return plan
}

// broken is what a walk panics with.
type broken string

// judge fails a walk.
type judge struct{}

func (judge) Helper()                   {}
func (judge) Errorf(f string, a ...any) { panic(broken(fmt.Sprintf(f, a...))) }
func (judge) Fatalf(f string, a ...any) { panic(broken(fmt.Sprintf(f, a...))) }
func (judge) Fatal(a ...any)            { panic(broken(fmt.Sprint(a...))) }

// walk takes the steps of a plan and says what is wrong at the end. Every step
// has randomness of its own, so that it does much the same when others are left
// out.
func walk(t *testing.T, plan []uint64, fifo bool, met stats, trace *[]string) (failed string) {
	synctest.Test(t, func(*testing.T) {
		defer func() {
			if p := recover(); p != nil {
				b, ok := p.(broken)
				if !ok {
					panic(p)
				}
				failed = string(b)
			}
		}()
		runModel(plan, fifo, met, trace)
	})
	return failed
}

// stats sums up what the runs met: a model test that meets nothing proves nothing.
type stats map[string]int64

func (s stats) add(x stats) {
	for k, n := range x {
		s[k] += n
	}
}

func (s stats) mustHave(t *testing.T, fifo bool) {
	t.Logf("met: %v", s)
	names := []string{"batches", "records", "duplicates", "takeovers", "rejected", "fenced", "unknown", "other_log", "evicted", "refused shard", "refused memory",
		"codec resumed", "codec fresh", "codec self-contained", "codec no_room", "codec expired", "codec unwanted"}
	if fifo {
		names = append(names, "refused order")
	} else {
		names = append(names, "overlaps", "codec kept_bytes", "codec out_of_range")
	}
	for _, k := range names {
		if s[k] == 0 && !t.Failed() {
			t.Errorf("the runs never met: %s", k)
		}
	}
}

func (m *model) count(in *Ingest) {
	s := in.Stats()
	if s.WentBack > 0 && !m.quiet {
		m.rt.Fatalf("the log was taken for one that went back, and it did not")
	}
	if m.met == nil {
		return
	}
	c := s.Codec
	m.met.add(stats{
		"codec resumed": c.Resumed, "codec fresh": c.Fresh, "codec self-contained": c.SelfContained,
	})
	for why, n := range c.Dropped {
		m.met["codec "+why] += n
	}
	m.met.add(stats{
		"batches": s.Batches, "records": s.Records, "duplicates": s.Duplicates, "takeovers": s.Takeovers, "recovered": s.Recovered,
		"rejected": s.Rejected, "fenced": s.Fenced, "unknown": s.Unknown, "other_log": s.Losses["other_log"], "log_restored": s.Losses["log_restored"],
		"evicted": s.Losses["evicted"], "incarnations": s.Incarnations, "overlaps": s.Overlaps, "refused order": s.Refused["order"],
		"refused shard": s.Refused["shard"], "refused memory": s.Refused["memory"], "no space": s.NoSpace,
	})
}

func runModel(plan []uint64, fifo bool, met stats, trace *[]string) {
	m := &model{rt: judge{}, fifo: fifo, single: true, content: map[stream.Epoch][]string{}, met: met}
	o := Options{WindowMessages: 3, MinWindow: 3, PacketBytes: 4096, GroupRecords: 4}
	if len(plan)%2 == 0 {
		o.PendingBytes = 500 // memory for little more than a batch
	}
	o.CodecState, o.CodecTotal = codec.MinState, 2*codec.MinState
	o.CodecKeep = []time.Duration{0, time.Second, -1}[len(plan)/2%3]
	m.world = newWorld(m.rt, 1, o)
	defer func() {
		for _, e := range m.edges {
			m.forget(e)
			e.hangUp()
		}
		m.open()
		m.stopSecond()
		m.close()
	}()
	m.edges = []*lineage{{simEdge: newSimEdge("truck", fifo), acked: map[string]bool{}, excused: map[string]bool{}}}
	m.began(m.edges[0])
	m.shut()
	steps := map[string]func(){
		"append": m.append, "evict": m.evict, "connect": m.connect, "send": m.send, "send loss": m.sendLoss, "receive": m.receive,
		"commit": m.commit, "fault": m.fault, "flush": m.flush, "drop": m.drop, "crash": m.crashEdge,
		"copy": m.copyDisk, "start copy": m.startCopy, "hub crash": m.hubCrash, "backup": m.takeBackup, "log goes back": m.goBack,
		"hog": m.takeRoom, "replace log": m.replace, "tick": m.tick, "resend": m.resend, "second hub": m.secondHub,
	}
	// What makes progress comes more often than what breaks it.
	var deck []string
	for _, x := range []struct {
		n    int
		step string
	}{
		{8, "append"}, {8, "send"}, {8, "connect"}, {10, "commit"}, {8, "receive"}, {4, "tick"}, {4, "resend"}, {2, "send loss"},
		{2, "evict"}, {4, "fault"}, {2, "flush"}, {2, "drop"}, {2, "crash"}, {2, "second hub"}, {1, "copy"}, {1, "start copy"}, {1, "hub crash"},
		{3, "hog"}, {1, "backup"}, {1, "log goes back"}, {1, "replace log"},
	} {
		for range x.n {
			deck = append(deck, x.step)
		}
	}
	for _, n := range plan {
		m.r = rand.New(rand.NewPCG(n, 1))
		step := deck[m.r.IntN(len(deck))]
		if trace != nil {
			*trace = append(*trace, step)
		}
		steps[step]()
		m.exact()
	}
	m.rest()
	m.judge()
	m.check()
	m.count(m.hub.Ingest)
}

// rest stops the faults and lets everything run to its end.
func (m *model) rest() {
	m.open()
	for _, e := range m.edges {
		m.forget(e)
	}
	m.stopSecond()
	time.Sleep(10 * time.Second)
	for _, e := range m.edges {
		e.hangUp() // so that each gets a welcome
		m.drain(e.simEdge)
	}
}

func (m *model) judge() {
	in, last, began := map[string]bool{}, map[stream.Epoch]uint64{}, 0
	for s, err := range m.mem.Read(context.Background(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			m.rt.Fatal(err)
		}
		c := string(s.Payload)
		if in[c] {
			m.rt.Fatalf("I1: %s is twice in the log", c)
		}
		in[c] = true
		if all := m.content[s.Epoch]; s.Seq > uint64(len(all)) || all[s.Seq-1] != c {
			m.rt.Fatalf("I4: number %d of %s is %s", s.Seq, s.Epoch, c)
		}
		if s.Seq <= last[s.Epoch] && s.Flags&stream.Backfill == 0 || m.fifo && s.Flags&stream.Backfill != 0 {
			m.rt.Fatalf("I3: number %d of %s after %d, flags %d", s.Seq, s.Epoch, last[s.Epoch], s.Flags)
		}
		last[s.Epoch] = max(last[s.Epoch], s.Seq)
		if !m.fifo {
			continue
		}
		if i := slices.Index(m.order, s.Epoch); m.single && i < began {
			m.rt.Fatalf("I3: an epoch after a newer one")
		} else {
			began = i
		}
	}
	cov := m.coverage("truck")
	lost := map[string]bool{}
	for _, e := range cov.Epochs {
		l := &e.Lanes[stream.Normal]
		for n := range l.Lost.Max() + 1 {
			if l.Lost.Contains(n) {
				lost[m.content[e.ID][n-1]] = true
			}
		}
		if out := l.Out(); !out.IsEmpty() && m.single && !m.cut {
			m.rt.Fatalf("I5: %s of %s have no answer", out.String(), e.ID)
		}
	}
	for _, e := range m.edges {
		m.judgeEdge(e, in, lost)
	}
}

func (m *model) judgeEdge(e *lineage, in, lost map[string]bool) {
	if e.bads > 0 {
		m.rt.Fatalf("I7: %d batches were bad, and the hub had not given the session up", e.bads)
	}
	if len(e.mem.stale) > 0 {
		m.rt.Fatalf("I6: given up as stale: %v", e.mem.stale)
	}
	for c := range e.acked {
		if !in[c] && !lost[c] && !e.mem.ledger[c] && !e.excused[c] {
			m.rt.Fatalf("I2: %s was acknowledged and is nowhere", c)
		}
		if !m.cut && in[c] && e.mem.ledger[c] {
			m.rt.Fatalf("I2: the edge calls %s lost, and it is in the log", c)
		}
		if !m.cut && m.single && lost[c] && !e.mem.ledger[c] {
			m.rt.Fatalf("I2: the log calls %s lost, and the edge does not", c)
		}
	}
	for i := range e.mem.epochs {
		p := &e.mem.epochs[i]
		l := m.lane(e.simEdge, i)
		if out := l.Out(); !out.IsEmpty() && m.single {
			m.rt.Fatalf("I5: %s of %s have no answer", out.String(), p.id)
		}
	}
}
