package buffer

import (
	"context"

	"github.com/packetboat/packetboat/pkg/stream"
)

type Buffer struct{}

func Open(Options) (*Buffer, error)            { panic("todo") }
func (b *Buffer) Run(ctx context.Context) error { panic("todo") }
func (b *Buffer) Close() error                  { panic("todo") }
func (b *Buffer) Append(lane stream.Lane, msgs []stream.Message, done func(first stream.Position, err error)) error {
	panic("todo")
}
func (b *Buffer) Ready() <-chan struct{}                                        { panic("todo") }
func (b *Buffer) Unsent(lane stream.Lane) Backlog                               { panic("todo") }
func (b *Buffer) Next(lane stream.Lane, limit Limit) (stream.Batch, bool, error) { panic("todo") }
func (b *Buffer) Requeue(id stream.ID, first uint64)                            {}
func (b *Buffer) RequeueAll()                                                   {}
func (b *Buffer) Settle(id stream.ID, a Answer) error                           { panic("todo") }
func (b *Buffer) GiveUp(e stream.Epoch, reason stream.Reason) error             { panic("todo") }
func (b *Buffer) Held() []stream.Held                                           { panic("todo") }
func (b *Buffer) Losses() []LedgerEntry                                         { panic("todo") }
func (b *Buffer) Stats() Stats                                                  { panic("todo") }
