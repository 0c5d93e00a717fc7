package mqttfront

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	fanBytes = 8 << 20 // messages on their way to local subscribers, with fanCost each
	fanCost  = 256
)

// fanOut gives settled messages to local subscribers, on one goroutine, in the
// order in which each client published, and looks after what waits for them. It
// never slows a publisher down: when it lags behind it drops and counts.
type fanOut struct {
	f *Front
	l *local
	d distributor // fan-out goroutine

	bytes atomic.Int64 // in queue
	wake  chan struct{}

	mu    sync.Mutex
	queue []fanItem // guarded by mu
}

type fanItem struct {
	origin string // client id
	pub    Publish
	kept   *letter // what is retained by it, nil if nothing
	number uint64  // among those offered
}

func newFanOut(f *Front) *fanOut {
	o := &fanOut{f: f, l: f.local, wake: make(chan struct{}, 1)}
	o.d.l = f.local
	return o
}

func (i *fanItem) size() int64 {
	return fanCost + int64(len(i.pub.Topic)+len(i.pub.Payload)+propertiesSize(i.pub.Properties))
}

// change is the number of the change of a retained message, 0 if there is none.
func (i *fanItem) change() uint64 {
	if i.kept == nil {
		return 0
	}
	return i.kept.seq
}

// wants reports whether a settled message is worth an offer: it is retained, or
// somebody has subscribed to something.
func (o *fanOut) wants(p *Publish) bool { return p.Retain || o.l.topics.count.Load() > 0 }

// offer takes a settled message of the client named origin. It never blocks.
// p's payload and properties are not to change any more. Who subscribes after it
// has returned, and so after the acknowledgement, does not get p as a new message.
func (o *fanOut) offer(origin string, p *Publish) {
	item := fanItem{origin: origin, pub: *p}
	if p.Retain {
		var wrong bool
		if item.kept, wrong = o.l.kept.settled(p); wrong {
			o.l.correct(p.Topic)
		}
	}
	if o.l.topics.count.Load() == 0 {
		o.f.n.fanOut.Add(1)
		return
	}
	item.pub.Save = nil
	item.number = o.l.topics.offered.Add(1)
	size := item.size()
	if o.bytes.Add(size) > fanBytes {
		o.bytes.Add(-size)
		o.l.dropped("queue_full", limitFanOutQueue)
		return
	}
	o.mu.Lock()
	o.queue = append(o.queue, item)
	first := len(o.queue) == 1
	o.mu.Unlock()
	if first {
		o.kick()
	}
}

// refuse is called instead of offer for a message with Retain that goes to no
// local subscriber. saved says that the Store may nevertheless have got
// what retainChange gave: it was withheld, or settled with NoFanOut.
func (o *fanOut) refuse(p *Publish, saved bool) {
	if o.l.kept.failed(p, saved) {
		o.l.correct(p.Topic)
	}
}

func (o *fanOut) kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends. Then it delivers what was offered before, and
// saves what waits for stored sessions.
func (o *fanOut) run(ctx context.Context) {
	tick := time.NewTicker(saveTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for o.deliver() {
			}
			o.d.giveAgain()
			o.l.saveAll()
			return
		case <-tick.C:
			if !o.l.noTicks.Load() {
				o.l.keep()
			}
		case <-o.l.returns:
			o.d.giveAgain()
		case <-o.wake:
			if o.deliver() {
				o.kick()
			}
		}
	}
}

// deliver distributes what is in the queue; more says that there may be more now.
func (o *fanOut) deliver() (more bool) {
	o.mu.Lock()
	list := o.queue
	o.queue = nil
	o.mu.Unlock()
	for i := range list {
		item := &list[i]
		o.d.distribute(item)
		o.f.n.fanOut.Add(1)
		o.bytes.Add(-item.size())
		*item = fanItem{}
	}
	return len(list) > 0
}

// keep does what is due at each tick.
func (l *local) keep() {
	tick := l.tick.Add(1)
	l.saver.save(l, tick, false, nil)
	l.relieve()
	if tick%10 != 0 {
		return
	}
	now := l.now()
	l.kept.expire(now, func(topic string) { l.saveRetained(topic, nil) })
	for _, s := range l.all() {
		s.mu.Lock()
		s.out.expire(now)
		s.mu.Unlock()
	}
}

// saveAll writes what waits, and waits for that, but not for ever.
func (l *local) saveAll() {
	if l.store == nil {
		return
	}
	for _, s := range l.all() {
		s.mu.Lock()
		s.out.saving.dirty = false
		s.out.unsaved()
		s.mu.Unlock()
	}
	var open atomic.Int64
	some := make(chan struct{}, 1)
	l.saver.save(l, l.tick.Load(), true, func() func(error) {
		open.Add(1)
		return func(error) {
			open.Add(-1)
			select {
			case some <- struct{}{}:
			default:
			}
		}
	})
	timer := time.NewTimer(10 * l.f.o.drain)
	defer timer.Stop()
	for open.Load() > 0 {
		select {
		case <-some:
		case <-timer.C:
			l.f.log.Warn("what waits for local subscribers is not saved yet")
			return
		}
	}
}

// propertiesSize is the memory that p takes, roughly.
func propertiesSize(p *stream.Properties) int {
	if p == nil {
		return 0
	}
	n := len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
	for _, u := range p.User {
		n += len(u.Key) + len(u.Value) + userCost
	}
	return n
}
