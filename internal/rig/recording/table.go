package recording

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// csv reads a header and rows. Columns of time are the time, not messages; a
// row may be shorter than the header, a cell may be empty (then it is no
// message). A row whose time cannot be read has the time of the one before.
func (s *source) csv(bare bool) error {
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
	date, clock := timeColumns(head)
	topics := make([]string, len(head))
	for i, name := range head {
		if i != date && i != clock {
			topics[i] = columnTopic(strings.TrimPrefix(name, "\ufeff"), i)
		}
	}
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
		now, err := rowTime(cells, date, clock, row)
		switch {
		case err == nil:
			at = now
		case row == 0:
			return err
		} // later a clock without a fix may say anything: the time stands still
		if err := s.row(at, topics, cells, bare); err != nil {
			return err
		}
	}
}

func (s *source) row(at float64, topics, cells []string, bare bool) error {
	for i, cell := range cells {
		if topics[i] == "" || cell == "" {
			continue
		}
		payload := []byte(cell)
		if !bare {
			payload = append([]byte(`{"ts":`), strconv.FormatInt(int64(at*1000+0.5), 10)...)
			payload = append(payload, `,"value":`...)
			payload = append(appendValue(payload, cell), '}')
		}
		if err := s.emit(at, topics[i], payload); err != nil {
			return err
		}
	}
	return nil
}

// appendValue writes a cell as printed where that is JSON, else as a string.
func appendValue(dst []byte, cell string) []byte {
	if json.Valid([]byte(cell)) {
		return append(dst, cell...)
	}
	q, err := json.Marshal(cell)
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
