// Package signals makes up devices: sensors whose values move as those of a car
// or a ship do, at the rates at which such sensors speak.
//
// It promises the same samples for the same profile, name and seed on every
// machine, ordered by time, with payloads that carry a counter per topic, so
// that no two messages of a topic are equal and a verifier can tell them apart.
// It knows nothing of MQTT and keeps no clock: whoever asks decides when now is.
package signals

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"
)

// Sample is one value of one sensor.
type Sample struct {
	T       time.Duration // since the device was switched on
	Topic   string
	Payload []byte // valid until the next sample
}

// Device is a made-up device. It is not safe for concurrent use.
type Device struct {
	rng   *rand.Rand
	scale float64 // of the rates
	start int64   // ms since 1970 of T = 0
	queue schedule
	buf   []byte
	rate  float64
}

// sensor is one source of samples.
type sensor struct {
	topic  string
	period time.Duration
	wave   wave
	due    time.Duration
	n      uint64
	place  int // decides between sensors due at the same time
}

// Options choose a device.
type Options struct {
	// Profile is one of Profiles.
	Profile string
	// Name is the first level of every topic.
	Name string
	// Seed and Name decide every value.
	Seed uint64
	// Rate scales the profile to so many messages per second; 0: as it is.
	Rate float64
	// Start is the time of day at T = 0, for the timestamps in the payloads.
	Start time.Time
}

// Profiles lists what New can make.
var Profiles = []string{"car", "ship", "steady"}

// New makes a device.
func New(o Options) (*Device, error) {
	specs, err := profile(o.Profile)
	if err != nil {
		return nil, err
	}
	if !(o.Rate >= 0 && o.Rate <= 1e7) {
		return nil, fmt.Errorf("a rate of %v messages/s: use 0 for the profile's own, or up to 10,000,000", o.Rate)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(o.Name)) // never an error
	d := &Device{rng: rand.New(rand.NewPCG(o.Seed, h.Sum64())), scale: 1, start: o.Start.UnixMilli()}
	for _, s := range specs {
		d.rate += s.hertz
	}
	if o.Rate > 0 {
		d.scale, d.rate = o.Rate/d.rate, o.Rate
	}
	for i, s := range specs {
		period := max(time.Duration(float64(time.Second)/(s.hertz*d.scale)), 1)
		d.queue = append(d.queue, &sensor{
			topic: o.Name + "/" + s.name, period: period, wave: newWave(s.kind, d.rng), place: i,
			due: time.Duration(d.rng.Int64N(int64(period))), // sensors do not speak in unison
		})
	}
	heap.Init(&d.queue)
	return d, nil
}

// Sensors is how many sensors, and so topics, the device has.
func (d *Device) Sensors() int { return len(d.queue) }

// Rate is how many messages the device makes per second on average.
func (d *Device) Rate() float64 { return d.rate }

// Next gives the next sample; there always is one.
func (d *Device) Next() Sample {
	s := d.queue[0]
	t := s.due
	s.n++
	d.buf = append(d.buf[:0], `{"ts":`...)
	d.buf = strconv.AppendInt(d.buf, d.start+t.Milliseconds(), 10)
	d.buf = append(d.buf, `,"n":`...)
	d.buf = strconv.AppendUint(d.buf, s.n, 10)
	d.buf = append(d.buf, `,"value":`...)
	d.buf = append(s.wave.next(d.buf, d.rng, s.period), '}')
	s.due += s.period
	heap.Fix(&d.queue, 0)
	return Sample{t, s.topic, d.buf}
}

// schedule is a heap: the sensor that is due next is the first.
type schedule []*sensor

func (q schedule) Len() int { return len(q) }
func (q schedule) Less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].place < q[j].place
}
func (q schedule) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *schedule) Push(x any)   { *q = append(*q, x.(*sensor)) }
func (q *schedule) Pop() any     { return nil } // never used: sensors stay
