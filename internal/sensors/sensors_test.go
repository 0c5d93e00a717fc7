package sensors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBuffer keeps what it gets until the test settles it.
type fakeBuffer struct {
	mu      sync.Mutex
	refuse  error
	lanes   []stream.Lane
	got     []stream.Message
	writes  []buffer.Write // without their messages
	pending []func(stream.Position, error)
}

func (b *fakeBuffer) Commit(w buffer.Write, done func(stream.Position, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return b.refuse
	}
	for _, m := range w.Msgs {
		m.Payload = append([]byte(nil), m.Payload...)
		b.lanes, b.got = append(b.lanes, w.Lane), append(b.got, m)
	}
	w.Msgs, w.State = nil, slices.Clone(w.State)
	b.writes = append(b.writes, w)
	b.pending = append(b.pending, done)
	return nil
}

func (b *fakeBuffer) State(yield func(string, []byte) bool) error {
	return b.refuse
}

type users map[string]string

func (u users) Authenticate(name string, password []byte) bool {
	want, ok := u[name]
	return ok && want == string(password)
}

func admit(t *testing.T, s *Sensors, p *mqttfront.Peer) (mqttfront.Session, byte) {
	t.Helper()
	session, _, err := s.Connect(context.Background(), p)
	if err == nil {
		return session, 0
	}
	r, ok := errors.AsType[*mqttfront.Refusal](err)
	if !ok {
		t.Fatalf("not a refusal: %v", err)
	}
	return nil, r.Code
}

func TestConnect(t *testing.T) {
	known := users{"bob": "right"}
	for _, tc := range []struct {
		users     Users
		anonymous bool
		name      string
		password  string
		want      byte
	}{
		{nil, true, "", "", 0}, {nil, true, "bob", "any", 0},
		{nil, false, "", "", mqttfront.NotAuthorized}, {nil, false, "bob", "right", mqttfront.BadUsernameOrPassword},
		{known, false, "bob", "right", 0}, {known, false, "bob", "wrong", mqttfront.BadUsernameOrPassword},
		{known, false, "eve", "right", mqttfront.BadUsernameOrPassword}, {known, false, "", "", mqttfront.NotAuthorized},
		{known, true, "", "", 0}, {known, true, "bob", "right", 0}, {known, true, "bob", "", mqttfront.BadUsernameOrPassword},
	} {
		s, err := New(&fakeBuffer{}, Options{Users: tc.users, AllowAnonymous: tc.anonymous})
		if err != nil {
			t.Fatal(err)
		}
		if _, got := admit(t, s, &mqttfront.Peer{Username: tc.name, Password: []byte(tc.password)}); got != tc.want {
			t.Errorf("%+v: code 0x%02x", tc, got)
		}
		if st := s.Stats(); (st.BadLogins == 1) != (tc.want != 0) {
			t.Errorf("%+v: %+v", tc, st)
		}
	}
}

func TestPublish(t *testing.T) {
	b := &fakeBuffer{}
	s, err := New(b, Options{AllowAnonymous: true, Lanes: []LaneRule{
		{Lane: stream.Urgent, Filters: []string{"alarm/#"}, Resolution: time.Microsecond},
		{Drop: true, Filters: []string{"debug/#", "+/noise"}},
		{Lane: stream.Bulk, Filters: []string{"video/+"}, Resolution: time.Second},
	}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 4, 3, 2, 1, 987_654_321, time.UTC)
	s.clock.now = func() time.Time { return now }
	session, _ := admit(t, s, &mqttfront.Peer{})
	settled := map[string]int{}
	publish := func(p mqttfront.Publish) {
		session.Publish(&p, func(r mqttfront.Result) {
			settled[p.Topic]++
			if r.Code != 0 || r.Withhold {
				t.Errorf("%s: %+v", p.Topic, r)
			}
		})
	}
	props := &stream.Properties{ContentType: "json"}
	publish(mqttfront.Publish{Topic: "alarm/oil", Payload: []byte("hot"), QoS: 1, Retain: true, Properties: props})
	publish(mqttfront.Publish{Topic: "debug/x", QoS: 1})
	publish(mqttfront.Publish{Topic: "engine/noise"})
	publish(mqttfront.Publish{Topic: "video/1"})
	publish(mqttfront.Publish{Topic: "speed"})
	if len(settled) != 2 || settled["debug/x"] != 1 || settled["engine/noise"] != 1 {
		t.Errorf("settled before the disk: %v", settled)
	}
	for _, done := range b.pending {
		done(stream.Position{}, nil)
	}
	if len(settled) != 5 {
		t.Errorf("settled %v", settled)
	}
	us := now.UnixMicro()
	for i, want := range []struct {
		lane  stream.Lane
		topic string
		time  int64
	}{{stream.Urgent, "alarm/oil", us}, {stream.Bulk, "video/1", us - us%1e6}, {stream.Normal, "speed", us - us%1e3}} {
		got := b.got[i]
		if b.lanes[i] != want.lane || got.Topic != want.topic || got.Time != want.time || got.Quality != stream.TimeLocal || !got.Boot.IsZero() || got.Mono != 0 {
			t.Errorf("message %d in %s: %+v, want %+v", i, b.lanes[i], got, want)
		}
	}
	if m := b.got[0]; string(m.Payload) != "hot" || m.QoS != 1 || !m.Retain || m.Properties != props {
		t.Errorf("%+v", m)
	}
	st := s.Stats()
	if st.Dropped != 2 || st.Accepted[stream.Urgent] != 1 || st.Accepted[stream.Normal] != 1 || st.Accepted[stream.Bulk] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want mqttfront.Result
		name string
	}{
		{buffer.ErrFull, mqttfront.Result{Code: mqttfront.QuotaExceeded}, "full"},
		{buffer.ErrStateFull, mqttfront.Result{Code: mqttfront.QuotaExceeded}, "state_full"},
		{buffer.ErrBusy, mqttfront.Result{Code: mqttfront.QuotaExceeded}, "busy"},
		{buffer.ErrTooLarge, mqttfront.Result{Code: mqttfront.ImplementationSpecificError}, "too_large"},
		{buffer.ErrDisk, mqttfront.Result{Code: mqttfront.UnspecifiedError, Withhold: true}, "disk"},
		{buffer.ErrClosed, mqttfront.Result{Code: mqttfront.UnspecifiedError, Withhold: true}, "disk"},
		{errors.New("news"), mqttfront.Result{Code: mqttfront.UnspecifiedError, Withhold: true}, "disk"},
	} {
		for _, late := range []bool{false, true} {
			b := &fakeBuffer{}
			s, _ := New(b, Options{AllowAnonymous: true})
			session, _ := admit(t, s, &mqttfront.Peer{})
			wrapped := fmt.Errorf("append: %w", tc.err)
			if !late {
				b.refuse = wrapped
			}
			var got []mqttfront.Result
			session.Publish(&mqttfront.Publish{Topic: "t", QoS: 1}, func(r mqttfront.Result) { got = append(got, r) })
			if late {
				b.pending[0](stream.Position{}, wrapped)
			}
			if len(got) != 1 || got[0].Code != tc.want.Code || got[0].Withhold != tc.want.Withhold {
				t.Errorf("%v, late %v: %+v", tc.err, late, got)
			}
			if st := s.Stats(); st.Refused[tc.name] != 1 || st.Accepted[stream.Normal] != 0 {
				t.Errorf("%v, late %v: %+v", tc.err, late, st)
			}
		}
	}
}

func TestClockNotSet(t *testing.T) {
	c := NewClock()
	c.now = func() time.Time { return time.Unix(100, 1_999_000) }
	var a, b stream.Message
	c.stamp(&a, 1000)
	c.stamp(&b, 1000)
	if a.Quality != stream.TimeUnknown || a.Boot.IsZero() || a.Boot != b.Boot || a.Mono <= 0 || b.Mono < a.Mono || a.Time != 100_001_000 {
		t.Errorf("%+v %+v", a, b)
	}
	if again := NewClock(); runtime.GOOS == "linux" && again.boot != c.boot {
		t.Errorf("one boot has two names: %s and %s", c.boot, again.boot)
	}
	c.now = func() time.Time { return time.Unix(-1, -1) }
	c.stamp(&a, 1000)
	if a.Time != -1_001_000 {
		t.Errorf("before 1970: %d", a.Time)
	}
}

func TestBadRules(t *testing.T) {
	for _, r := range []LaneRule{
		{Filters: []string{"a"}}, {Lane: stream.Bulk}, {Lane: stream.Bulk, Filters: []string{"a/#/b"}}, {Lane: stream.Bulk, Filters: []string{""}},
		{Lane: stream.Bulk, Filters: []string{"a+"}}, {Lane: stream.Bulk, Filters: []string{"a"}, Resolution: 1}, {Lane: stream.Bulk, Filters: []string{"a"}, Resolution: -time.Second},
	} {
		if _, err := New(&fakeBuffer{}, Options{Lanes: []LaneRule{r}}); err == nil {
			t.Errorf("%+v passes", r)
		}
	}
}

// slowMatch is MQTT's matching, level by level.
func slowMatch(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && slowMatch(filter[1:], topic[1:])
}

// The first rule that matches wins, whatever the kinds of its filters, and a
// session's memory of topics changes nothing.
func TestRulesAgainstModel(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "", "$x"})
	topicGen := rapid.SliceOfN(level, 1, 4)
	filterGen := rapid.Custom(func(t *rapid.T) []string {
		f := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x", "+", "+"}), 0, 4).Draw(t, "levels")
		if len(f) == 0 || rapid.Bool().Draw(t, "hash") {
			f = append(f, "#")
		}
		return f
	})
	join := func(l []string) (s string) {
		for i, x := range l {
			if i > 0 {
				s += "/"
			}
			s += x
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		var in []LaneRule
		var filters [][]string
		for i := range rapid.IntRange(0, 6).Draw(t, "rules") {
			f := filterGen.Draw(t, "filter")
			if join(f) == "" {
				f = []string{"a"}
			}
			filters = append(filters, f)
			in = append(in, LaneRule{Lane: stream.Bulk, Filters: []string{join(f)}, Resolution: time.Duration(i+1) * time.Hour})
		}
		s, err := New(&fakeBuffer{}, Options{Lanes: in})
		if err != nil {
			t.Fatal(err)
		}
		c := &session{s: s, view: s.o.ACL.For("", "c")}
		for range 20 {
			topic := topicGen.Draw(t, "topic")
			if join(topic) == "" {
				continue
			}
			want := defaultResolution
			for i, f := range filters {
				dollar := join(topic)[0] == '$' && join(f)[0] != '$'
				if !dollar && slowMatch(f, topic) {
					want = int64(i+1) * int64(time.Hour/time.Microsecond)
					break
				}
			}
			if got := c.route(join(topic)); got.resolution != want {
				t.Fatalf("topic %q, filters %q: rule %+v, want resolution %d", join(topic), filters, got, want)
			}
		}
	})
}

// Publish costs one closure, and not more.
func TestPublishAllocates(t *testing.T) {
	s, _ := New(discard{}, Options{AllowAnonymous: true})
	session, _ := admit(t, s, &mqttfront.Peer{})
	p := &mqttfront.Publish{Topic: "v/1/temp", Payload: make([]byte, 60), QoS: 1}
	settle := func(mqttfront.Result) {}
	if n := testing.AllocsPerRun(1000, func() { session.Publish(p, settle) }); n > 1 {
		t.Errorf("%v allocations a message", n)
	}
}

type discard struct{}

func (discard) Commit(_ buffer.Write, done func(stream.Position, error)) error {
	done(stream.Position{}, nil)
	return nil
}

func (discard) State(func(string, []byte) bool) error { return nil }

// What a session remembers of topics is bounded in bytes.
func TestRoutesAreBounded(t *testing.T) {
	s, _ := New(discard{}, Options{AllowAnonymous: true})
	c := &session{s: s, view: s.o.ACL.For("", "c")}
	for i := range 3000 {
		c.route(fmt.Sprint(i, strings.Repeat("x", i)))
		n := 0
		for topic := range c.routes {
			n += len(topic)
		}
		if n != c.routeBytes || n > maxRouteBytes || len(c.routes) > maxRoutes {
			t.Fatalf("%d routes of %d bytes, counted %d", len(c.routes), n, c.routeBytes)
		}
	}
}
