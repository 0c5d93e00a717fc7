package mqttfront

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// FuzzPublish decodes a PUBLISH here and with mochi's decoder. What both take
// they read alike; what mochi refuses is refused here too; nothing panics.
func FuzzPublish(f *testing.F) {
	f.Add(byte(0x32), byte(5), []byte("\x00\x01t\x00\x09\x00payload"))
	f.Add(byte(0x31), byte(4), []byte("\x00\x03a/bpayload"))
	f.Add(byte(0x3b), byte(5), append([]byte("\x00\x01t\x00\x09\x17\x01\x01\x02\x00\x00\x00\x09\x23\x00\x07"), userProp("k", "v", "a", "")...))
	f.Add(byte(0x30), byte(5), []byte("\x00\x01t\x10\x03\x00\x01j\x08\x00\x01r\x09\x00\x02\x00\xff"))
	f.Add(byte(0x30), byte(5), []byte("\x00\x01t\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, first, version byte, body []byte) {
		first = typePublish<<4 | first&15
		version = 4 + version%2
		theirs := packets.Packet{ProtocolVersion: version}
		err := theirs.FixedHeader.Decode(first)
		if err == nil {
			err = theirs.PublishDecode(bytes.Clone(body))
		}
		ours, ourErr := decodePublish(first, body, version)
		var props publishProps
		if ourErr == nil {
			props, ourErr = decodeProps(ours.props)
		}
		if ourErr == nil && !validString(ours.topic) {
			ourErr = malformed("topic")
		}
		if err != nil && ourErr == nil {
			t.Fatalf("mochi refuses (%v), we read %+v %+v", err, ours, props)
		}
		if err != nil || ourErr != nil {
			return
		}
		p, h := &theirs.Properties, &theirs.FixedHeader
		if string(ours.topic) != theirs.TopicName || !bytes.Equal(ours.payload, theirs.Payload) || ours.packetID != theirs.PacketID ||
			ours.qos != h.Qos || ours.retain != h.Retain || ours.dup != h.Dup {
			t.Fatalf("we read %+v, mochi %+v", ours, theirs)
		}
		if props.alias != p.TopicAlias || props.hasAlias != p.TopicAliasFlag || props.expiry != p.MessageExpiryInterval {
			t.Fatalf("we read %+v, mochi %+v", props, p)
		}
		want := mochiKept(p)
		if (want == nil) != (props.keep == nil) {
			t.Fatalf("we keep %+v, mochi %+v", props.keep, want)
		}
		if k := props.keep; k != nil && (k.ContentType != want.ContentType || k.ResponseTopic != want.ResponseTopic ||
			!bytes.Equal(k.CorrelationData, want.CorrelationData) || len(k.User) != len(want.User) || k.PayloadUTF8 != want.PayloadUTF8) {
			t.Fatalf("we keep %+v, mochi %+v", k, want)
		}
	})
}

// FuzzConnection throws bytes at a connection that was let in. Whatever they
// are, the front goes on, and the session is closed once.
func FuzzConnection(f *testing.F) {
	h := newFake()
	s := start(f, h, Options{FanOut: true, MaxPacketSize: 4 << 10})
	v5 := raw{version: 5}
	f.Add(byte(5), v5.publishPacket("t", 1, 1, "x"))
	f.Add(byte(4), []byte{typeSubscribe<<4 | 2, 6, 0, 1, 0, 1, 't', 0})
	f.Add(byte(5), packet(typeSubscribe<<4|2, u16(1), []byte{2, 0x0b, 1}, str("$share/g/t"), []byte{0x2e}))
	f.Add(byte(5), packet(typeUnsubscribe<<4|2, u16(1), []byte{0}, str("t")))
	f.Add(byte(5), packet(typeAuth<<4, []byte{0x18, 0}))
	f.Add(byte(5), packet(0x62, u16(1), []byte{0x92, 0}))
	f.Add(byte(4), packet(0x50, u16(1)))
	f.Add(byte(5), packet(typeDisconnect<<4, []byte{4, 5, 0x11, 0, 0, 0, 9}))
	f.Fuzz(func(t *testing.T, version byte, b []byte) {
		c := connect(t, s.addr, connectOptions{id: "fuzz", version: 4 + version%2})
		h.mu.Lock()
		session := h.sessions[len(h.sessions)-1]
		h.sessions = h.sessions[:0]
		h.mu.Unlock()
		c.send2(b)
		c.Close()
		h.await(t, "Close", func() bool { return session.closed == 1 })
		other := connect(t, s.addr, connectOptions{id: "other"})
		other.ping()
		other.Close()
		if st := s.Stats(); st.ProtocolErrors["panic"] != 0 {
			t.Fatalf("%+v", st.ProtocolErrors)
		}
	})
}

func mochiKept(p *packets.Properties) *stream.Properties {
	out := &stream.Properties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, PayloadUTF8: p.PayloadFormat == 1}
	for _, u := range p.User {
		out.User = append(out.User, stream.Property{Key: u.Key, Value: u.Val})
	}
	if out.IsZero() {
		return nil
	}
	return out
}
