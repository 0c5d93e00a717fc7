package buffer

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

func message(i int) stream.Message {
	return stream.Message{Topic: fmt.Sprintf("t/%d", i%7), Payload: fmt.Appendf(nil, "payload %d", i), Time: 1_700_000_000_000_000 + int64(i)*1000, Quality: stream.TimeLocal, QoS: 1}
}

// started opens a buffer on a real directory and runs it until the test ends or
// stop is called.
func started(t testing.TB, o Options) (b *Buffer, stop func()) {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return b, runUntil(t, b)
}

func runUntil(t testing.TB, b *Buffer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// put appends messages and waits for the callback.
func put(t testing.TB, b *Buffer, lane stream.Lane, msgs ...stream.Message) stream.Position {
	t.Helper()
	at, err := tryPut(b, lane, msgs...)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func tryPut(b *Buffer, lane stream.Lane, msgs ...stream.Message) (stream.Position, error) {
	type outcome struct {
		at  stream.Position
		err error
	}
	done := make(chan outcome, 1)
	if err := b.Append(lane, msgs, func(first stream.Position, err error) { done <- outcome{first, err} }); err != nil {
		return stream.Position{}, err
	}
	o := <-done
	return o.at, o.err
}

func next(t testing.TB, b *Buffer, lane stream.Lane, limit Limit) (stream.Batch, bool) {
	t.Helper()
	batch, ok, err := b.Next(lane, limit)
	if err != nil {
		t.Fatal(err)
	}
	return batch, ok
}

func settled(b *stream.Batch) Answer {
	var a Answer
	if len(b.Records) > 0 {
		a.Settled.Add(stream.Range{First: b.First, Last: b.Last()})
	}
	for _, l := range b.Losses {
		a.Settled.Add(l.Range)
		a.Lost.Add(l.Range)
	}
	a.By = testLog
	return a
}

var testLog = stream.LogID{Name: stream.Epoch{1}, Incarnation: stream.Epoch{2}}

// commitEntries writes entries and waits until they are synced.
func commitEntries(t testing.TB, b *Buffer, entries ...Entry) {
	t.Helper()
	if err := tryEntries(b, entries...); err != nil {
		t.Fatal(err)
	}
}

func tryEntries(b *Buffer, entries ...Entry) error {
	done := make(chan error, 1)
	if err := b.Commit(Write{State: entries}, func(_ stream.Position, err error) { done <- err }); err != nil {
		return err
	}
	b.mu.Lock()
	running := b.running
	b.mu.Unlock()
	if !running {
		_ = b.commit(true)
		b.makeRoom()
	}
	return <-done
}
