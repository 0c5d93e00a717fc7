package buffer

import (
	"bytes"
	"testing"
)

// FuzzMapOps: the operations of a frame that concern the map decode without a
// panic, and give changes that encode to the same bytes.
func FuzzMapOps(f *testing.F) {
	c := &chunk{}
	for _, e := range []Entry{{Key: "put", Value: []byte("v")}, {Key: "removed"}} {
		c.changed(&e)
	}
	tail := mapTail{slots: 1, changes: 2, echo: []echoed{{hash: 7}}}
	f.Add(tail.append(nil, c.state, 1000))
	f.Add([]byte{opMap, 2, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := parseMapOps(p)
		if !ok {
			if m.has || m.echo != nil {
				t.Fatal("a result without ok")
			}
			return
		}
		var again []byte
		slot := m.slot
		whole := m.each(func(kind byte, at uint32, key, value []byte) {
			if at != slot {
				t.Fatalf("slot %d, want %d", at, slot)
			}
			if kind != changeRemove {
				slot++
			}
			again = appendChange(again, kind, string(key), value)
		})
		var back mapOps
		if whole && m.has {
			back.changes = again
			n := 0
			back.each(func(byte, uint32, []byte, []byte) { n++ })
			if len(again) > len(m.changes) || len(again) == len(m.changes) && !bytes.Equal(again, m.changes) {
				t.Fatalf("%x encodes as %x", m.changes, again)
			}
		}
	})
}

// FuzzSnapshot: a snapshot decodes without a panic; what it gives encodes again,
// and decodes to the same bytes.
func FuzzSnapshot(f *testing.F) {
	s, live := fixedState()
	f.Add(appendSnapshot(nil, s, live))
	keep(live[0])
	f.Add(appendSnapshot(nil, s, live))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, live, ok := decodeSnapshot(p, 100)
		if !ok {
			return
		}
		once := appendSnapshot(nil, s, live)
		s, live, ok = decodeSnapshot(once, 100)
		if !ok {
			t.Fatalf("%x does not decode", once)
		}
		if again := appendSnapshot(nil, s, live); !bytes.Equal(again, once) {
			t.Fatalf("%x encodes as %x", once, again)
		}
		for _, seg := range live {
			if seg.kept.live != seg.kept.count() {
				t.Fatalf("%d live, %d bits", seg.kept.live, seg.kept.count())
			}
		}
	})
}
