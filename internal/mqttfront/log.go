package mqttfront

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	noteEvery = 10 * time.Second // one line per client or address and reason
	maxNotes  = 128              // lines in that time, all together
	noteChars = 64               // of a client id
)

// notes write what clients do wrong to the log, and see to it that no client can
// fill it. No line has a payload or a password.
type notes struct {
	mu    sync.Mutex
	since time.Time           // guarded by mu
	held  map[[2]string]int64 // lines kept back since then, by client and reason; guarded by mu
}

// allow reports whether a line may be written, and how many like it were not
// since the last.
func (n *notes) allow(now time.Time, who, what string) (ok bool, held int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == nil || now.Sub(n.since) >= noteEvery {
		old := n.held
		n.since, n.held = now, make(map[[2]string]int64)
		held = old[[2]string{who, what}]
	}
	key := [2]string{who, what}
	_, known := n.held[key]
	if known || len(n.held) >= maxNotes {
		if known {
			n.held[key]++
		}
		return false, 0
	}
	n.held[key] = 0
	return true, held
}

// note logs what a client did, once per client and reason in a while.
func (f *Front) note(c *conn, what, msg string, attrs ...any) {
	who := c.id
	if !c.open.Load() {
		who = hostOf(c.RemoteAddr()) // anybody may claim to be anybody
	}
	ok, held := f.notes.allow(time.Now(), who, what)
	if !ok {
		f.n.linesKept.Add(1)
		return
	}
	id := c.id
	if len(id) > noteChars {
		id = id[:noteChars] + "…"
	}
	all := append([]any{"client", id, "remote", c.RemoteAddr().String(), "transport", c.transport(), "version", c.version, "kind", what}, attrs...)
	if held > 0 {
		all = append(all, "not_logged_before", held)
	}
	f.log.Log(context.Background(), slog.LevelWarn, msg, all...)
}

// noteRefused logs a message that was not taken.
func (f *Front) noteRefused(c *conn, e *entry) {
	if c.Conn == nil {
		f.log.Warn("will of a client from before the restart was refused", "client", c.id, "code", fmt.Sprintf("0x%02x", e.code))
		return
	}
	what := fmt.Sprintf("message_0x%02x", e.code)
	switch {
	case e.withhold:
		what = "message_withheld"
	case reservedTopic(e.pub.Topic):
		what = "reserved_topic" // a 3.1.1 client is told nothing
	}
	topic := e.pub.Topic
	if len(topic) > 2*noteChars {
		topic = topic[:2*noteChars] + "…"
	}
	f.note(c, what, "message refused", "topic", topic, "qos", e.pub.QoS, "code", fmt.Sprintf("0x%02x", e.code), "withheld", e.withhold)
}

func hostOf(a net.Addr) string {
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}
