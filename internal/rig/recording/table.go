package recording

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const maxColumns = 10_000

// errTooLong ends the reading of an item without end.
var errTooLong = fmt.Errorf("a row or element of more than %d bytes", maxItem)

// budget lets through at most left bytes until it is filled again: parsers that
// collect an item in memory cannot collect more than that.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) fill() { b.left = maxItem }

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// table is a CSV being read.
type table struct {
	o           Options
	date, clock int // the columns that say when; -1: none
	names       []string
	topics      []string
	shift       float64 // seconds from the recorded time to that of the payloads
	payload     []byte
}

// csv reads a header and rows. Columns of time are the time, not messages; a
// row may be shorter than the header, a cell may be empty (then it is no
// message). A row whose time cannot be read has the time of the one before.
func (s *source) csv(o Options) error {
	in := &budget{r: s.r}
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.ReuseRecord = -1, true
	in.fill()
	head, err := r.Read()
	s.line = 1
	if err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return csvError(err)
	}
	if len(head) > maxColumns {
		return fmt.Errorf("%d columns; %d are the limit", len(head), maxColumns)
	}
	t := newTable(head, o)
	var at float64
	for row := 0; ; row++ {
		in.fill()
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.line++
			return csvError(err)
		}
		s.line, _ = r.FieldPos(0)
		if len(cells) > len(head) {
			return fmt.Errorf("%d cells under %d columns", len(cells), len(head))
		}
		now, err := rowTime(cells, t.date, t.clock, row)
		switch {
		case err == nil:
			at = now
		case row == 0:
			return err
		} // later a clock without a fix may say anything: the time stands still
		if row == 0 && !o.Start.IsZero() {
			t.shift = float64(o.Start.UnixMicro())/1e6 - at
		}
		if o.Layout == Rows {
			err = s.emit(at, "vehicle/row", t.row(at, cells))
		} else {
			err = s.cells(at, t, cells)
		}
		if err != nil {
			return err
		}
	}
}

func newTable(head []string, o Options) *table {
	t := &table{o: o, names: make([]string, len(head)), topics: make([]string, len(head))}
	t.date, t.clock = timeColumns(head)
	for i, name := range head {
		t.names[i] = strings.TrimPrefix(name, "\ufeff")
		t.topics[i] = columnTopic(t.names[i], i)
	}
	return t
}

// is reports whether a cell is a value that was measured.
func (t *table) is(i int, cell string) bool {
	if cell == "" || i != t.date && i != t.clock {
		return cell != ""
	}
	_, err := strconv.ParseFloat(cell, 64)
	return t.o.Clocks && err != nil
}

// cells sends a message for each cell of a row.
func (s *source) cells(at float64, t *table, cells []string) error {
	for i, cell := range cells {
		if !t.is(i, cell) {
			continue
		}
		payload := []byte(cell)
		if t.o.Layout == Signals {
			payload = AppendSignal(make([]byte, 0, len(cell)+40), milliseconds(at+t.shift), cell)
		}
		if err := s.emit(at, t.topics[i], payload); err != nil {
			return err
		}
	}
	return nil
}

// row gives the payload of a whole row.
func (t *table) row(at float64, cells []string) []byte {
	p := strconv.AppendInt(append(t.payload[:0], `{"ts":`...), milliseconds(at+t.shift), 10)
	for i, cell := range cells {
		if t.is(i, cell) {
			p = append(appendString(append(p, ','), t.names[i]), ':')
			p = appendValue(p, cell)
		}
	}
	t.payload = append(p, '}')
	return slices.Clone(t.payload)
}

func milliseconds(at float64) int64 { return int64(math.Floor(at*1000 + 0.5)) }

// AppendSignal appends the payload of one signal, {"ts":ms,"value":cell}.
func AppendSignal(dst []byte, ms int64, cell string) []byte {
	dst = strconv.AppendInt(append(dst, `{"ts":`...), ms, 10)
	return append(appendValue(append(dst, `,"value":`...), cell), '}')
}

// appendValue writes a cell as printed where that is JSON, else as a string.
func appendValue(dst []byte, cell string) []byte {
	if json.Valid([]byte(cell)) {
		return append(dst, cell...)
	}
	return appendString(dst, cell)
}

func appendString(dst []byte, text string) []byte {
	q, err := json.Marshal(text)
	if err != nil { // never: a string always has a form
		q = []byte(`null`)
	}
	return append(dst, q...)
}

// csvError keeps the reason; file and line are added by Read.
func csvError(err error) error {
	if errors.Is(err, errTooLong) {
		return errTooLong
	}
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("column %d: %w", parse.Column, parse.Err)
	}
	return err
}

// timeColumns finds the columns that say when; -1: none.
func timeColumns(head []string) (date, clock int) {
	find := func(names ...string) int {
		return slices.IndexFunc(head, func(h string) bool {
			h = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))
			h, _, _ = strings.Cut(h, " (")
			return slices.Contains(names, h)
		})
	}
	date = find("date")
	if clock = find("timestamp", "datetime", "date_time", "ts"); clock >= 0 {
		return -1, clock
	}
	if clock = find("time", "t", "seconds"); clock < 0 {
		return -1, date
	}
	return date, clock
}

// rowTime is one second per row where nothing says when.
func rowTime(cells []string, date, clock, row int) (float64, error) {
	text := ""
	if date >= 0 && date < len(cells) {
		text = cells[date] + " "
	}
	switch {
	case clock < 0:
		return float64(row), nil
	case clock >= len(cells):
		return 0, errors.New("the row ends before its time")
	}
	text += cells[clock]
	at, ok := parseTime(text)
	if !ok {
		return 0, fmt.Errorf("%.40q is not a time", text)
	}
	return at, nil
}

func columnTopic(name string, i int) string {
	name = topicPart(name)
	if name == "" {
		name = "column" + strconv.Itoa(i+1)
	}
	const most = maxTopic - len("vehicle/")
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "")
	}
	return "vehicle/" + name
}
