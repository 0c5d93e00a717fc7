package edge

import (
	"fmt"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/codec"
)

// CodecName names what encodes the batches on the link.
type CodecName string

// The codecs.
const (
	LearningCodec CodecName = "learning"
	RowsCodec     CodecName = "rows"
)

// UnmarshalText reads learning or rows.
func (n *CodecName) UnmarshalText(b []byte) error {
	switch CodecName(b) {
	case LearningCodec, RowsCodec:
		*n = CodecName(b)
		return nil
	}
	return fmt.Errorf("%.40q is not a codec: write learning or rows", b)
}

func (n CodecName) id() codec.ID {
	if n == RowsCodec {
		return codec.Rows
	}
	return codec.Learning
}

// CodecStatus is how small the messages become on the link, since the start.
type CodecStatus struct {
	Codec           string  `json:"codec"` // learning; learning, self-contained; or rows
	MessagesSent    int64   `json:"messages_sent"`
	BytesPerMessage float64 `json:"bytes_per_message"`      // of all that is sent, TLS included
	BodyPerMessage  float64 `json:"body_bytes_per_message"` // of the encoded records alone
	SessionsFresh   int64   `json:"sessions_fresh"`         // begun without anything learned
	SessionsResumed int64   `json:"sessions_resumed"`       // gone on over a new connection
	StateBytes      int     `json:"codec_state_bytes"`      // memory for what is learned
}

// codecStatus is nil before the first connection.
func codecStatus(u *uplink.Stats) *CodecStatus {
	if u.Codec == "" {
		return nil
	}
	s := &CodecStatus{
		Codec: u.Codec, MessagesSent: u.MessagesSent, StateBytes: u.CodecStateBytes,
		SessionsFresh: u.SessionsFresh, SessionsResumed: u.SessionsResumed,
	}
	if n := float64(u.MessagesSent); n > 0 {
		s.BytesPerMessage, s.BodyPerMessage = float64(u.BytesSent)/n, float64(u.BodyBytes)/n
	}
	return s
}

// line says it for people.
func (s *CodecStatus) line() string {
	text := s.Codec
	if s.MessagesSent > 0 {
		text += fmt.Sprintf(", %s bytes per message, of which records %s", few(s.BytesPerMessage), few(s.BodyPerMessage))
	}
	if s.SessionsFresh+s.SessionsResumed > 0 {
		text += fmt.Sprintf(", %s begun, %s resumed", plural(s.SessionsFresh, "session"), count(uint64(s.SessionsResumed)))
	}
	if s.StateBytes > 0 {
		text += ", " + sizeOf(int64(s.StateBytes)) + " learned"
	}
	return text
}

// few writes three digits that say something.
func few(f float64) string {
	switch {
	case f < 1:
		return fmt.Sprintf("%.3f", f)
	case f < 100:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

func emitCodec(m *obs.Emit, s *uplink.Stats) {
	m.Counter("link_payload_bytes_total", "Bytes of the batches sent, without MQTT and TLS.", float64(s.PayloadBytes))
	m.Counter("link_body_bytes_total", "Bytes of the encoded records of the batches sent.", float64(s.BodyBytes))
	for how, n := range map[string]int64{"fresh": s.SessionsFresh, "resumed": s.SessionsResumed} {
		m.Counter("link_codec_sessions_total", "Codec sessions: begun fresh, or resumed on a new connection.", float64(n), "how", how)
	}
	m.Counter("link_codec_self_contained_batches_total", "Batches that stood for themselves because the hub kept no session.", float64(s.BatchesSelfContained))
	m.Counter("link_codec_lowered_grants_total", "Times the hub granted less to the codec during a connection.", float64(s.GrantsLowered))
	m.Counter("link_codec_distrusted_total", "Times rows were sent for a while because the hub could not decode a fresh session.", float64(s.CodecDistrusted))
	m.Gauge("link_codec_state_bytes", "Memory for what the codec has learned.", float64(s.CodecStateBytes))
}
