package acl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write_(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// listOf makes a list that follows no file.
func listOf(t testing.TB, text string) *List {
	t.Helper()
	p, bad := parse(text)
	if len(bad) > 0 {
		t.Fatalf("%s\n%v", text, bad)
	}
	l := &List{}
	l.now.Store(p)
	return l
}

func (l *List) as(user, client string) View {
	return View{list: l, user: user, client: client, userOK: plain(user), clientOK: plain(client)}
}

const sample = `
# Everybody who gives no name sees the weather.
topic read weather/#
topic deny weather/secret

user gps
topic write sensors/gps/#
topic read cmd/gps/+
topic deny cmd/gps/reboot
	topic readwrite  two words/x

user radar
topic sensors/radar
pattern write status/%u/%c
pattern read mail/%c/#
pattern deny mail/%c/sealed
pattern write log/dev-%c/up
pattern read public
`

func TestSample(t *testing.T) {
	l := listOf(t, sample)
	for _, x := range []struct {
		user, client, what, topic string
		want                      bool
		line                      int
	}{
		{"", "c", "see", "weather", true, 3}, {"", "c", "see", "weather/now", true, 3}, {"", "c", "see", "weather/secret", false, 4},
		{"", "c", "publish", "weather/now", false, 0}, {"", "c", "publish", "sensors/gps/pos", false, 0},
		{"", "c", "subscribe", "weather/#", true, 3}, {"", "c", "subscribe", "weather/secret", false, 4}, {"", "c", "subscribe", "#", true, 3},
		{"gps", "c", "publish", "sensors/gps/pos", true, 7}, {"gps", "c", "publish", "sensors/gps", true, 7}, {"gps", "c", "publish", "sensors/radar", false, 0},
		{"gps", "c", "see", "weather/now", false, 0}, {"gps", "c", "see", "cmd/gps/go", true, 8}, {"gps", "c", "see", "cmd/gps/reboot", false, 9},
		{"gps", "c", "publish", "cmd/gps/reboot", false, 9}, {"gps", "c", "see", "sensors/gps/pos", false, 0},
		{"gps", "c", "publish", "two words/x", true, 10}, {"gps", "c", "see", "two words/x", true, 10},
		{"gps", "c", "subscribe", "cmd/#", true, 8}, {"gps", "c", "subscribe", "cmd/gps/reboot", false, 9}, {"gps", "c", "subscribe", "cmd/radar/#", false, 0},
		{"gps", "c", "subscribe", "+/+/+", true, 8}, {"gps", "c", "subscribe", "+/+/+/+", true, 15}, {"gps", "c", "subscribe", "two words/+", true, 10},
		{"radar", "c", "publish", "sensors/radar", true, 13}, {"radar", "c", "see", "sensors/radar", true, 13}, {"radar", "c", "see", "sensors/radar/x", false, 0},
		{"radar", "c7", "publish", "status/radar/c7", true, 14}, {"radar", "c7", "publish", "status/radar/c8", false, 0}, {"radar", "c7", "publish", "status/gps/c7", false, 0},
		{"", "c7", "publish", "status//c7", false, 0}, {"nobody", "c7", "publish", "status/nobody/c7", true, 14},
		{"nobody", "c7", "see", "mail/c7", true, 15}, {"nobody", "c7", "see", "mail/c7/x", true, 15}, {"nobody", "c7", "see", "mail/c7/sealed", false, 16},
		{"nobody", "c7", "see", "mail/c8", false, 0}, {"nobody", "c7", "publish", "log/dev-c7/up", true, 17}, {"nobody", "c7", "publish", "log/dev-c77/up", false, 0},
		{"nobody", "c7", "see", "public", true, 18},
		// A name that means more than itself stands for nothing; a rule that
		// denies is not got rid of by one.
		{"gps", "+", "publish", "status/gps/c7", false, 0}, {"gps", "+", "publish", "status/gps/+", false, 0}, {"+", "c7", "publish", "status/gps/c7", false, 0},
		{"gps", "#", "see", "mail/x", false, 16}, {"gps", "+", "subscribe", "mail/+/#", false, 0}, {"gps", "c7/x", "see", "mail/c7/x", false, 16},
		{"gps", "c7/up", "publish", "log/dev-c7/up", false, 0},
	} {
		v := l.as(x.user, x.client)
		got, d := false, Verdict{}
		switch x.what {
		case "see":
			got, d = v.Deliver(x.topic), v.ExplainDeliver(x.topic)
		case "publish":
			got, d = v.Publish(x.topic), v.ExplainPublish(x.topic)
		case "subscribe":
			got, d = v.Subscribe(x.topic), v.ExplainSubscribe(x.topic)
		}
		if got != x.want || d.Allowed != x.want {
			t.Errorf("%s as %s: %s %s: %v, explained %+v", x.user, x.client, x.what, x.topic, got, d)
		}
		if d.Line != x.line {
			t.Errorf("%s as %s: %s %s: by line %d (%s), want %d", x.user, x.client, x.what, x.topic, d.Line, d.Rule, x.line)
		}
	}
}

func TestDollar(t *testing.T) {
	l := listOf(t, "topic read #\ntopic read +/x\npattern read %c/y\ntopic write $SYS/#\n")
	for _, client := range []string{"c", "$SYS"} {
		v := l.as("", client)
		if v.Deliver("$SYS/x") || v.Deliver("$SYS/y") || !v.Publish("$SYS/x") || v.Subscribe("$SYS/#") || !v.Subscribe("+/y") {
			t.Errorf("client %s", client)
		}
	}
}

// Without a file everything is allowed; the zero View allows nothing.
func TestNoList(t *testing.T) {
	var l *List
	v, none := l.For("u", "c"), View{}
	l.Refresh()
	if !v.Publish("a") || !v.Deliver("a") || !v.Subscribe("#") || !v.ExplainPublish("a").Allowed || v.Version() != 0 {
		t.Error("no list refuses")
	}
	if none.Publish("a") || none.Deliver("a") || none.Subscribe("#") || none.ExplainSubscribe("a").Allowed {
		t.Error("the zero View allows")
	}
}

func TestViolations(t *testing.T) {
	text := strings.Join([]string{
		"topik read a", "topic", "topic raed a/b", "topic read", "topic a b c", "user", "user a\tb", "topic read a/#/b", "topic a+", "pattern read %u+",
		"topic read a/%u", "topic \xff", "topic " + strings.Repeat("a/", 200), "pattern denny x", "topic RW a", "topic read ok", "# fine", "  ", "topic deny #",
	}, "\n")
	want := []string{
		`line 1: "topik" is not a keyword (begin a line with`, "line 2: topic without a topic filter (write topic read", `line 3: "raed" is not an access (did you mean read?)`,
		"line 4: topic read without a topic filter (a topic that is called read: topic readwrite read)", `line 5: "a" is not an access (write read, write`, "line 6: user without a name",
		"line 7: ", `line 8: "a/#/b" is not a topic filter: # stands alone`, `line 9: "a+" is not`, `line 10: "%u+" is not`, `line 11: "a/%u" is not a topic filter: topic takes %u and %c as they stand (write pattern)`,
		"line 12: is not UTF-8", "line 13: ", `line 14: "denny" is not an access`, `line 15: "RW" is not an access (did you mean readwrite?)`,
	}
	got := Check(text)
	if len(got) != len(want) {
		t.Fatalf("%d violations, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i].Error(), w) {
			t.Errorf("violation %d: %v\nwant %s", i, got[i], w)
		}
	}
	if got := Check(strings.Repeat("rubbish\n", 1000)); len(got) != maxViolations {
		t.Errorf("%d violations of rubbish", len(got))
	}
	if got := Check("\ufeff# with a mark\r\ntopic read a\r\n"); got != nil {
		t.Error(got)
	}
	path := write_(t, filepath.Join(t.TempDir(), "acl"), "topic a\ntopic b c\nrubbish\n")
	_, err := Open(path)
	bad, ok := errors.AsType[*FileError](err)
	if !ok || len(bad.All) != 2 || bad.ExitCode() != 2 || !strings.HasPrefix(bad.Lines()[1], path+":3: \"rubbish\"") || !strings.HasSuffix(err.Error(), ", and 1 more") {
		t.Errorf("%v", err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := Open(path); err == nil {
			t.Errorf("%s opens", path)
		}
	}
}

// A View follows the file; what cannot be read leaves the last good rules.
func TestReload(t *testing.T) {
	path := write_(t, filepath.Join(t.TempDir(), "acl"), "topic write a\n")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	v := l.For("", "c")
	first := v.Version()
	if !v.Publish("a") || v.Publish("b") || l.Err() != nil || l.Rules() != 1 {
		t.Fatal("as opened")
	}
	l.Refresh()
	if v.Version() != first {
		t.Error("nothing changed, and the version did")
	}
	write_(t, path, "user x\ntopic write b\n")
	l.Refresh()
	if v.Publish("a") || v.Version() == first || fmt.Sprint(l.Users()) != "[{x 1}]" {
		t.Error("the change is not seen")
	}
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(path, []byte("rubbish\n"), 0o600) },
		func() error { return os.Remove(path) },
		func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		x := l.For("x", "c")
		if !x.Publish("b") || x.Publish("a") || l.Err() == nil {
			t.Errorf("after a bad change: %v", l.Err())
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write_(t, path, "topic write a\n")
	if v = l.For("", "c"); !v.Publish("a") || l.Err() != nil {
		t.Errorf("good again, and not in force: %v", l.Err())
	}
}

// Run carries a change to those who ask nothing, and tells each once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write_(t, filepath.Join(t.TempDir(), "acl"), "topic write a\n")
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		v := l.For("", "c")
		var out lockedBuffer
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx, time.Second, slog.New(slog.NewTextHandler(&out, nil)))
		}()
		time.Sleep(3500 * time.Millisecond) // of the bubble's own clock
		write_(t, path, "topic write b\n")
		time.Sleep(time.Second)
		if v.Publish("a") || !v.Publish("b") {
			t.Error("the change is not seen")
		}
		write_(t, path, "rubbish\n")
		time.Sleep(5 * time.Second)
		write_(t, path, "topic write a\n")
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		for text, n := range map[string]int{"acl changed": 2, "cannot be used": 1, "good again": 1} {
			if got := strings.Count(out.String(), text); got != n {
				t.Errorf("%q stands %d times in the log, want %d:\n%s", text, got, n, out.String())
			}
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Views are asked while the file changes.
func TestReloadUnderLoad(t *testing.T) {
	path := write_(t, filepath.Join(t.TempDir(), "acl"), "topic write a/#\n")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			v := l.For("", "c")
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Exactly one of the two is allowed at any time, but they are
				// asked one after the other.
				before := v.Version()
				a, b := v.Publish("a/x"), v.Publish("b/x")
				if v.Version() == before && a == b {
					t.Errorf("a %v, b %v", a, b)
					return
				}
				_ = v.Subscribe("#")
			}
		})
	}
	for i := range 50 {
		write_(t, path+".new", fmt.Sprintf("topic write %c/#\n", 'a'+rune(i%2)))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		l.Refresh()
	}
	close(stop)
	wg.Wait()
}

// What rules that deny leave over is found at any length.
func TestSubscribeBetweenDenials(t *testing.T) {
	for _, x := range []struct {
		rules, filter string
		want          bool
	}{
		{"topic read #\ntopic deny +\ntopic deny +/+\n", "#", true},
		{"topic read #\ntopic deny +\ntopic deny +/+/#\n", "#", false},
		{"topic read #\ntopic deny +\ntopic deny +/+\ntopic deny +/+/+/#\n", "#", false},
		{"topic read a/#\ntopic deny a/+/#\n", "a/#", true}, // a itself
		{"topic read a/#\ntopic deny a/+/#\n", "#", true},
		{"topic read a/#\ntopic deny a/+/#\n", "a/+/#", false},
		{"topic read a/#\ntopic deny a\n", "a/#", true},
		{"topic read a/#\ntopic deny a\n", "a", false},
		{"topic read a/#\ntopic deny a\ntopic deny a/+\n", "+/+", false},
		{"topic read a/#\ntopic deny a\ntopic deny a/+\n", "+/+/#", true},
		{"topic read +/b\ntopic deny a/b\n", "a/+", false},
		{"topic read +/b\ntopic deny a/b\n", "+/b", true},
		{"topic read +\n", "/#", false}, // no topic is empty
		{"topic read +\n", "+/#", true},
	} {
		v := listOf(t, x.rules).as("", "c")
		if got := v.Subscribe(x.filter); got != x.want || v.ExplainSubscribe(x.filter).Allowed != x.want {
			t.Errorf("%q by %q: %v, %+v", x.filter, x.rules, got, v.ExplainSubscribe(x.filter))
		}
	}
}
