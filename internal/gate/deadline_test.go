package gate

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// scripted is a socket that gives what was sent before and notes deadlines.
type scripted struct {
	net.Conn
	in      bytes.Buffer
	out     bytes.Buffer
	writing []time.Time
}

func (s *scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *scripted) SetWriteDeadline(t time.Time) error {
	s.writing = append(s.writing, t)
	return nil
}

// A Pong is written within a time of its own; the caller's writes have theirs
// before and after it.
func TestPongLeavesTheDeadline(t *testing.T) {
	s := &scripted{}
	s.in.Write([]byte{0x89, 0x80, 1, 2, 3, 4}) // a Ping
	c := &wsConn{raw: s}
	mine := time.Now().Add(time.Hour)
	if err := c.SetWriteDeadline(mine); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(make([]byte, 100)) // ends with the script
	if !bytes.Equal(s.out.Bytes(), []byte{0x8a, 0}) {
		t.Errorf("answered %x", s.out.Bytes())
	}
	if n := len(s.writing); n != 3 || !s.writing[n-1].Equal(mine) || !s.writing[1].Before(mine) {
		t.Errorf("deadlines: %v", s.writing)
	}
}
