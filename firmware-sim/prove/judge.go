package prove

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/receipts"
)

// send is one send of a message.
type send struct {
	pass    uint64
	message int // its place in the topic's messages
}

// group is what has one payload, in one topic.
type group struct {
	acked, messages int // messages that were acknowledged; that were sent
	sends           int
	records         int
	client          uint32
	shared          bool // several clients sent it: the order is not judged
	exact           bool // all of it with QoS 2
}

// times says how often it was sent, as far as that explains records.
func (g *group) times() string {
	if g.exact {
		return fmt.Sprintf("with QoS 2 as %d messages in %d sessions", g.messages, g.sends)
	}
	return fmt.Sprintf("%d times", g.sends)
}

// judge compares one topic.
func (p *proof) judge(name string, t *topic) {
	before := p.report.Missing
	t.sortLog()
	t.lanes = p.lanesOf(t)
	groups := make(map[receipts.Hash]*group, len(t.messages))
	for i := range t.messages {
		m := &t.messages[i]
		g := groups[m.hash]
		if g == nil {
			g = &group{client: m.client, exact: true}
			groups[m.hash] = g
		}
		g.messages++
		g.sends += 1 + len(m.again)
		g.shared = g.shared || g.client != m.client
		g.exact = g.exact && m.exact
		if m.acked {
			g.acked++
		}
	}
	known := p.count(name, t, groups)
	var clients []uint32
	for i := range t.messages {
		if c := t.messages[i].client; !slices.Contains(clients, c) {
			clients = append(clients, c)
		}
	}
	for _, c := range clients {
		p.align(name, t, groups, known, c)
	}
	for _, g := range groups {
		p.report.Copies += int64(max(min(g.records, g.sends)-g.messages, 0))
		if !g.shared {
			continue
		}
		lost := max(g.acked-g.records, 0)
		if lost > 0 {
			p.report.example(Missing, name, "%d of %d messages of several clients with one payload", lost, g.acked)
		}
		p.report.Missing += int64(lost)
		p.report.Undecidable += int64(max(min(g.acked, g.sends-g.records)-lost, 0))
	}
	p.sumUp(t, groups, p.report.Missing-before)
}

// count finds what no receipt explains, and returns the records that one does.
func (p *proof) count(name string, t *topic, groups map[receipts.Hash]*group) []seen {
	known := t.log[:0]
	tail := len(t.log) // from here on no receipt explains anything
	for tail > 0 && groups[t.log[tail-1].hash] == nil {
		tail--
	}
	for i, s := range t.log {
		g := groups[s.hash]
		switch {
		case g == nil && i >= tail && p.report.Unfinished > 0:
			p.report.Undecidable++
			p.report.example(Undecided, name, "record %d of epoch %s: without receipt, as the last ones of a killed simulator are (hash %s)", s.seq, p.epoch(s.stream), s.hash)
			continue
		case g == nil:
			p.report.Unexpected++
			p.report.example(Unexpected, name, "record %d of epoch %s: no receipt has its payload (hash %s)", s.seq, p.epoch(s.stream), s.hash)
			continue
		case g.records == g.sends:
			p.report.Double++
			p.report.example(Double, name, "record %d of epoch %s: its payload (hash %s) was sent %s and is there once more", s.seq, p.epoch(s.stream), s.hash, g.times())
			continue
		}
		g.records++
		known = append(known, s)
	}
	return known
}

func (p *proof) epoch(number uint32) string { return p.ids[number].Epoch.String() }

// alignment is one client's sends and records of a topic.
type alignment struct {
	sends   []send
	byHash  []int32 // places in sends, by hash and then place
	records []seen
	left    []int32 // by record: the place of its send in the leftmost embedding; -1: out of order
	right   []int32 // and in the rightmost
}

// align embeds a client's records into its sends.
func (p *proof) align(name string, t *topic, groups map[receipts.Hash]*group, known []seen, client uint32) {
	a := &alignment{}
	for i := range t.messages {
		m := &t.messages[i]
		if m.client != client || groups[m.hash].shared {
			continue
		}
		a.sends = append(a.sends, send{m.pass, i})
		for _, pass := range m.again {
			a.sends = append(a.sends, send{pass, i})
		}
	}
	slices.SortFunc(a.sends, func(x, y send) int {
		return cmp.Or(cmp.Compare(x.pass, y.pass), cmp.Compare(t.messages[x.message].n, t.messages[y.message].n), cmp.Compare(x.message, y.message))
	})
	a.byHash = make([]int32, len(a.sends))
	for i := range a.byHash {
		a.byHash[i] = int32(i)
	}
	hash := func(at int32) receipts.Hash { return t.messages[a.sends[at].message].hash }
	slices.SortFunc(a.byHash, func(x, y int32) int { return cmp.Or(cmp.Compare(hash(x), hash(y)), cmp.Compare(x, y)) })
	for _, s := range known {
		if g := groups[s.hash]; !g.shared && g.client == client {
			a.records = append(a.records, s)
		}
	}
	broken := a.embedLeft(hash)
	for j, at := range a.left {
		if at < 0 {
			p.report.OutOfOrder++
			p.report.example(OutOfOrder, name, "record %d of epoch %s (hash %s) stands behind messages that were sent after it", a.records[j].seq, p.epoch(a.records[j].stream), a.records[j].hash)
		}
	}
	if broken {
		p.missingByCount(name, t, groups, client)
		return
	}
	a.embedRight(hash)
	p.decide(name, t, groups, a, hash)
}

// find gives the place in byHash of the first send with hash h at or after at.
func (a *alignment) find(h receipts.Hash, at int32, hash func(int32) receipts.Hash) int {
	i, _ := slices.BinarySearchFunc(a.byHash, at, func(e, at int32) int { return cmp.Or(cmp.Compare(hash(e), h), cmp.Compare(e, at)) })
	return i
}

// embedLeft gives each record the first send that is left for it, and reports
// whether one has none.
func (a *alignment) embedLeft(hash func(int32) receipts.Hash) (broken bool) {
	next := int32(0)
	for _, s := range a.records {
		i := a.find(s.hash, next, hash)
		if i == len(a.byHash) || hash(a.byHash[i]) != s.hash {
			a.left = append(a.left, -1)
			broken = true
			continue
		}
		a.left = append(a.left, a.byHash[i])
		next = a.byHash[i] + 1
	}
	return broken
}

// embedRight gives each record the last send, from the end. It is called when
// embedLeft found a place for all, so it does as well.
func (a *alignment) embedRight(hash func(int32) receipts.Hash) {
	a.right = make([]int32, len(a.records))
	next := int32(len(a.sends))
	for j := len(a.records) - 1; j >= 0; j-- {
		i := a.find(a.records[j].hash, next, hash) - 1
		a.right[j] = a.byHash[i]
		next = a.byHash[i]
	}
}

// decide tells certain, missing and undecidable messages apart: certain are
// those without which there is no embedding, missing those that no embedding
// gives a record.
func (p *proof) decide(name string, t *topic, groups map[receipts.Hash]*group, a *alignment, hash func(int32) receipts.Hash) {
	places := make(map[int][]int32) // of the messages that were sent again
	for i, s := range a.sends {
		if len(t.messages[s.message].again) > 0 {
			places[s.message] = append(places[s.message], int32(i))
		}
	}
	possible := a.possible(len(t.messages), hash)
	type tally struct{ doubtful, impossible int }
	doubt := map[receipts.Hash]*tally{}
	for i, s := range a.sends {
		m := &t.messages[s.message]
		sent := places[s.message]
		if sent == nil {
			sent = []int32{int32(i)}
		}
		if !m.acked || int32(i) != sent[len(sent)-1] || !a.avoidable(sent, hash) {
			continue // not promised, judged at its last send, or certain
		}
		d := doubt[m.hash]
		if d == nil {
			d = &tally{}
			doubt[m.hash] = d
		}
		d.doubtful++
		if !possible[s.message] {
			d.impossible++
			if !p.excused(t, a, sent) {
				t.hopeless++
			}
			p.report.example(Missing, name, "message %d of %s, acknowledged (hash %s)", m.n, p.clients[m.client], m.hash)
		}
	}
	for h, d := range doubt {
		g := groups[h]
		lost := max(d.impossible, g.acked-g.records)
		p.report.Missing += int64(lost)
		if lost > d.impossible {
			p.report.example(Missing, name, "%d of %d acknowledged messages with the same payload (hash %s)", lost, g.acked, h)
		}
		// No more messages can be missing than there are sends without record.
		if open := min(d.doubtful, g.sends-g.records) - lost; open > 0 {
			p.report.Undecidable += int64(open)
			p.report.example(Undecided, name, "%d of %d acknowledged messages with the same payload (hash %s), some of them sent again", open, g.acked, h)
		}
	}
}

// avoidable reports whether the records can be embedded without the given
// sends of one message: before the first of them as on the left, then as far
// to the left as goes without them, and behind the last as on the right.
func (a *alignment) avoidable(sends []int32, hash func(int32) receipts.Hash) bool {
	first, last := sends[0], sends[len(sends)-1]
	j, _ := slices.BinarySearch(a.left, first)
	next := int32(0)
	if j > 0 {
		next = a.left[j-1] + 1
	}
	for ; j < len(a.records); j++ {
		i := a.find(a.records[j].hash, next, hash)
		for i < len(a.byHash) && slices.Contains(sends, a.byHash[i]) {
			i++
		}
		if i == len(a.byHash) || hash(a.byHash[i]) != a.records[j].hash || a.byHash[i] > a.right[j] {
			return false
		}
		next = a.byHash[i] + 1
		if next > last {
			return true
		}
	}
	return true
}

// possible tells, by message, whether some embedding gives it a record: whether
// one of its sends lies between the two places of a record with its payload.
func (a *alignment) possible(messages int, hash func(int32) receipts.Hash) []bool {
	yes := make([]bool, messages)
	done := make(map[receipts.Hash]int) // places in byHash up to here are marked
	for j, s := range a.records {
		i := max(a.find(s.hash, a.left[j], hash), done[s.hash])
		for ; i < len(a.byHash) && a.byHash[i] <= a.right[j] && hash(a.byHash[i]) == s.hash; i++ {
			yes[a.sends[a.byHash[i]].message] = true
		}
		done[s.hash] = i
	}
	return yes
}

// missingByCount is what can still be said when the order is broken.
func (p *proof) missingByCount(name string, t *topic, groups map[receipts.Hash]*group, client uint32) {
	for h, g := range groups {
		if g.shared || g.client != client || g.records >= g.acked {
			continue
		}
		p.report.Missing += int64(g.acked - g.records)
		for i := range t.messages {
			if m := &t.messages[i]; m.hash == h && m.acked {
				p.report.example(Missing, name, "message %d of %s or an equal one (hash %s)", m.n, p.clients[m.client], h)
				break
			}
		}
	}
}
