package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// subscriber takes messages as fast as they come, and acknowledges those of
// QoS 1. It speaks MQTT 3.1.1.
type subscriber struct {
	conn net.Conn
	r    *bufio.Reader
	got  atomic.Int64
}

// subscribe connects and waits until the subscription stands.
func subscribe(broker, id, filter string, qos byte) (*subscriber, error) {
	conn, err := net.DialTimeout("tcp", broker, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connecting a subscriber: %w", err)
	}
	s := &subscriber{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	hello := []byte{0x10, byte(12 + len(id)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(id))} // clean, no keep-alive
	hello = append(hello, id...)
	ask := []byte{0x82, byte(5 + len(filter)), 0, 1, 0, byte(len(filter))}
	ask = append(append(ask, filter...), qos)
	if _, err = conn.Write(append(hello, ask...)); err == nil { // both at once [MQTT-3.1.4-5]
		err = s.answers()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribing to %s: %w", filter, err), conn.Close())
	}
	return s, nil
}

// answers reads CONNACK and SUBACK.
func (s *subscriber) answers() error {
	answer := make([]byte, 9)
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.r, answer); err != nil {
		return err
	}
	if answer[0] != 0x20 || answer[3] != 0 || answer[4] != 0x90 || answer[8] > 2 {
		return fmt.Errorf("the broker answers % x", answer)
	}
	return s.conn.SetReadDeadline(time.Time{})
}

// run takes messages until ctx ends or the connection does.
func (s *subscriber) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	defer s.conn.Close()
	w := bufio.NewWriterSize(s.conn, 16<<10)
	for {
		first, err := s.r.ReadByte()
		if err != nil {
			return
		}
		size, err := binary.ReadUvarint(s.r)
		if err != nil {
			return
		}
		if first&0xF0 == 0x30 {
			s.got.Add(1)
			if size, err = s.acknowledge(w, first, size); err != nil {
				return
			}
		}
		if _, err := s.r.Discard(int(size)); err != nil {
			return
		}
		if s.r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// awaitSilence returns when nothing has come for a while.
func (s *subscriber) awaitSilence() {
	for last := int64(-1); last != s.got.Load(); time.Sleep(200 * time.Millisecond) {
		last = s.got.Load()
	}
}

// acknowledge reads a PUBLISH up to its packet id, and gives what is left of it.
func (s *subscriber) acknowledge(w io.Writer, first byte, size uint64) (uint64, error) {
	if first&6 == 0 {
		return size, nil
	}
	var two [2]byte
	if _, err := io.ReadFull(s.r, two[:]); err != nil {
		return 0, err
	}
	topic := int(binary.BigEndian.Uint16(two[:]))
	if _, err := s.r.Discard(topic); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s.r, two[:]); err != nil {
		return 0, err
	}
	_, err := w.Write([]byte{0x40, 2, two[0], two[1]})
	return size - uint64(topic) - 4, err
}
