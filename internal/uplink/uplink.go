package uplink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Buffer is what the uplink needs of *buffer.Buffer, which says what each
// method promises.
type Buffer interface {
	Ready() <-chan struct{}
	Unsent(stream.Lane) buffer.Backlog
	Next(stream.Lane, buffer.Limit) (b stream.Batch, ok bool, err error)
	Requeue(id stream.ID, first uint64)
	RequeueAll()
	Settle(stream.ID, buffer.Answer) error
	GiveUp(stream.Epoch, stream.Reason) error
	Lose(stream.ID, stream.Range, stream.Reason) error
	Held() []stream.Held
}

// maxRedirects is how many hubs in a row may refer to another.
const maxRedirects = 2

// Uplink connects to hubs and sends what a buffer holds.
type Uplink struct {
	o       Options
	buf     Buffer
	targets []target
	bad     error // what is wrong with the options

	bytesIn, bytesOut atomic.Int64

	mu    sync.Mutex
	stats Stats // guarded by mu

	// Run's own.
	stalls   int                            // connections in a row that ended without a PUBACK
	poison   backoff                        // between quarantined messages
	rhythms  [len(stream.Lanes) + 1]*rhythm // of arrivals, by lane
	memory   memory                         // the codec's session, while there is no connection
	distrust backoff                        // how long rows are sent after the codec failed
	// distrusted is until when rows are sent because the codec failed.
	distrusted time.Time
	at         int // the next of targets
	retries    backoff
	via        *target // where the last hub referred to
	referred   int     // hubs in a row that referred to another
}

// New makes an uplink. Run reports what is wrong with o.
func New(buf Buffer, o Options) *Uplink {
	o = o.withDefaults()
	u := &Uplink{
		o: o, buf: buf, stats: Stats{State: Down, Since: time.Now()},
		poison:   backoff{min: time.Second, max: 5 * time.Minute},
		distrust: backoff{min: distrustMin, max: distrustMax},
		retries:  backoff{min: o.BackoffMin, max: o.BackoffMax},
	}
	for i := range u.rhythms {
		u.rhythms[i] = &rhythm{}
	}
	u.bad = stream.CheckDeviceID(o.Device)
	for _, text := range o.URLs {
		t, err := parseTarget(text)
		u.bad = errors.Join(u.bad, err)
		u.targets = append(u.targets, t)
	}
	if len(u.targets) == 0 {
		u.bad = errors.Join(u.bad, errors.New("no hub url"))
	}
	return u
}

// Run connects, sends and reconnects until ctx ends; then it waits up to 2 s
// for what is in flight and returns nil. It returns an error only when nothing
// can ever be sent: bad options, or a buffer that was closed. It may be called
// once.
func (u *Uplink) Run(ctx context.Context) error {
	if u.bad != nil {
		return fmt.Errorf("uplink: %w", u.bad)
	}
	defer u.become(Down, "")
	u.buf.RequeueAll()
	for ctx.Err() == nil {
		err := u.connection(ctx, u.target())
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, buffer.ErrClosed) {
			return fmt.Errorf("uplink: %w", err)
		}
		u.pause(ctx, u.plan(endingOf(err)))
	}
	return nil
}

// target is the hub to try now.
func (u *Uplink) target() target {
	if t := u.via; t != nil {
		u.via = nil
		return *t
	}
	return u.targets[u.at]
}

// connection is the life of one connection.
func (u *Uplink) connection(ctx context.Context, t target) error {
	u.become(Connecting, t.url)
	u.expire(time.Now()) // also where no hub is reached for days
	l, err := u.open(ctx, t)
	if err != nil {
		u.count(func(s *Stats) { s.ConnectFailures++ })
		return u.referral(t, err)
	}
	u.o.Logger.Info("hub connected", "hub", t.url, "log", l.welcome.log.String(), "window", l.welcome.window, "packet_bytes", l.welcome.packet,
		"codec", l.mode.String(), "resumed", l.encoder.Session() != nil)
	u.count(func(s *Stats) { s.Connects++ })
	u.become(Up, t.url)
	u.observe(l)
	began := time.Now()
	err = l.run(ctx)
	u.keep(l)
	u.buf.RequeueAll()
	u.count(func(s *Stats) {
		s.InFlightBatches, s.InFlightBytes = 0, 0
		for _, f := range l.flights {
			s.MessagesResent += int64(f.records)
		}
		if err != nil {
			s.ConnectionsLost++
		}
	})
	if l.settled || time.Since(began) > u.o.BackoffMax {
		u.retries.reset()
		u.referred = 0
	}
	return u.referral(t, err)
}

// referral notes where a hub referred to, if it did.
func (u *Uplink) referral(from target, err error) error {
	var e *ending
	if !errors.As(err, &e) || e.reference == "" {
		return err
	}
	to, bad := from.redirected(e.reference)
	if bad != nil {
		return bad
	}
	if u.referred++; u.referred > maxRedirects {
		u.referred = 0
		return &ending{what: fmt.Sprintf("hubs refer to each other, last %s to %s", from.url, to.url)}
	}
	u.via = &to
	u.count(func(s *Stats) { s.Redirects++ })
	return err
}

// plan says how long to wait before the next try.
func (u *Uplink) plan(e *ending) time.Duration {
	u.note(e.Error())
	switch {
	case u.via != nil:
		u.o.Logger.Info("hub refers to another", "to", u.via.url)
		return 0
	case e.retryAfter > 0: // the same hub again: it has counted on it
		return asked(e.retryAfter, chance())
	}
	u.at = (u.at + 1) % len(u.targets)
	if e.slow && len(u.targets) == 1 {
		return spread(u.o.BackoffMax, chance())
	}
	if u.at != 0 { // the next of the list; the back-off counts rounds
		return spread(u.o.BackoffMin, chance())
	}
	return u.retries.next(chance())
}

func (u *Uplink) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	u.become(Waiting, "")
	u.count(func(s *Stats) { s.RetryAt = time.Now().Add(d) })
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
