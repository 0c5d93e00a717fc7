package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/firmware-sim/proc"
	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/rig/hostile"
	"github.com/packetboat/packetboat/internal/rig/receipts"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// programs are the real ones, built once.
var programs struct {
	sync.Once
	dir string
	err error
}

func binaries(t *testing.T) string {
	t.Helper()
	programs.Do(func() {
		programs.dir, programs.err = os.MkdirTemp("", "packetboat-soak")
		root := filepath.Join("..", "..")
		if programs.err == nil {
			programs.err = proc.Build(context.Background(), root, programs.dir, map[string]string{"packetboat-edge": "./cmd/edge", "packetboat-hub": "./cmd/hub"})
		}
		if programs.err == nil {
			programs.err = proc.LookAtSources(root)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

func options(t *testing.T, out *bytes.Buffer) Options {
	return Options{
		Bin: binaries(t), Dir: t.TempDir(), KillEvery: time.Second, Memory: 1 << 30, Pause: time.Minute, Rate: 200,
		Short: true, Only: []string{"second-connect"}, Seed: 1, Out: out,
	}
}

// A real edge under a few behaviours, killed on the way, keeps all promises.
func TestSoakHolds(t *testing.T) {
	var out bytes.Buffer
	o := options(t, &out)
	o.Only, o.Duration = []string{"second-connect", "mutated", "wrong-passwords"}, 3*time.Second
	if err := Run(t.Context(), o); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"no promise was broken", "missing 0, double 0", "hub verify: OK", "wrong-passwords"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
}

// What breaks the edge, or hides what was done to it, turns the soak red.
func TestSoakTurnsRed(t *testing.T) {
	nothing := attack{name: "unseen", run: func(context.Context, hostile.Target) hostile.Report {
		return hostile.Report{Behaviour: "unseen", Attempts: 1}
	}}
	murder := attack{name: "murder"} // what it does is said below
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"one byte of memory":            {func(o *Options) { o.Memory = 1 }, "beyond its memory"},
		"no pause at all":               {func(o *Options) { o.Pause = time.Nanosecond }, "was not served for more than"},
		"a counter that does not move":  {func(o *Options) { o.extra, o.Only = []attack{nothing}, []string{"unseen"} }, "no counter says what unseen did"},
		"an edge that ends by itself":   {func(o *Options) { o.extra, o.Only = []attack{murder}, []string{"murder"} }, "ended by itself"},
		"a record that is not in there": {func(o *Options) { o.Only = []string{"second-connect"} }, "receipts and log differ"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			o := options(t, &out)
			c.change(&o)
			s, err := prepare(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.world.end()
			switch {
			case strings.HasPrefix(name, "an edge"):
				s.behaviours[0].run = func(context.Context, hostile.Target) hostile.Report {
					p, _ := s.world.running()
					p.Kill() // behind the soak's back
					return hostile.Report{Behaviour: "murder", Attempts: 1}
				}
			case strings.HasPrefix(name, "a record"):
				forged := receipts.Receipt{Client: "honest-1", Topic: "honest-1/forged", N: 1, QoS: 1, Hash: receipts.HashOf([]byte("x")), Tries: 1, Acked: true, Sent: []uint32{1}}
				if err := s.honest.writer.Add(&forged); err != nil {
					t.Fatal(err)
				}
			}
			err = s.run(t.Context())
			if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q\n%s", err, c.want, &out)
			}
		})
	}
}

// A run that shows nothing, or whose copies only lost sessions excuse, is red.
func TestJudge(t *testing.T) {
	for want, change := range map[string]func(*soak, *prove.Report){
		"":                             func(*soak, *prove.Report) {},
		"or with QoS 2":                func(_ *soak, r *prove.Report) { r.QoS2.Acknowledged = 0 },
		"sensors with QoS 1":           func(_ *soak, r *prove.Report) { r.QoS2.Acknowledged = r.Acknowledged },
		"nothing was shown":            func(s *soak, _ *prove.Report) { s.seen.shown.count = 0 },
		"the edge forgot sessions":     func(_ *soak, r *prove.Report) { r.QoS2.InSeveralSessions = 1 },
		"1 messages cannot be decided": func(_ *soak, r *prove.Report) { r.Undecidable = 1 },
		"was never read":               func(s *soak, _ *prove.Report) { s.seen.readings = 0 },
	} {
		s := &soak{o: Options{Out: io.Discard}}
		s.seen.shown.count, s.seen.readings = 1, 1
		r := &prove.Report{Acknowledged: 2, QoS2: prove.QoS2{Acknowledged: 1}}
		change(s, r)
		s.judge(r)
		if said := strings.Join(s.broken, "; "); (want == "") != (said == "") || !strings.Contains(said, want) {
			t.Errorf("it says %q, want %q", said, want)
		}
	}
}

func TestMoved(t *testing.T) {
	parsed := func(text string) series {
		t.Helper()
		m, err := parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	const before = `# HELP packetboat_edge_mqtt_connects_total Sensors admitted.
packetboat_edge_mqtt_connects_total 5
packetboat_edge_mqtt_protocol_errors_total{kind="alias"} 1
packetboat_edge_mqtt_received_messages_total 7
packetboat_edge_sensor_messages_dropped_total 1
`
	a := parsed(before)
	for name, c := range map[string]struct {
		after string
		legal bool
		want  string
	}{
		"nothing":                          {before, true, ""},
		"traffic is no reason":             {strings.Replace(before, "messages_total 7", "messages_total 900", 1), true, ""},
		"nor is an operator's rule":        {strings.Replace(before, "dropped_total 1", "dropped_total 9", 1), true, ""},
		"a reason":                         {strings.Replace(before, `"alias"} 1`, `"alias"} 4`, 1), false, "protocol_errors{kind=alias} +3"},
		"a new reason":                     {before + `packetboat_edge_mqtt_refused_connects_total{code="0x87"} 2` + "\n", false, "refused_connects{code=0x87} +2"},
		"what is legal may only connect":   {strings.Replace(before, "connects_total 5", "connects_total 6", 1), true, "connects +1"},
		"what is not legal needs a reason": {strings.Replace(before, "connects_total 5", "connects_total 6", 1), false, ""},
	} {
		if got := moved(a, parsed(c.after), c.legal).String(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	seen := series{`mqtt_protocol_errors_total{kind="malformed"}`: 1}
	if seen.tells("topic-alias") || !seen.tells("utf8") || !seen.tells("reused-ids") || (series{}).tells("reused-ids") {
		t.Error("a side effect passes for the counter that a behaviour is made for, or the other way round")
	}
}

// Every name of a counter's table is one of a behaviour.
func TestMustNamesBehaviours(t *testing.T) {
	names := map[string]bool{}
	for _, b := range hostile.Behaviours(hostile.Target{}) {
		names[b.Name] = true
	}
	for name := range must {
		if !names[name] {
			t.Errorf("no behaviour is called %s", name)
		}
	}
}

func TestService(t *testing.T) {
	var v service
	start := time.Unix(0, 0)
	for _, x := range []struct {
		at    time.Duration
		count int64
	}{{0, 0}, {1, 10}, {4, 10}, {5, 11}, {6, 12}} {
		v.look(start.Add(x.at*time.Second), x.count)
	}
	if v.longest != 4*time.Second || v.count != 12 {
		t.Errorf("%+v", v)
	}
}

func TestResident(t *testing.T) {
	n, err := resident(os.Getpid())
	if err != nil || n < 1<<20 || n > 1<<40 {
		t.Errorf("%d %v", n, err)
	}
	if _, err := resident(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"duration": func(o *Options) { o.Duration = -1 }, "kills": func(o *Options) { o.KillEvery = 0 }, "memory": func(o *Options) { o.Memory = 0 },
		"pause": func(o *Options) { o.Pause = 0 }, "rate": func(o *Options) { o.Rate = 0 },
	} {
		o := Options{KillEvery: time.Second, Memory: 1, Pause: 1, Rate: 1}
		change(&o)
		if err := o.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
