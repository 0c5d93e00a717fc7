package ingest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Ingest serves the devices of a log's shards. Its methods may be called from
// any goroutine.
type Ingest struct {
	log     commitlog.Log
	o       Options
	shards  []*shard
	devices registry
	budget  budget
	spread  spreader
	stats   counters

	keeper keeper

	// newDecoder makes the decoder of a connection, with what may be kept of its
	// codec session and, unless nil, a session that goes on.
	newDecoder func(state int, session learned) decoder
	// decoding holds a token for each batch that is being decoded: until it is,
	// nobody knows how much memory it takes.
	decoding chan struct{}

	incarnation struct {
		sync.Mutex           // held while the log takes a new incarnation
		last       time.Time // guarded by the mutex; zero: never
	}
}

// decoder is the receiving half of a connection's codec session: it is given
// every batch, in order, also those that are then refused.
type decoder interface {
	Decode(packet []byte, device string) (stream.Batch, error)
	// Session is what was learned; nil if nothing is, or it is out of step.
	Session() learned
	// StateBytes is what it takes.
	StateBytes() int
}

// linkDecoder is the decoder of the link protocol.
type linkDecoder struct{ *wire.Decoder }

func (d linkDecoder) Session() learned {
	if s := d.Decoder.Session(); s != nil {
		return s
	}
	return nil
}

// New makes an Ingest over a log, which stays the caller's to close, after Run
// has returned. Until Run runs every device is told to come again.
func New(log commitlog.Log, o Options) *Ingest {
	o = o.withDefaults()
	in := &Ingest{
		log:    log,
		o:      o,
		budget: budget{windows: o.WindowBytes, pending: o.PendingBytes},
		spread: spreader{gap: time.Second / time.Duration(o.ComeBack)},

		decoding: make(chan struct{}, runtime.GOMAXPROCS(0)),
		newDecoder: func(state int, session learned) decoder {
			d, _ := session.(*codec.Decoder)
			return linkDecoder{wire.NewDecoder(wire.DecoderOptions{
				MaxRecords: min(wire.MaxRecords, o.GroupRecords),
				MaxBytes:   o.GroupBytes,
				State:      state,
				Session:    d,
			})}
		},
	}
	in.keeper.init(o.codec())
	in.devices.init(o.MaxIdle)
	in.shards = make([]*shard, log.Shards())
	for i := range in.shards {
		in.shards[i] = newShard(in, i)
	}
	return in
}

// Run acquires every shard of the log and commits what is submitted, until ctx
// ends; a shard whose ownership is lost is acquired again. When ctx ends, new
// batches are refused, what was admitted is committed (for at most
// Options.StopGrace), sessions are revoked, shards released, and Run returns
// nil. It returns an error when the log has been closed under it. It may be
// called once.
func (in *Ingest) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(in.shards))
	var wg sync.WaitGroup
	for i, sh := range in.shards {
		wg.Go(func() {
			if errs[i] = sh.run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Go(func() { in.keeper.sweep(ctx) })
	wg.Wait()
	in.keeper.clear()
	return errors.Join(errs...)
}

// Ready is nil while every shard is served; else it says which is not.
func (in *Ingest) Ready() error {
	served, missing := 0, -1
	for _, sh := range in.shards {
		if sh.ownership() != nil {
			served++
		} else if missing < 0 {
			missing = sh.n
		}
	}
	if missing >= 0 {
		return fmt.Errorf("%d of %d shards are served; shard %d is not", served, len(in.shards), missing)
	}
	return nil
}

func (in *Ingest) busy(r BusyReason) *BusyError {
	in.stats.busy[r].Add(1)
	return &BusyError{Reason: r, RetryAfter: in.spread.after(time.Now())}
}

// restored gives the log a new incarnation, because a device has shown that it
// went back. All owners are fenced by that, so every session ends and every
// shard is acquired again. It reports false, and does nothing, when a device's
// word has already done that a short time ago: then the device is served as it
// is, and what is missing is declared for it alone.
func (in *Ingest) restored(ctx context.Context, own *ownership, device string) bool {
	in.incarnation.Lock()
	defer in.incarnation.Unlock()
	if in.log.ID() != own.id {
		in.reacquire() // it has one; another device saw it too
		return true
	}
	now := time.Now()
	if last := in.incarnation.last; !last.IsZero() && now.Sub(last) < incarnationGap {
		return false
	}
	id, err := in.log.NewIncarnation(ctx)
	if err != nil {
		in.o.Logger.Error("log went back, and taking a new incarnation did not succeed", "device", device, "error", err)
		return true
	}
	in.incarnation.last = now
	in.stats.incarnations.Add(1)
	in.o.Logger.Warn("log went back to an earlier state; it has a new incarnation", "device", device, "log", id.String())
	in.reacquire()
	return true
}

// reacquire has every shard acquired again that was so under another incarnation.
func (in *Ingest) reacquire() {
	for _, sh := range in.shards {
		sh.reacquire()
	}
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
