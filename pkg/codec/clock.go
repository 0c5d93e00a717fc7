package codec

import "github.com/packetboat/packetboat/pkg/codec/entropy"

// When a message came: half a bit at 1 ms. At 1 µs it is mostly jitter, which
// nothing compresses.

// clock is what is known of the times of a topic, all in units.
type clock struct {
	last, step, gap int64 // of the last message: its time, after the topic's one before, after any one before
	mean            int64 // of the steps, with 4 fraction bits
	unit            int64 // µs
	cost            [4]uint32
	run             uint8 // messages that came when expected
	seen            uint8
	avg             entropy.Expected
	signs           uint8
}

// times learns when messages come, all topics together: whether when expected, by
// the predictor and how long it has been right, and by how many messages came
// since the time went on, as it does at even distances in a burst (5 % of EV); and
// how far it was missed, by whether it was expected later than the message before
// (2 % of EV and OBD).
type times struct {
	stale   [4][16]entropy.Prob
	since   [3][maxSince + 1]entropy.Prob
	weights [3]entropy.Weights
	sign    [3][4]entropy.Prob
	by      entropy.Magnitude
	trend   entropy.Trend
}

const maxSince = 31

// saturated is where counts stop.
const saturated = 255

// rescale makes the clock count in another unit.
func (k *clock) rescale(unit int64) {
	if k.unit == unit {
		return
	}
	if k.seen > 0 {
		k.last, k.step = rescale(k.last, k.unit, unit), rescale(k.step, k.unit, unit)
		k.gap, k.mean = rescale(k.gap, k.unit, unit), rescale(k.mean, k.unit, unit)
	}
	k.unit = unit
}

// rescale gives x in another unit; what does not fit wraps, on both sides.
func rescale(x, from, to int64) int64 {
	if from < to {
		return x / (to / from)
	}
	return x * (from / to)
}

// time codes the time of a message, in units.
func (s *session) time(t *topic, x int64) int64 {
	k := &t.clock
	k.rescale(s.unit)
	// With the message before it; as long after that as the last time; one step,
	// or the mean step, after the topic's last.
	p := [4]int64{s.now, s.now, s.now, s.now}
	if k.seen > 0 {
		p[1], p[2], p[3] = s.now+k.gap, k.last+k.step, k.last+(k.mean+8)>>4
	}
	best := 0
	for i := 1; i < len(p); i++ {
		if k.cost[i] < k.cost[best] {
			best = i
		}
	}
	m := &s.times
	side := 0 // expected after the message before
	if p[best] <= s.now {
		side = 1 + entropy.Int(p[best] < s.now)
	}
	missed := s.Blend(&m.weights[side], &m.stale[best][min(k.run, 15)], &m.since[side][s.since], entropy.Int(x != p[best]))
	if missed == 0 {
		x = p[best]
		k.run = min(k.run, saturated-1) + 1
	} else {
		k.run = 0
		d := s.Signed(&m.sign[side][k.signs&3], &m.by, &m.trend, &k.avg, x-p[best])
		push(&k.signs, d > 0)
		x = p[best] + d
	}
	k.see(x, s.now, &p)
	if s.since = min(s.since+1, maxSince); x != s.now {
		s.since = 0
	}
	s.now = x
	return x
}

func (k *clock) see(x, now int64, p *[4]int64) {
	for i := range p {
		k.cost[i] += missCost(x-p[i]) - k.cost[i]>>5
	}
	k.gap = x - now
	if k.seen > 0 {
		k.step = x - k.last
		if k.seen == 1 {
			k.mean = k.step << 4
		} else {
			k.mean += (k.step<<4 - k.mean) >> 3
		}
	}
	k.last = x
	k.seen = min(k.seen, saturated-1) + 1
}

// missCost is what missing by d costs, in 1/256 bits.
func missCost(d int64) uint32 {
	if d == 0 {
		return 0
	}
	return (entropy.BitLength(d) + 2) << 8
}
