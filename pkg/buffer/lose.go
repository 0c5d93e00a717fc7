package buffer

import (
	"fmt"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Lose gives up numbers of a stream that no log will ever take: those of r that
// are stored and not settled become losses that Next hands out to be declared.
// They are no longer in flight. Numbers that are settled, lost or above the
// head, and unknown epochs, are passed over. The state is journalled within
// LazySync; a crash before that brings the messages back, to be given up again.
func (b *Buffer) Lose(id stream.ID, r stream.Range, reason stream.Reason) error {
	if !reason.Valid() || !id.Lane.Valid() {
		return fmt.Errorf("lose %s of %s: not a reason or not a lane: %d", r, id, reason)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("lose %s of %s: %w", r, id, ErrClosed)
	}
	l := b.state.stream(id.Epoch, id.Lane)
	if l == nil {
		return nil
	}
	r.Last = min(r.Last, l.head)
	gone := stream.Collect(l.done.Missing(r))
	if gone.IsEmpty() {
		return nil
	}
	for _, g := range gone.Ranges() {
		loss := stream.Loss{Range: g, Reason: reason}
		if seg := b.segs.holds(id.Epoch, id.Lane, g.First); seg != nil {
			h := seg.holding(id.Epoch, id.Lane)
			loss.From, loss.To = h.from, h.to
		}
		b.state.lose(id.Epoch, id.Lane, loss)
		b.ops.lose(id.Epoch, id.Lane, loss)
		l.inflight.Remove(g)
	}
	b.state.landed(l, id.Lane)
	token(b.lazy)
	token(b.ready)
	return nil
}
