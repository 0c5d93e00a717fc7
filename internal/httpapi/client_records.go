package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
)

// Read yields the records that match f, from the cursor on, with all their
// fields. It ends as commitlog.Reader says.
func (c *Client) Read(ctx context.Context, from commitlog.Cursor, f commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		for raw, err := range c.Lines(ctx, from, f, 0) {
			if err != nil {
				yield(commitlog.Stored{}, err)
				return
			}
			s, err := parseLine(raw)
			if err != nil {
				yield(commitlog.Stored{}, err)
				return
			}
			if !yield(*s, nil) {
				return
			}
		}
	}
}

// Lines yields the lines of /api/v1/records as they come, without their
// newline; a line is valid until the next. limit 0: all. An error comes last;
// one that the hub found while it was reading is a *Problem.
func (c *Client) Lines(ctx context.Context, from commitlog.Cursor, f commitlog.Filter, limit int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		res, err := c.get(ctx, "/api/v1/records", recordParameters(from, f, limit))
		if err != nil {
			yield(nil, err)
			return
		}
		defer res.Body.Close()
		quiet := time.AfterFunc(silence, func() {
			cancel(&UnreachableError{Hub: c.base.Redacted(), Err: fmt.Errorf("no sign of life for %s", silence)})
		})
		defer quiet.Stop()
		in := bufio.NewScanner(res.Body)
		in.Buffer(make([]byte, 64<<10), maxLine)
		in.Split(wholeLines)
		for in.Scan() {
			quiet.Reset(silence)
			line := in.Bytes()
			if len(line) == 0 {
				continue
			}
			if p := problemLine(line); p != nil {
				yield(nil, p)
				return
			}
			quiet.Stop() // the time that the caller takes is not the hub's
			if !yield(line, nil) {
				return
			}
			quiet.Reset(silence)
		}
		if err := in.Err(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			} else {
				err = &UnreachableError{Hub: c.base.Redacted(), Err: fmt.Errorf("the answer broke off: %w", err)}
			}
			yield(nil, err)
		}
	}
}

// wholeLines is bufio.ScanLines but for a last line without newline: the answer
// broke off in it, whatever ended it.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

func recordParameters(from commitlog.Cursor, f commitlog.Filter, limit int64) url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" && value != "0" && value != "false" {
			q.Set(name, value)
		}
	}
	set("device", f.Device)
	set("from", strconv.FormatInt(f.From, 10))
	set("to", strconv.FormatInt(f.To, 10))
	set("follow", strconv.FormatBool(f.Follow))
	set("limit", strconv.FormatInt(limit, 10))
	if f.Topic != "" {
		q.Set("topic", f.Topic)
	}
	if text := from.String(); text != "" {
		q.Set("cursor", text)
	}
	return q
}

var problemPrefix = []byte(`{"problem":`)

// problemLine gives the problem that a stream ends with, nil for a record.
func problemLine(line []byte) *Problem {
	if !bytes.HasPrefix(line, problemPrefix) {
		return nil
	}
	var l Line
	if json.Unmarshal(line, &l) != nil {
		return nil
	}
	return l.Problem
}

func parseLine(raw []byte) (*commitlog.Stored, error) {
	var l Line
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("reading a record line: %w", err)
	}
	return l.Stored()
}
