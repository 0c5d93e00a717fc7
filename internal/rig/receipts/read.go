package receipts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line: a topic has at most 65,535 bytes, six times that when
// escaped.
const maxLine = 1 << 20

// Reader reads a file of receipts, line by line. It is not safe for concurrent
// use.
type Reader struct {
	name string
	s    *bufio.Scanner
	n    int // lines read

	cur        Receipt
	run        int // runs begun
	format     int // of the last one
	open       bool
	sum        end // of the run that is open
	torn       error
	unfinished int
	err        error
}

// NewReader reads from r; name stands in errors.
func NewReader(r io.Reader, name string) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &Reader{name: name, s: s}
}

// Next goes to the next receipt and reports whether there is one.
func (r *Reader) Next() bool {
	for r.err == nil && r.s.Scan() {
		r.n++
		l, err := parse(r.s.Bytes(), r.format)
		switch {
		case r.torn != nil && (err != nil || l.Format == nil):
			return r.fail(r.torn) // only the last line of a run may be torn
		case err != nil:
			r.torn = fmt.Errorf("%s:%d: reading a receipt: %w", r.name, r.n, err)
			if r.run == 0 {
				return r.fail(r.torn)
			}
		case l.Format != nil:
			r.endRun(r.torn != nil)
			r.run++
			r.open, r.sum, r.format = true, end{}, *l.Format
		case !r.open:
			return r.fail(fmt.Errorf("%s:%d: a line outside of a run: not a file of receipts, or its head is missing", r.name, r.n))
		case l.End:
			if l.Messages != r.sum.Messages || l.Acknowledged != r.sum.Acknowledged {
				return r.fail(fmt.Errorf("%s:%d: the run ends with %d messages and %d acknowledged, %d and %d were read",
					r.name, r.n, l.Messages, l.Acknowledged, r.sum.Messages, r.sum.Acknowledged))
			}
			r.open = false
		default:
			r.cur = l.Receipt
			r.sum.Messages++
			if r.cur.Acked {
				r.sum.Acknowledged++
			}
			return true
		}
	}
	if r.err == nil {
		r.finish()
	}
	return false
}

func (r *Reader) fail(err error) bool {
	r.err = err
	return false
}

func (r *Reader) endRun(torn bool) {
	if r.open || torn {
		r.unfinished++
	}
	r.open, r.torn = false, nil
}

func (r *Reader) finish() {
	switch err := r.s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		r.err = fmt.Errorf("%s:%d: a line of more than %d bytes is no receipt", r.name, r.n+1, maxLine)
	case err != nil:
		r.err = fmt.Errorf("reading %s: %w", r.name, err)
	case r.run == 0:
		r.err = fmt.Errorf("%s: no receipts in it", r.name)
	}
	r.endRun(r.torn != nil)
}

// Receipt is the current one. Its slices are valid until Next is called.
func (r *Reader) Receipt() *Receipt { return &r.cur }

// Run is the number of the run that the current receipt belongs to, from 1.
func (r *Reader) Run() int { return r.run }

// Runs is how many runs were begun so far.
func (r *Reader) Runs() int { return r.run }

// Unfinished is how many runs were not closed, because their writer was
// killed: what it sent last stands in no receipt. Complete after the last Next.
func (r *Reader) Unfinished() int { return r.unfinished }

// Err is what ended the reading, nil at the end of the file.
func (r *Reader) Err() error { return r.err }
