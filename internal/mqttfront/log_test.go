package mqttfront

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// One line per client and reason in a while, so many in all, and the rest
// counted.
func TestNotes(t *testing.T) {
	var n notes
	now := time.Now()
	for i := range 5 {
		if ok, _ := n.allow(now, "a", "x"); ok != (i == 0) {
			t.Errorf("line %d of the same: %v", i, ok)
		}
	}
	if ok, _ := n.allow(now, "a", "y"); !ok {
		t.Error("another reason is not told")
	}
	for i := range 2 * maxNotes {
		ok, _ := n.allow(now, strings.Repeat("b", i), "x")
		if ok != (i < maxNotes-2) {
			t.Fatalf("line %d: %v", i, ok)
		}
	}
	if ok, held := n.allow(now.Add(noteEvery), "a", "x"); !ok || held != 4 {
		t.Errorf("later: %v, %d kept back", ok, held)
	}
}

// Refusals are told in the log, to whom and why, without passwords.
func TestRefusalsAreLogged(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := newFake()
	h.connect = func(_ context.Context, p *Peer) (Welcome, error) {
		if p.Username == "bad" {
			return Welcome{}, &Refusal{Code: BadUsernameOrPassword, Reason: "bad user name or password"}
		}
		return Welcome{}, nil
	}
	h.publish = func(_ *fakeSession, p *Publish, settle Settle) { settle(Result{Code: QuotaExceeded}) }
	s := start(t, h, Options{Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))})
	c := dial(t, s.addr)
	c.connect(connectOptions{id: "thief", user: "bad", password: "hunter2"})
	c.expectEnd()
	c = dial(t, s.addr)
	c.send(packet(0x10, []byte("rubbish")))
	c.expectEnd()
	c = connect(t, s.addr, connectOptions{id: "sensor"})
	for i := range 3 {
		c.publish("v/1/temp", i+1, "hunter2")
		c.expectAck(i+1, QuotaExceeded)
	}
	eventually(t, "all is counted", func() bool { return s.Stats().LinesKept == 2 })
	mu.Lock()
	defer mu.Unlock()
	for _, want := range [][]string{
		{"client refused", "client=thief", "transport=tcp", "bad user name or password", "code=0x86"},
		{"client refused", "not a CONNECT of MQTT"},
		{"message refused", "client=sensor", "topic=v/1/temp", "code=0x97"},
	} {
		found := 0
		for line := range strings.SplitSeq(log.String(), "\n") {
			has := true
			for _, w := range want {
				has = has && strings.Contains(line, w)
			}
			if has {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d lines have %q:\n%s", found, want, log.String())
		}
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log tells:\n%s", log.String())
	}
}
