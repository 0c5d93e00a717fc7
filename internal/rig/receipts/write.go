package receipts

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// flushEvery bounds how old the receipts are that a killed writer takes along.
const flushEvery = time.Second

// Writer appends receipts to a file. It is safe for concurrent use. One file
// has one writer at a time.
type Writer struct {
	mu      sync.Mutex
	f       *os.File      // guarded by mu, as all below
	w       *bufio.Writer // never holds part of a line when it is flushed
	buf     []byte
	flushed time.Time
	sum     end
	err     error // the first; nothing is written after it
}

// Append opens the file at path, made where it is missing, and begins a run in
// it. What other runs wrote there stays.
func Append(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the receipts: %w", err)
	}
	w := &Writer{f: f, w: bufio.NewWriterSize(f, 256<<10), flushed: time.Now(), sum: end{End: true}}
	if err := w.begin(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("beginning a run in %s: %w", path, err)
	}
	return w, nil
}

// begin refuses a file of something else, ends a line that a killed writer
// left open, and writes the header.
func (w *Writer) begin() error {
	size, err := w.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size > 0 {
		if r := NewReader(io.NewSectionReader(w.f, 0, min(size, maxLine)), w.f.Name()); !r.Next() && r.Err() != nil && r.Runs() == 0 {
			return fmt.Errorf("the file holds something else: %w", r.Err())
		}
		var last [1]byte
		if _, err := w.f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			w.buf = append(w.buf, '\n')
		}
	}
	b, err := json.Marshal(header{Version, time.Now().UTC().Format(time.RFC3339Nano)})
	if err != nil {
		return err
	}
	w.buf = append(append(w.buf, b...), '\n')
	_, err = w.w.Write(w.buf)
	return errors.Join(err, w.w.Flush())
}

// Add notes one receipt. An error says that this one or an earlier one could
// not be written; the file is then worth nothing as a proof.
func (w *Writer) Add(r *Receipt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if err := r.check(); err != nil {
		w.err = err
		return err
	}
	w.buf = appendLine(w.buf[:0], r)
	if w.w.Available() < len(w.buf) || time.Since(w.flushed) > flushEvery {
		w.flush()
	}
	if _, err := w.w.Write(w.buf); err != nil && w.err == nil {
		w.err = fmt.Errorf("writing a receipt: %w", err)
	}
	w.sum.Messages++
	if r.Acked {
		w.sum.Acknowledged++
	}
	return w.err
}

func (w *Writer) flush() {
	if err := w.w.Flush(); err != nil && w.err == nil {
		w.err = fmt.Errorf("writing receipts: %w", err)
	}
	w.flushed = time.Now()
}

// Flush hands everything to the operating system.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
	return w.err
}

// Close ends the run, makes the file durable and closes it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		b, err := json.Marshal(w.sum)
		if err == nil {
			_, err = w.w.Write(append(b, '\n'))
		}
		w.err = err
	}
	w.flush()
	err := errors.Join(w.err, w.f.Sync(), w.f.Close())
	if w.err == nil {
		w.err = os.ErrClosed
	}
	return err
}

// appendLine writes what json.Marshal would, without its cost.
func appendLine(b []byte, r *Receipt) []byte {
	b = append(b, `{"client":`...)
	b = appendString(b, r.Client)
	b = append(b, `,"topic":`...)
	b = appendString(b, r.Topic)
	b = append(b, `,"n":`...)
	b = strconv.AppendUint(b, r.N, 10)
	b = append(b, `,"hash":"`...)
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[r.Hash>>shift&15])
	}
	b = append(b, `","qos":`...)
	b = strconv.AppendUint(b, uint64(r.QoS), 10)
	b = append(b, `,"tries":`...)
	b = strconv.AppendInt(b, int64(r.Tries), 10)
	b = append(b, `,"acked":`...)
	b = strconv.AppendBool(b, r.Acked)
	b = appendNumbers(append(b, `,"sent":`...), r.Sent)
	if len(r.Sessions) > 0 {
		b = appendNumbers(append(b, `,"sessions":`...), r.Sessions)
	}
	return append(b, "}\n"...)
}

func appendNumbers(b []byte, numbers []uint32) []byte {
	b = append(b, '[')
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			q, err := json.Marshal(s)
			if err != nil { // never: a string always has a form
				q = []byte(`""`)
			}
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
