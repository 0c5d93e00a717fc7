package sensors

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

func aclFile(t testing.TB, text string) (path string, list *acl.List) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := acl.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, list
}

// The ACL is asked for each message, also for those of a will, and a change
// reaches who is connected.
func TestACL(t *testing.T) {
	path, list := aclFile(t, "topic write open/#\nuser gps\ntopic write gps/#\ntopic read cmd/gps\npattern deny +/%c/secret\n")
	b, log := &fakeBuffer{}, &bytes.Buffer{}
	s, err := New(b, Options{Users: users{"gps": "right"}, AllowAnonymous: true, ACL: list, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Lanes: []LaneRule{{Drop: true, Filters: []string{"gps/debug", "else/debug"}}}})
	if err != nil {
		t.Fatal(err)
	}
	gps, _ := admit(t, s, &mqttfront.Peer{ClientID: "c1", Username: "gps", Password: []byte("right")})
	publish := func(c mqttfront.Session, p mqttfront.Publish) byte {
		t.Helper()
		answers := []mqttfront.Result{}
		stored := len(b.pending)
		c.Publish(&p, func(r mqttfront.Result) { answers = append(answers, r) })
		if len(answers) == 0 && len(b.pending) == stored+1 {
			b.pending[stored](stream.Position{}, nil)
		}
		if len(answers) != 1 || answers[0].Withhold {
			t.Fatalf("%s: answers %+v", p.Topic, answers)
		}
		if (answers[0].Code >= 0x80) != answers[0].NoFanOut || answers[0].Code >= 0x80 && len(b.pending) != stored {
			t.Fatalf("%s: answer %+v, %d writes", p.Topic, answers[0], len(b.pending)-stored)
		}
		return answers[0].Code
	}
	for topic, want := range map[string]byte{"gps/pos": 0, "gps/debug": 0, "else/debug": mqttfront.NotAuthorized, "open/x": mqttfront.NotAuthorized,
		"gps/c1/secret": mqttfront.NotAuthorized, "gps/c2/secret": 0, "gps/" + strings.Repeat("x", 2000): 0} {
		for range 2 { // the second time from memory
			if code := publish(gps, mqttfront.Publish{Topic: topic, QoS: 1, Save: []mqttfront.Change{{Key: "k"}}}); code != want {
				t.Errorf("%.40s: 0x%02x, want 0x%02x", topic, code, want)
			}
		}
	}
	if !gps.Deliver("cmd/gps") || gps.Deliver("cmd/radar") || !gps.Subscribe("cmd/#") || gps.Subscribe("gps/#") || gps.Subscribe("cmd/radar") {
		t.Error("what it may see is wrong")
	}
	if got, want := fmt.Sprint(s.Stats().Denied), "map[deliver:1 publish:6 subscribe:2 will:0]"; got != want {
		t.Errorf("denied %s, want %s", got, want)
	}
	if n := strings.Count(log.String(), "acl denies a sensor"); n != 1 || !strings.Contains(log.String(), "what=publish client=c1 user=gps topic=") {
		t.Errorf("%d lines: %s", n, log.String())
	}

	// Wills.
	if _, code := admit(t, s, &mqttfront.Peer{ClientID: "c2", Will: &mqttfront.Publish{Topic: "gps/gone"}}); code != mqttfront.NotAuthorized {
		t.Errorf("a will that is not allowed: 0x%02x", code)
	}
	anonymous, code := admit(t, s, &mqttfront.Peer{ClientID: "c2", Will: &mqttfront.Publish{Topic: "open/gone"}})
	if code != 0 {
		t.Fatalf("a will that is allowed: 0x%02x", code)
	}
	if code := publish(anonymous, mqttfront.Publish{Topic: "open/gone", QoS: 1, Will: true}); code != 0 {
		t.Errorf("will: 0x%02x", code)
	}

	// The change takes away what was allowed, and gives something else.
	if err := os.WriteFile(path, []byte("topic write other\nuser gps\ntopic read seen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list.Refresh()
	if code := publish(gps, mqttfront.Publish{Topic: "gps/pos", QoS: 1}); code != mqttfront.NotAuthorized {
		t.Errorf("after the change: 0x%02x", code)
	}
	if gps.Deliver("cmd/gps") || !gps.Deliver("seen") {
		t.Error("after the change it sees what it saw before")
	}
	if code := publish(anonymous, mqttfront.Publish{Topic: "open/gone", QoS: 1, Will: true}); code != mqttfront.NotAuthorized {
		t.Errorf("will after the change: 0x%02x", code)
	}
	s.Will(&mqttfront.Publish{Topic: "open/gone", QoS: 1}, "c2", "", func(r mqttfront.Result) { code = r.Code })
	if code != mqttfront.NotAuthorized {
		t.Errorf("will of a former life, after the change: 0x%02x", code)
	}
	before := len(b.pending)
	s.Will(&mqttfront.Publish{Topic: "other", QoS: 1, Expiry: 9}, "c2", "", func(r mqttfront.Result) { code = r.Code })
	b.pending[before](stream.Position{}, nil)
	if last := b.got[len(b.got)-1]; code != 0 || last.Topic != "other" || last.Expiry != 9 {
		t.Errorf("will of a former life: 0x%02x, %+v", code, last)
	}
	if d := s.Stats().Denied["will"]; d != 2 {
		t.Errorf("%d wills denied", d) // at CONNECT; after the change (that of a former life is a publish of nobody's connection)
	}
}

// What a session must remember goes into the same write as its message, also
// where a rule keeps nothing of the message.
func TestSaveGoesWithTheMessage(t *testing.T) {
	b := &fakeBuffer{}
	s, err := New(b, Options{AllowAnonymous: true, Lanes: []LaneRule{{Drop: true, Filters: []string{"drop"}}}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := admit(t, s, &mqttfront.Peer{ClientID: "c"})
	answered := 0
	for i, p := range []mqttfront.Publish{
		{Topic: "keep", QoS: 2, Expiry: 60, Save: []mqttfront.Change{{Key: "q/1/0001", Value: []byte{1}}, {Key: "r/keep"}}},
		{Topic: "drop", QoS: 2, Save: []mqttfront.Change{{Key: "q/1/0002", Value: []byte{1}}}},
		{Topic: "keep", Save: []mqttfront.Change{{Key: "r/keep", Value: []byte("x")}}},
		{Topic: "drop", Save: []mqttfront.Change{{Key: "r/drop", Value: []byte("x")}}},
		{Topic: "drop", QoS: 1},
		{Topic: "keep", QoS: 1},
	} {
		c.Publish(&p, func(r mqttfront.Result) {
			answered++
			if r.Code != 0 {
				t.Errorf("message %d: %+v", i, r)
			}
		})
	}
	if answered != 1 {
		t.Errorf("%d answers before the disk", answered)
	}
	want := "[{normal [] [{q/1/0001 [1]} {r/keep []}] false} {lane(0) [] [{q/1/0002 [1]}] false} {normal [] [{r/keep [120]}] true} {lane(0) [] [{r/drop [120]}] true} {normal [] [] false}]"
	if got := fmt.Sprint(b.writes); got != want {
		t.Errorf("writes\n%s, want\n%s", got, want)
	}
	if len(b.got) != 3 || b.got[0].Expiry != 60 {
		t.Errorf("messages %+v", b.got)
	}
	for _, done := range b.pending {
		done(stream.Position{}, nil)
	}
	if st := s.Stats(); answered != 6 || st.Dropped != 3 || st.Accepted[stream.Normal] != 3 {
		t.Errorf("%d answers, %+v", answered, st)
	}
}

// A refusal of the disk withholds the answer to a message that a rule drops,
// when its id could not be stored.
func TestDroppedMessageWhoseIDIsNotStored(t *testing.T) {
	b := &fakeBuffer{refuse: buffer.ErrDisk}
	s, _ := New(b, Options{AllowAnonymous: true, Lanes: []LaneRule{{Drop: true, Filters: []string{"#"}}}})
	c, _ := admit(t, s, &mqttfront.Peer{ClientID: "c"})
	var got mqttfront.Result
	c.Publish(&mqttfront.Publish{Topic: "a", QoS: 2, Save: []mqttfront.Change{{Key: "q"}}}, func(r mqttfront.Result) { got = r })
	if !got.Withhold || s.Stats().Dropped != 0 {
		t.Errorf("%+v, %+v", got, s.Stats())
	}
}

// The lines that sensors can provoke are few, however many connect.
func TestDenialsAreThrottled(t *testing.T) {
	_, list := aclFile(t, "topic read a\n")
	log := &bytes.Buffer{}
	s, err := New(discard{}, Options{AllowAnonymous: true, ACL: list, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		c, _ := admit(t, s, &mqttfront.Peer{ClientID: fmt.Sprint(i)})
		for range 3 {
			c.Publish(&mqttfront.Publish{Topic: "b"}, func(mqttfront.Result) {})
		}
	}
	// The clock of the process runs on meanwhile: a line a second.
	if n := strings.Count(log.String(), "\n"); n < 2 || n > 500 {
		t.Errorf("%d lines for 3,000 denials", n)
	}
	if n := s.Stats().Denied["publish"]; n != 3000 {
		t.Errorf("%d denied", n)
	}
	var x throttle
	at, lines := int64(1), 0
	for range 1000 {
		if at += 1e8; x.allow(at) { // ten a second
			lines++
		}
	}
	if lines != linesAtOnce+99 {
		t.Errorf("%d lines in 100 s", lines)
	}
}

// An answer of the ACL costs a message no allocation.
func TestPublishWithACLAllocates(t *testing.T) {
	_, list := aclFile(t, "pattern write v/%c/#\n")
	s, _ := New(discard{}, Options{AllowAnonymous: true, ACL: list})
	session, _ := admit(t, s, &mqttfront.Peer{ClientID: "1"})
	code := byte(0xff)
	p := &mqttfront.Publish{Topic: "v/1/temp", Payload: make([]byte, 60), QoS: 1}
	settle := func(r mqttfront.Result) { code = r.Code }
	if n := testing.AllocsPerRun(1000, func() { session.Publish(p, settle) }); n > 1 || code != 0 {
		t.Errorf("%v allocations a message, code 0x%02x", n, code)
	}
	p.Topic = "v/2/temp"
	if session.Publish(p, settle); code != mqttfront.NotAuthorized {
		t.Errorf("code 0x%02x", code)
	}
}

// BenchmarkPublish is the part of a PUBLISH that is done here, with and without
// an ACL, for topics that come again and for ones that never do.
func BenchmarkPublish(b *testing.B) {
	var rules strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rules, "topic write plant/%d/#\n", i)
	}
	rules.WriteString("pattern write v/%c/#\n")
	_, list := aclFile(b, rules.String())
	topics := make([]string, 4*maxRoutes)
	for i := range topics {
		topics[i] = fmt.Sprintf("v/1/temp/%d", i)
	}
	for _, x := range []struct {
		name   string
		list   *acl.List
		topics []string
	}{{"acl=no", nil, topics[:10]}, {"acl=1001", list, topics[:10]}, {"acl=no/topics=4096", nil, topics}, {"acl=1001/topics=4096", list, topics}} {
		b.Run(x.name, func(b *testing.B) {
			s, _ := New(discard{}, Options{AllowAnonymous: true, ACL: x.list})
			c := &session{s: s, client: "1", view: x.list.For("", "1")}
			p, settle := &mqttfront.Publish{Payload: make([]byte, 60), QoS: 1}, func(mqttfront.Result) {}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Topic = x.topics[i%len(x.topics)]
				c.Publish(p, settle)
			}
			if s.Stats().Denied["publish"] > 0 {
				b.Fatal("denied")
			}
		})
	}
}
