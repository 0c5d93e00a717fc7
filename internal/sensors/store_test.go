package sensors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// openBuffer is a real buffer that runs until stop.
func openBuffer(t *testing.T, dir string, clock *Clock) (b *buffer.Buffer, stop func()) {
	t.Helper()
	b, err := buffer.Open(buffer.Options{Dir: dir, MaxBytes: 32 << 20, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, b.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return b, stop
}

func loadAll(t *testing.T, s mqttfront.Store) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := s.Load(func(k string, v []byte) bool { got[k] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return got
}

// What Save and Publish made durable is there when the buffer opens again, what
// was removed is not, and what was refused neither.
func TestStoreOverTheBuffer(t *testing.T) {
	dir, clock := t.TempDir(), NewClock()
	b, stop := openBuffer(t, dir, clock)
	s, err := New(b, Options{AllowAnonymous: true, Clock: clock, Lanes: []LaneRule{{Drop: true, Filters: []string{"drop"}}}})
	if err != nil {
		t.Fatal(err)
	}
	save := func(changes ...mqttfront.Change) {
		t.Helper()
		done := make(chan error, 1)
		s.Store().Save(changes, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	key, value := []byte("s/1"), []byte("one")
	save(mqttfront.Change{Key: string(key), Value: value}, mqttfront.Change{Key: "gone", Value: []byte("x")})
	copy(value, "two") // it was copied
	c, _ := admit(t, s, &mqttfront.Peer{ClientID: "c"})
	publish := func(p mqttfront.Publish) mqttfront.Result {
		t.Helper()
		answer := make(chan mqttfront.Result, 1)
		c.Publish(&p, func(r mqttfront.Result) { answer <- r })
		return <-answer
	}
	for i, p := range []mqttfront.Publish{
		{Topic: "keep", QoS: 2, Save: []mqttfront.Change{{Key: "q/1/0001", Value: []byte{1}}, {Key: "gone"}}},
		{Topic: "drop", QoS: 2, Save: []mqttfront.Change{{Key: "q/1/0002", Value: []byte{1}}}},
	} {
		if r := publish(p); r.Code != 0 || r.Withhold {
			t.Errorf("message %d: %+v", i, r)
		}
	}
	r := publish(mqttfront.Publish{Topic: "keep", QoS: 2, Payload: make([]byte, buffer.MaxMessageBytes+1), Save: []mqttfront.Change{{Key: "q/1/0003", Value: []byte{1}}}})
	if r.Code != mqttfront.ImplementationSpecificError {
		t.Errorf("too large: %+v", r)
	}
	s.Store().Save([]mqttfront.Change{{Key: "lazy", Value: []byte("x")}}, nil)
	stop()
	s.Store().Save([]mqttfront.Change{{Key: "late", Value: []byte("x")}}, func(err error) {
		if !errors.Is(err, buffer.ErrClosed) {
			t.Errorf("saved after the end: %v", err)
		}
	})
	if n := s.Stats().Unsaved; n != 1 {
		t.Errorf("%d changes not saved", n)
	}

	b, _ = openBuffer(t, dir, clock)
	if s, err = New(b, Options{AllowAnonymous: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(loadAll(t, s.Store())), "map[lazy:x q/1/0001:\x01 q/1/0002:\x01 s/1:one]"; got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	if st := b.Stats(); st.Accepted != 1 || st.Queued != 1 {
		t.Errorf("%+v", st)
	}
}

// While the buffer's map is full, a QoS 2 message that needs an entry is refused
// as a whole; when there is room again it is taken once.
func TestFullMapRefusesTheWholeMessage(t *testing.T) {
	b, _ := openBuffer(t, t.TempDir(), NewClock())
	log := &bytes.Buffer{}
	s, err := New(b, Options{AllowAnonymous: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), 100<<10)
	n := 0
	for {
		done := make(chan error, 1)
		s.Store().Save([]mqttfront.Change{{Key: fmt.Sprint("r/", n), Value: big}}, func(err error) { done <- err })
		if err := <-done; err != nil {
			if !errors.Is(err, buffer.ErrStateFull) {
				t.Fatal(err)
			}
			break
		}
		if n++; n > 10_000 {
			t.Fatal("the map is never full")
		}
	}
	c, _ := admit(t, s, &mqttfront.Peer{ClientID: "c"})
	send := func() mqttfront.Result {
		answer := make(chan mqttfront.Result, 1)
		c.Publish(&mqttfront.Publish{Topic: "a", QoS: 2, Save: []mqttfront.Change{{Key: "q/1", Value: big}}}, func(r mqttfront.Result) { answer <- r })
		return <-answer
	}
	if r := send(); r.Code != mqttfront.QuotaExceeded || r.Withhold {
		t.Errorf("%+v", r)
	}
	if st := b.Stats(); st.Accepted != 0 || s.Stats().Refused["state_full"] != 1 {
		t.Errorf("%+v, %+v", st, s.Stats())
	}
	if _, there := loadAll(t, s.Store())["q/1"]; there {
		t.Error("the id of a refused message is stored")
	}
	done := make(chan error, 1)
	s.Store().Save([]mqttfront.Change{{Key: "r/0"}, {Key: "r/1"}}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if r := send(); r.Code != 0 {
		t.Errorf("with room again: %+v", r)
	}
	if b.Stats().Accepted != 1 {
		t.Errorf("%d accepted", b.Stats().Accepted)
	}
	if text := log.String(); strings.Count(text, "cannot be saved") != 1 || strings.Count(text, "are saved again") != 1 {
		t.Errorf("log %s", text)
	}
}

// The clock that parts share says what is known of the time.
func TestClockNow(t *testing.T) {
	c := NewClock()
	a, b := c.Now(), c.Now()
	if a.Quality != stream.TimeLocal || a.Boot.IsZero() || a.Boot != b.Boot || b.Mono < a.Mono || time.Since(time.UnixMicro(a.Time)) > time.Minute {
		t.Errorf("%+v, %+v", a, b)
	}
	c.now = func() time.Time { return time.Unix(100, 0) }
	if m := c.Now(); m.Quality != stream.TimeUnknown || m.Boot != a.Boot || m.Mono < b.Mono {
		t.Errorf("%+v", m)
	}
}

// A map at its limit refuses one change and takes the next, over and over: the
// log says so at most once a minute, each time with its end.
func TestMapAtItsLimitIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, log := &fakeBuffer{}, &bytes.Buffer{}
		s, err := New(b, Options{AllowAnonymous: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := admit(t, s, &mqttfront.Peer{ClientID: "c"})
		change := []mqttfront.Change{{Key: "q/1", Value: []byte{1}}}
		turns := func() {
			for range 100 {
				for _, b.refuse = range []error{buffer.ErrStateFull, nil} {
					c.Publish(&mqttfront.Publish{Topic: "a", QoS: 2, Save: change}, func(mqttfront.Result) {})
					s.Store().Save(change, nil)
					for _, done := range b.pending {
						done(stream.Position{}, nil)
					}
					b.pending = nil
				}
			}
		}
		want := func(minutes int) {
			t.Helper()
			for _, line := range []string{"takes no messages", "takes messages again", "cannot be saved", "are saved again"} {
				if n := strings.Count(log.String(), line); n != minutes {
					t.Errorf("%q stands %d times in the log, want %d", line, n, minutes)
				}
			}
		}
		turns()
		want(1)
		<-time.After(fullAgain + time.Second)
		turns()
		want(2)
		if st := s.Stats(); st.Refused["state_full"] != 200 || st.Unsaved != 200 {
			t.Errorf("%+v", st)
		}
	})
}
