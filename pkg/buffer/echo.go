package buffer

import (
	"encoding/binary"
)

// What follows a change in its segment repeats the hash of its key: if the frame
// of the change is damaged, the frames behind it tell which key has no value any
// more, so that no older one is taken for it.
const (
	echoTimes = 8  // in how many frames the newest changes are repeated
	echoLong  = 64 // how many count as newest; all others are repeated once
	echoMax   = 1 << 15
)

type echoed struct {
	hash  uint32
	times uint8
}

// mapTail is what was written of the map to the head segment. Under commitMu.
type mapTail struct {
	slots   uint32
	changes uint64 // removes and puts, moved ones not
	synced  uint64 // of changes
	echo    []echoed
	took    int // the last ones of echo, which the frame being built repeats
}

// append ends a frame's body with the echo, in what room bytes allow, and with
// the changes in state.
func (t *mapTail) append(p, state []byte, room int) []byte {
	if t.took = min(len(t.echo), max(room-24-len(state), 0)/4); t.took > 0 {
		body := make([]byte, 0, 16+4*t.took)
		body = binary.AppendUvarint(body, t.changes-uint64(t.took))
		body = binary.AppendUvarint(body, t.synced)
		for _, e := range t.echo[len(t.echo)-t.took:] {
			body = binary.LittleEndian.AppendUint32(body, e.hash)
		}
		p = appendOp(p, opEcho, body)
	}
	if len(state) > 0 {
		n := uvarintLen(t.changes) + uvarintLen(uint64(t.slots)) + len(state)
		p = binary.AppendUvarint(append(p, opMap), uint64(n))
		p = binary.AppendUvarint(p, t.changes)
		p = binary.AppendUvarint(p, uint64(t.slots))
		p = append(p, state...)
	}
	return p
}

// wrote notes that the frame which append ended stands in the segment, with
// these changes. It returns the slot of the first put.
func (t *mapTail) wrote(changes []change) (slot uint32) {
	slot = t.slots
	for i := len(t.echo) - t.took; i < len(t.echo); i++ {
		t.echo[i].times++
	}
	t.took = 0
	for i := range changes {
		t.echo = append(t.echo, echoed{hash: keyHash(changes[i].key)})
		if changes[i].size >= 0 {
			t.slots++
		}
	}
	t.changes += uint64(len(changes))
	drop := 0
	for n := len(t.echo); drop < n; drop++ {
		if e := &t.echo[drop]; e.times < echoTimes && (e.times == 0 || n-drop <= echoLong) && n-drop <= echoMax {
			break
		}
	}
	t.echo = t.echo[:copy(t.echo, t.echo[drop:])]
	return slot
}

// appendOp encodes one operation.
func appendOp(p []byte, code byte, body []byte) []byte {
	p = append(p, code)
	p = binary.AppendUvarint(p, uint64(len(body)))
	return append(p, body...)
}

// mapOps are the operations of a frame that concern the map. Its slices point
// into the frame.
type mapOps struct {
	echoFirst, echoSynced uint64
	echo                  []byte // hashes of 4 bytes; none: no echo
	before                uint64 // changes in the segment before those of the frame
	slot                  uint32 // of the first put
	changes               []byte
	has                   bool // the frame has changes
}

// parseMapOps reads the operations in p that concern the map. ok is false if
// any operation cannot be read.
func parseMapOps(p []byte) (m mapOps, ok bool) {
	r := reader{p: p}
	for len(r.p) > 0 {
		code := r.byte()
		body := reader{p: r.bytes()}
		switch code {
		case opEcho:
			m.echoFirst, m.echoSynced, m.echo = body.uvarint(), body.uvarint(), body.p
			if len(m.echo)%4 != 0 {
				body.fail()
			}
		case opMap:
			m.before, m.slot, m.has = body.uvarint(), uint32(body.uvarint()), true
			m.changes = body.p
		}
		if r.bad || body.bad {
			return mapOps{}, false
		}
	}
	return m, true
}

// each calls f for every change in m, with the slot of each put. It reports
// whether all could be read.
func (m *mapOps) each(f func(kind byte, slot uint32, key, value []byte)) bool {
	r := reader{p: m.changes}
	slot := m.slot
	for len(r.p) > 0 {
		kind, key, value := r.change()
		if r.bad {
			return false
		}
		f(kind, slot, key, value)
		if kind != changeRemove {
			slot++
		}
	}
	return true
}
