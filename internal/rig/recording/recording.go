// Package recording reads recorded telemetry as a sequence of MQTT messages:
// CSV, candump, NMEA 0183, NMEA 2000 as text, JSON arrays of payloads, and a
// neutral NDJSON form.
//
// It promises bounded memory whatever the file's size and content, payloads as
// they stand in the recording, times that never go back, and errors that name
// file and line. It does not check what a sensor said: a sentence with a wrong
// checksum was on the bus, so it is replayed.
package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is one message of a recording.
type Message struct {
	// T is when it was recorded, from the first message on; it never decreases.
	T       time.Duration
	Topic   string
	Payload []byte // the receiver's to keep
}

// Format is a recording's format.
type Format string

// The formats.
const (
	CSV      Format = "csv"      // header and rows: one message per cell
	Candump  Format = "candump"  // candump -L
	NMEA0183 Format = "nmea0183" // one sentence per line, without time
	N2K      Format = "n2k"      // time,priority,PGN,source,destination,length,bytes
	JSON     Format = "json"     // an array of payloads that name their device
	NDJSON   Format = "ndjson"   // {"t":seconds,"topic":"...","payload":"..."} per line
)

// Layout is how a row of a CSV becomes messages.
type Layout int

// The layouts.
const (
	Signals Layout = iota // a message per cell: {"ts":ms,"value":cell}
	Bare                  // a message per cell: the cell
	Rows                  // a message per row, to vehicle/row: {"ts":ms,"column":cell,…}
)

// Options change how a CSV becomes messages.
type Options struct {
	Layout Layout
	// Start, if not zero, is when the first row was recorded: ts counts from it.
	Start time.Time
	// Clocks makes cells of dates and times of day, which are text, messages as
	// well; seconds as a number never are.
	Clocks bool
}

const (
	maxItem  = 1 << 20 // bytes of a line, row or array element
	maxTopic = 1024
	headSize = 4096
	// sentencesPerSecond paces NMEA 0183, which records no time.
	sentencesPerSecond = 7.8
)

// Error says what is wrong in which line of a recording.
type Error struct {
	File string
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// ErrUnknown says that a file is in none of the formats.
var ErrUnknown = errors.New("not a recording of a known format: csv, candump -L, NMEA 0183, NMEA 2000 text, a JSON array or NDJSON")

var (
	n2kLine     = regexp.MustCompile(`^\d{4}-\d\d-\d\d[T-]\d\d:\d\d:\d\d(\.\d+)?Z?,\d+,\d+,\d+,\d+,\d+(,|$)`)
	candumpLine = regexp.MustCompile(`^\(\d+\.\d+\) \S+ [0-9A-Fa-f]+#`)
	nmeaLine    = regexp.MustCompile(`^(\\[^\\]*\\)?[$!][A-Za-z0-9]{3,},`)
)

// Recognise tells the format from the first bytes of a file, and from its name
// where these leave it open.
func Recognise(name string, head []byte) (Format, error) {
	head = bytes.TrimPrefix(head, []byte("\ufeff"))
	head = bytes.TrimLeft(head, " \t\r\n")
	line, _, _ := bytes.Cut(head, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	ext := strings.ToLower(filepath.Ext(name))
	switch {
	case n2kLine.Match(line):
		return N2K, nil
	case candumpLine.Match(line):
		return Candump, nil
	case nmeaLine.Match(line):
		return NMEA0183, nil
	case bytes.HasPrefix(head, []byte("[")):
		return JSON, nil
	case bytes.HasPrefix(head, []byte("{")) && (ext == ".ndjson" || ext == ".jsonl" || bytes.Contains(line, []byte(`"topic"`))):
		return NDJSON, nil
	case ext == ".csv" && bytes.Contains(line, []byte(",")):
		return CSV, nil
	}
	return "", fmt.Errorf("%s: %w", name, ErrUnknown)
}

// RecogniseFile tells the format of the file at path.
func RecogniseFile(path string) (Format, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("opening a recording: %w", err)
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, headSize))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return Recognise(path, head)
}

// ReadFile yields the messages of the file at path, whose format it recognises.
// An error is yielded once, last.
func ReadFile(path string, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Message{}, fmt.Errorf("opening a recording: %w", err))
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 64<<10)
		head, err := r.Peek(headSize)
		if err != nil && !errors.Is(err, io.EOF) {
			yield(Message{}, fmt.Errorf("reading %s: %w", path, err))
			return
		}
		format, err := Recognise(path, head)
		if err != nil {
			yield(Message{}, err)
			return
		}
		for m, err := range Read(r, path, format, o) {
			if !yield(m, err) {
				return
			}
		}
	}
}

// Read yields the messages of r; name stands in errors. An error is yielded
// once, last. It can be ranged over once.
func Read(r io.Reader, name string, format Format, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		s := &source{r: r, yield: yield}
		var err error
		switch format {
		case CSV:
			err = s.csv(o)
		case JSON:
			err = s.json()
		case Candump:
			err = s.lines(candump)
		case NMEA0183:
			err = s.lines(nmea)
		case N2K:
			err = s.lines(n2k)
		case NDJSON:
			err = s.lines(ndjson)
		default:
			err = ErrUnknown
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Message{}, &Error{name, max(s.line, 1), err})
		}
	}
}

// errStop says that the receiver wants no more.
var errStop = errors.New("stopped")

// source is one pass over a recording.
type source struct {
	r     io.Reader
	yield func(Message, error) bool
	line  int // the one being read

	at   float64 // seconds, of the latest message
	last time.Duration
	n    int // messages so far
}

// maxStep is the longest pause that is believed. A clock that jumps further, or
// back, was broken or set: the recording goes on without a pause.
const maxStep = 24 * time.Hour

// emit sends a message recorded at the given second of any time scale.
func (s *source) emit(seconds float64, topic string, payload []byte) error {
	if topic == "" || len(topic) > maxTopic || strings.ContainsAny(topic, "+#\x00") || !utf8.ValidString(topic) {
		return fmt.Errorf("%.60q cannot be a topic", topic)
	}
	step := seconds - s.at
	switch {
	case s.n == 0 || math.Abs(step) > maxStep.Seconds():
		s.at = seconds
	case step > 0:
		s.at = seconds
		s.last += time.Duration(math.Round(step * float64(time.Second)))
	}
	s.n++
	if !s.yield(Message{s.last, topic, payload}, nil) {
		return errStop
	}
	return nil
}

// lines gives each line that is not blank to f.
func (s *source) lines(f func(s *source, line []byte) error) error {
	sc := bufio.NewScanner(s.r)
	sc.Buffer(make([]byte, 0, 64<<10), maxItem)
	for sc.Scan() {
		s.line++
		line := sc.Bytes()
		if s.line == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := f(s, line); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		s.line++
		if errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("a line of more than %d bytes", maxItem)
		}
		return err
	}
	return nil
}
