package recording

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// candump reads "(1631416514.717133) can0 0D2#0000FFFF10000000"; CAN FD has
// "##" and a digit of flags, a remote frame "#R".
func candump(s *source, line []byte) error {
	text := strings.Fields(string(line))
	if len(text) < 3 || !strings.HasPrefix(text[0], "(") || !strings.HasSuffix(text[0], ")") {
		return fmt.Errorf("%.60q is not a frame as candump -L writes it", line)
	}
	at, err := parseSeconds(strings.Trim(text[0], "()"))
	if err != nil {
		return err
	}
	id, data, ok := strings.Cut(text[2], "#")
	if _, err := strconv.ParseUint(id, 16, 32); err != nil || !ok {
		return fmt.Errorf("%.60q is not a CAN frame", text[2])
	}
	if strings.HasPrefix(data, "#") && len(data) >= 2 {
		data = data[2:]
	} else if strings.HasPrefix(data, "R") {
		data = ""
	}
	payload, err := hex.DecodeString(strings.ReplaceAll(data, ".", ""))
	if err != nil || len(payload) > 64 {
		return fmt.Errorf("%.60q is not a CAN frame's data", data)
	}
	return s.emit(at, "can/"+topicPart(text[1])+"/"+id, payload)
}

// nmea reads "$IIVHW,...": topic nmea/IIVHW, payload the sentence.
func nmea(s *source, line []byte) error {
	line = bytes.TrimSpace(line)
	sentence := line
	if sentence[0] == '\\' { // an IEC 61162-450 tag block before it
		if end := bytes.IndexByte(sentence[1:], '\\'); end >= 0 {
			sentence = sentence[end+2:]
		}
	}
	if len(sentence) < 2 || sentence[0] != '$' && sentence[0] != '!' {
		return fmt.Errorf("%.60q is not a sentence", line)
	}
	kind, _, _ := bytes.Cut(sentence[1:], []byte(","))
	if len(kind) == 0 || len(kind) > 16 {
		return fmt.Errorf("%.60q is not a sentence", line)
	}
	return s.emit(float64(s.n)/sentencesPerSecond, "nmea/"+topicPart(string(kind)), bytes.Clone(line))
}

// n2k reads "2014-08-15T19:00:00.042Z,3,129029,160,...": topic n2k/<PGN>/<source>.
func n2k(s *source, line []byte) error {
	line = bytes.TrimSpace(line)
	part := strings.SplitN(string(line), ",", 7)
	if len(part) < 6 {
		return fmt.Errorf("%.60q is not an NMEA 2000 message as text", line)
	}
	at, ok := parseTime(part[0])
	if !ok {
		return fmt.Errorf("%.40q is not a time", part[0])
	}
	for _, i := range []int{2, 3} {
		if _, err := strconv.ParseUint(part[i], 10, 32); err != nil {
			return fmt.Errorf("%.40q is not a PGN or a source", part[i])
		}
	}
	return s.emit(at, "n2k/"+part[2]+"/"+part[3], bytes.Clone(line))
}

// neutral is one line of the neutral form.
type neutral struct {
	T       *float64 `json:"t"`
	Topic   string   `json:"topic"`
	Payload *string  `json:"payload"`
	Base64  *[]byte  `json:"payload_base64"`
}

func ndjson(s *source, line []byte) error {
	var m neutral
	if err := json.Unmarshal(line, &m); err != nil {
		return err
	}
	switch {
	case m.T == nil || math.Abs(*m.T) > 1e12:
		return errors.New(`"t" is missing or no number of seconds`)
	case (m.Payload == nil) == (m.Base64 == nil):
		return errors.New(`want either "payload" or "payload_base64"`)
	case m.Payload != nil:
		return s.emit(*m.T, m.Topic, []byte(*m.Payload))
	}
	return s.emit(*m.T, m.Topic, *m.Base64)
}

func parseSeconds(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1e12 {
		return 0, fmt.Errorf("%.40q is not a number of seconds", text)
	}
	return f, nil
}

var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02-15:04:05", "2006-01-02 15:04:05",
	"01/02/2006 15:04:05", "2006/01/02 15:04:05", "02.01.2006 15:04:05", "15:04:05", "2006-01-02", "01/02/2006",
}

// parseTime reads a date and time, or a number: of seconds, or of milli- or
// microseconds since 1970 where only that is plausible.
func parseTime(text string) (seconds float64, ok bool) {
	text = strings.TrimSpace(text)
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		switch a := math.Abs(f); {
		case a < 1e10:
			return f, true
		case a < 1e14:
			return f / 1e3, true
		case a < 1e17:
			return f / 1e6, true
		}
		return 0, false // no time that means anything, or not a number
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return float64(t.Unix()) + float64(t.Nanosecond())/1e9, true
		}
	}
	return 0, false
}

// topicPart makes text fit between two slashes of a topic.
func topicPart(text string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '+' || r == '#' || r == '/' || r < ' ' || r == utf8.RuneError {
			return '_'
		}
		return r
	}, strings.TrimSpace(text))
	return strings.ToValidUTF8(clean, "_")
}
