package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// lineCounter knows in which line an offset lies, while a decoder reads ahead.
type lineCounter struct {
	r     io.Reader
	read  int64
	lines int     // newlines before every offset asked for so far
	ahead []int64 // offsets of the newlines after that
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.ahead = append(c.ahead, c.read+int64(i))
		}
	}
	c.read += int64(n)
	return n, err
}

// line gives the line of an offset, counted from 1. Offsets must not decrease.
func (c *lineCounter) line(offset int64) int {
	for len(c.ahead) > 0 && c.ahead[0] < offset {
		c.ahead = c.ahead[1:]
		c.lines++
	}
	return c.lines + 1
}

// json reads an array of objects. Each is a payload as it stands, to the topic
// iot/<device>.
func (s *source) json() error {
	in := &budget{r: s.r}
	in.fill()
	count := &lineCounter{r: in}
	d := json.NewDecoder(count)
	s.line = 1
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("not a JSON array"), jsonError(err))
	}
	for {
		in.fill()
		if !d.More() {
			break
		}
		var raw json.RawMessage
		err := d.Decode(&raw)
		s.line = count.line(d.InputOffset())
		if err != nil {
			return jsonError(err)
		}
		if err := s.element(raw); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		s.line = count.line(d.InputOffset())
		return jsonError(err)
	}
	return nil
}

func (s *source) element(raw json.RawMessage) error {
	var e struct {
		Device   any `json:"device"`
		DeviceID any `json:"device_id"`
		TS       any `json:"ts"`
		Time     any `json:"timestamp"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("an element that is no object: %w", err)
	}
	device := e.Device
	if device == nil {
		device = e.DeviceID
	}
	if device == nil {
		return errors.New(`an element without "device"`)
	}
	at := e.TS
	if at == nil {
		at = e.Time
	}
	seconds, ok := parseTime(fmt.Sprint(at))
	if !ok {
		seconds = float64(s.n) // one per second where nothing says when
	}
	return s.emit(seconds, "iot/"+topicPart(fmt.Sprint(device)), bytes.Clone(raw))
}

func jsonError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooLong):
		return errTooLong
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file ends inside of the array")
	}
	return err
}
