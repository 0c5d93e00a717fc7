package httpapi

import (
	"net/http"
	"sync"
	"time"
)

const (
	// flushAfter is how long a line may wait for company before it is sent.
	flushAfter = 50 * time.Millisecond
	// flushBytes is sent at once.
	flushBytes = 64 << 10
)

// lineWriter writes lines to a response: many at once under load, and none later
// than flushAfter when they come one by one. A write that makes no progress
// within patience fails, and so does every later one.
//
// Its methods may be called from one goroutine; Close must be called before the
// handler returns, and nothing writes to the response after it.
type lineWriter struct {
	rc       *http.ResponseController
	w        http.ResponseWriter
	patience time.Duration
	timer    *time.Timer
	alive    *time.Timer
	every    time.Duration

	mu     sync.Mutex
	buf    []byte // guarded by mu
	err    error  // guarded by mu; sticky
	closed bool   // guarded by mu
}

// newLineWriter makes one that writes an empty line whenever nothing else was
// written for the time every.
func newLineWriter(w http.ResponseWriter, patience, every time.Duration) *lineWriter {
	s := &lineWriter{rc: http.NewResponseController(w), w: w, patience: patience, every: every}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(time.Hour, s.flushTimer)
	s.timer.Stop()
	s.alive = time.AfterFunc(every, s.heartbeat)
	return s
}

// Append hands the buffer to add, which appends a line to it.
func (s *lineWriter) Append(add func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	before := len(s.buf)
	s.buf = add(s.buf)
	switch {
	case len(s.buf) >= flushBytes:
		s.flush()
	case before == 0:
		s.timer.Reset(flushAfter)
	}
	return s.err
}

// Close sends what is left.
func (s *lineWriter) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.timer.Stop()
	s.alive.Stop()
	s.flush()
	return s.err
}

func (s *lineWriter) flushTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.flush()
	}
}

// heartbeat makes a dead reader show itself, and a living one know that the
// silence is the log's.
func (s *lineWriter) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return
	}
	if len(s.buf) == 0 {
		s.buf = append(s.buf, '\n')
	}
	s.flush()
}

// flush is called with mu held.
func (s *lineWriter) flush() {
	s.timer.Stop()
	if !s.closed {
		s.alive.Reset(s.every)
	}
	if s.err != nil || len(s.buf) == 0 {
		return
	}
	// A recorder in a test knows no deadlines; a real connection does.
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.patience))
	if _, s.err = s.w.Write(s.buf); s.err == nil {
		s.err = s.rc.Flush()
	}
	s.buf = s.buf[:0]
}
