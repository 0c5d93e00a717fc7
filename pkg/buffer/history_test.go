package buffer

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// history is what the map must agree with: what it held once, and the Writes
// since, in commit order.
type history struct {
	base  map[string]string
	items []*historyItem
}

type fate int

const (
	undecided fate = iota
	acknowledged
	failed
)

type historyItem struct {
	entries []Entry
	fate    fate
}

// drawEntries makes a Write's entries over few keys. All values carry the serial
// of the Write.
func drawEntries(t *rapid.T, serial int) (out []Entry) {
	for range rapid.IntRange(1, 4).Draw(t, "entries") {
		e := Entry{Key: fmt.Sprintf("key/%d", rapid.IntRange(0, 11).Draw(t, "key"))}
		if rapid.IntRange(0, 3).Draw(t, "put") > 0 {
			size := rapid.SampledFrom([]int{0, 10, 200, 2500}).Draw(t, "value")
			e.Value = append(fmt.Appendf(nil, "%d ", serial), make([]byte, size)...)
			if size == 0 {
				e.Value = []byte{}
			}
		}
		out = append(out, e)
	}
	return out
}

func applied(state map[string]string, entries []Entry) map[string]string {
	out := maps.Clone(state)
	for _, e := range entries {
		if e.Value == nil {
			delete(out, e.Key)
		} else {
			out[e.Key] = string(e.Value)
		}
	}
	return out
}

func (h *history) clone() history {
	out := history{base: maps.Clone(h.base)}
	for _, i := range h.items {
		item := *i
		out.items = append(out.items, &item)
	}
	return out
}

// now is what a running buffer must show.
func (h *history) now() map[string]string {
	state := h.base
	for _, i := range h.items {
		if i.fate == acknowledged {
			state = applied(state, i.entries)
		}
	}
	return state
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func stateOf(t fataler, b *Buffer) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := b.State(func(key string, value []byte) bool {
		if _, twice := out[key]; twice {
			t.Fatalf("%q comes twice", key)
		}
		out[key] = string(value)
		return true
	}); err != nil {
		t.Fatalf("state: %v", err)
	}
	return out
}

// check compares a running buffer with what it acknowledged, and its index with
// itself.
func (h *history) check(t fataler, b *Buffer) {
	t.Helper()
	if got, want := stateOf(t, b), h.now(); !maps.Equal(got, want) {
		t.Fatalf("the map is %s, want %s", shown(got), shown(want))
	}
	checkIndex(t, b)
}

func checkIndex(t fataler, b *Buffer) {
	t.Helper()
	live, bytes := 0, int64(0)
	all := slices.Clone(b.segs.live)
	if b.segs.head != nil {
		all = append(all, b.segs.head)
	}
	for _, seg := range all {
		live += seg.kept.live
		if seg.kept.live != seg.kept.count() {
			t.Fatalf("segment %d: %d slots live, %d bits", seg.id, seg.kept.live, seg.kept.count())
		}
	}
	for key, p := range b.keys.index {
		bytes += charge(key, int(p.size))
		if !p.seg.kept.has(p.slot) || !slices.Contains(all, p.seg) {
			t.Fatalf("%q has no slot, or one in a free segment", key)
		}
	}
	switch k := &b.keys; {
	case live != len(k.index) || bytes != k.bytes:
		t.Fatalf("%d slots for %d keys, %d bytes counted as %d", live, len(k.index), bytes, k.bytes)
	case len(k.ahead) > 0 && b.waiting == 0:
		t.Fatalf("%d keys are reserved, nothing waits", len(k.ahead))
	case len(k.ahead) == 0 && k.projected != k.bytes:
		t.Fatalf("%d bytes projected, nothing waits, %d are there", k.projected, k.bytes)
	case k.bytes > k.max:
		t.Fatalf("%d bytes of %d", k.bytes, k.max)
	}
}

// reopened compares what a buffer holds after a cut with what it may hold: all
// that was acknowledged, in order; then the first of those that were waiting, as
// many as made it, each of them whole. What failed may turn up in its place.
func (h *history) reopened(t fataler, got map[string]string) {
	t.Helper()
	states := []map[string]string{h.base}
	var may []map[string]string
	for _, i := range h.items {
		var next []map[string]string
		for _, s := range states {
			a := applied(s, i.entries)
			if i.fate == undecided {
				may = append(may, s)
			}
			next = distinct(next, a)
			if i.fate == failed && len(next) < 256 {
				next = distinct(next, s)
			}
		}
		states = next
	}
	may = append(may, states...)
	if !slices.ContainsFunc(may, func(s map[string]string) bool { return maps.Equal(s, got) }) {
		t.Fatalf("after the cut the map is %s; acknowledged was %s", shown(got), shown(h.now()))
	}
	*h = history{base: got}
}

func distinct(all []map[string]string, s map[string]string) []map[string]string {
	for _, x := range all {
		if maps.Equal(x, s) {
			return all
		}
	}
	return append(all, s)
}

func shown(s map[string]string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		out = append(out, fmt.Sprintf("%s=%.8q", k, s[k]))
	}
	return out
}

// mapSegments counts the segments that stay for their entries alone.
func mapSegments(b *Buffer) (n int) {
	for _, seg := range b.segs.live {
		if seg.kept.live > 0 {
			n++
		}
	}
	return n
}

// putEntries writes entries alone: also while the journal is full.
func (m *model) putEntries(t *rapid.T) {
	m.serial++
	w := Write{State: drawEntries(t, m.serial), Lazy: rapid.Bool().Draw(t, "lazy")}
	b, item := m.b, &historyItem{entries: w.State}
	judge := func(err error) {
		if errors.Is(err, ErrFull) && !m.faulted && b.refuses {
			m.t.Fatalf("entries refused: %v", err)
		}
	}
	err := b.Commit(w, func(at stream.Position, err error) {
		m.waiting--
		if item.fate = failed; err == nil {
			item.fate = acknowledged
		}
		judge(err)
	})
	if err == nil {
		m.waiting++
		m.entries.items = append(m.entries.items, item)
	} else if judge(err); !errors.Is(err, ErrStateFull) && !errors.Is(err, ErrDisk) && !errors.Is(err, ErrBusy) {
		m.t.Fatalf("entries: %v", err)
	}
}
