package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Line is one line of /api/v1/records: a record with everything the log knows
// of it, or, as the last line only, the problem that ended the stream. Times
// ending in _us are exact, µs since 1970 UTC; their RFC 3339 form is left out
// for a time that has none.
type Line struct {
	// Cursor resumes after this record, with the same filter or another.
	Cursor string `json:"cursor,omitempty"`

	Device string       `json:"device,omitempty"`
	Epoch  stream.Epoch `json:"epoch"`
	Lane   stream.Lane  `json:"lane"`
	Seq    uint64       `json:"seq"`

	Topic       string  `json:"topic"`
	TopicBase64 string  `json:"topic_base64,omitempty"` // instead of topic when that is no UTF-8
	Payload     *string `json:"payload,omitempty"`      // when it is UTF-8
	// PayloadBase64 stands in for a payload that is no UTF-8.
	PayloadBase64 string `json:"payload_base64,omitempty"`

	Time        string `json:"time,omitempty"`
	TimeUS      int64  `json:"time_us"`
	TimeQuality string `json:"time_quality"`
	Boot        string `json:"boot,omitempty"`
	MonoUS      int64  `json:"mono_us,omitempty"`

	QoS        uint8           `json:"qos"`
	Retain     bool            `json:"retain,omitempty"`
	Properties *LineProperties `json:"properties,omitempty"`
	Flags      []string        `json:"flags,omitempty"`

	Shard      int    `json:"shard"`
	Offset     int64  `json:"offset"`
	Received   string `json:"received,omitempty"`
	ReceivedUS int64  `json:"received_us"`

	Problem *Problem `json:"problem,omitempty"`
}

// LineProperties are the MQTT 5 properties of a record.
type LineProperties struct {
	ContentType     string         `json:"content_type,omitempty"`
	ResponseTopic   string         `json:"response_topic,omitempty"`
	CorrelationData []byte         `json:"correlation_data_base64,omitempty"`
	User            []LineProperty `json:"user,omitempty"`
	PayloadUTF8     bool           `json:"payload_utf8,omitempty"`
}

// LineProperty is one MQTT user property.
type LineProperty struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

var timeQualities = [...]string{stream.TimeUnknown: "unknown", stream.TimeLocal: "local", stream.TimeFixed: "fixed"}

// NewLine makes the line of a record; cursor is the text that resumes after it.
func NewLine(s *commitlog.Stored, cursor string) *Line {
	l := &Line{
		Cursor: cursor, Device: s.Device, Epoch: s.Epoch, Lane: s.Lane, Seq: s.Seq,
		Topic: s.Topic, Time: rfc3339(s.Time), TimeUS: s.Time, TimeQuality: "unknown",
		MonoUS: s.Mono, QoS: s.QoS, Retain: s.Retain, Flags: flagNames(s.Flags),
		Shard: s.Shard, Offset: s.Offset, Received: rfc3339(s.Received), ReceivedUS: s.Received,
	}
	if !utf8.ValidString(s.Topic) {
		l.Topic, l.TopicBase64 = "", base64.StdEncoding.EncodeToString([]byte(s.Topic))
	}
	if utf8.Valid(s.Payload) {
		text := string(s.Payload)
		l.Payload = &text
	} else {
		l.PayloadBase64 = base64.StdEncoding.EncodeToString(s.Payload)
	}
	if int(s.Quality) < len(timeQualities) {
		l.TimeQuality = timeQualities[s.Quality]
	}
	if !s.Boot.IsZero() {
		l.Boot = s.Boot.String()
	}
	if p := s.Properties; !p.IsZero() {
		l.Properties = &LineProperties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, PayloadUTF8: p.PayloadUTF8}
		for _, u := range p.User {
			l.Properties.User = append(l.Properties.User, LineProperty(u))
		}
	}
	return l
}

// Stored gives the record back as the log holds it.
func (l *Line) Stored() (*commitlog.Stored, error) {
	s := &commitlog.Stored{Device: l.Device, Epoch: l.Epoch, Lane: l.Lane, Received: l.ReceivedUS, Shard: l.Shard, Offset: l.Offset}
	s.Record = stream.Record{Seq: l.Seq, Message: stream.Message{Topic: l.Topic, Time: l.TimeUS, Mono: l.MonoUS, QoS: l.QoS, Retain: l.Retain}}
	var err error
	if l.TopicBase64 != "" {
		b, err := base64.StdEncoding.DecodeString(l.TopicBase64)
		if err != nil {
			return nil, fmt.Errorf("reading topic_base64: %w", err)
		}
		s.Topic = string(b)
	}
	if l.Payload != nil {
		s.Payload = []byte(*l.Payload)
	} else if s.Payload, err = base64.StdEncoding.DecodeString(l.PayloadBase64); err != nil {
		return nil, fmt.Errorf("reading payload_base64: %w", err)
	}
	if l.Boot != "" {
		if s.Boot, err = stream.ParseEpoch(l.Boot); err != nil {
			return nil, fmt.Errorf("reading boot: %w", err)
		}
	}
	for q, name := range timeQualities {
		if name == l.TimeQuality {
			s.Quality = stream.TimeQuality(q)
		}
	}
	for _, f := range l.Flags {
		s.Flags |= flagOf(f)
	}
	if p := l.Properties; p != nil {
		s.Properties = &stream.Properties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, PayloadUTF8: p.PayloadUTF8}
		for _, u := range p.User {
			s.Properties.User = append(s.Properties.User, stream.Property(u))
		}
	}
	return s, nil
}

// appendLine appends l as JSON and a newline.
func appendLine(dst []byte, l *Line) []byte {
	b, err := json.Marshal(l)
	if err != nil { // a lane outside the closed set, which no log holds
		return appendProblem(dst, problem(http.StatusInternalServerError, "unreadable", err.Error(), ""))
	}
	return append(append(dst, b...), '\n')
}

// appendProblem appends the line that ends a stream that could not be ended well.
func appendProblem(dst []byte, p *Problem) []byte {
	b, err := json.Marshal(struct {
		Problem *Problem `json:"problem"`
	}{p})
	if err != nil { // strings and a number always marshal
		return dst
	}
	return append(append(dst, b...), '\n')
}

func flagNames(f stream.Flags) (names []string) {
	if f&stream.Backfill != 0 {
		names = append(names, "backfill")
	}
	if f&stream.FIFO != 0 {
		names = append(names, "fifo")
	}
	return names
}

func flagOf(name string) stream.Flags {
	switch name {
	case "backfill":
		return stream.Backfill
	case "fifo":
		return stream.FIFO
	}
	return 0
}

// rfc3339 gives the time in UTC with microseconds, "" where RFC 3339 has no
// form for it.
func rfc3339(us int64) string {
	t := time.UnixMicro(us).UTC()
	if us == 0 || t.Year() < 0 || t.Year() > 9999 {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.000000Z")
}
