package mqttfront

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzConnect decodes a CONNECT here and with mochi's decoder, where that does
// not panic. What both take they read alike; nothing panics, and what is read
// shares no memory with the packet.
func FuzzConnect(f *testing.F) {
	for _, o := range []connectOptions{
		{id: "a"}, {id: "a", version: 4, persist: true, keepAlive: 9, user: "u", password: "p"}, {version: 3, id: "x"},
		{id: "a", willTopic: "w", will: "x", willFlags: 0x30, willProps: append([]byte{0x18, 0, 0, 0, 9}, userProp("k", "v")...), props: append([]byte{0x21, 0, 9, 0x27, 0, 0, 1, 0, 0x17, 0}, userProp("k", "v")...)},
	} {
		f.Add(connectPacket(o)[2:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		ours, err := decodeConnect(given)
		if err != nil {
			return
		}
		for i := range given {
			given[i] = 0xAA
		}
		again, err := decodeConnect(bytes.Clone(body))
		if err != nil || again.id != ours.id || again.username != ours.username || !bytes.Equal(again.password, ours.password) {
			t.Fatalf("%+v became %+v when its packet changed", again, ours)
		}
		theirs := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(body)}}
		if mochiPanics(func() { err := theirs.ConnectDecode(bytes.Clone(body)); ok(err) }) {
			return // mochi refuses what we take: an empty will, for one
		}
		p := &theirs.Connect
		if ours.id != p.ClientIdentifier || ours.username != string(p.Username) || !bytes.Equal(ours.password, p.Password) || ours.clean != p.Clean ||
			ours.keepAlive != p.Keepalive || ours.version != theirs.ProtocolVersion || (ours.will != nil) != p.WillFlag {
			t.Fatalf("we read %+v, mochi %+v", ours, p)
		}
		props := &theirs.Properties
		if ours.version == 5 && (ours.sessionExpiry != props.SessionExpiryInterval || ours.maxPacket != props.MaximumPacketSize || len(ours.user) != len(props.User)) {
			t.Fatalf("we read %+v, mochi %+v", ours, props)
		}
		if w := ours.will; w != nil && (w.Topic != p.WillTopic || !bytes.Equal(w.Payload, p.WillPayload) || w.QoS != p.WillQos || w.Retain != p.WillRetain ||
			ours.version == 5 && ours.willDelay != p.WillProperties.WillDelayInterval) {
			t.Fatalf("we read %+v, mochi %+v", w, p)
		}
	})
}

// ok makes an error a panic, so that mochiPanics tells of both.
func ok(err error) {
	if err != nil {
		panic(err)
	}
}

func mochiPanics(decode func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	decode()
	return false
}

// FuzzControl decodes acknowledgements and DISCONNECTs.
func FuzzControl(f *testing.F) {
	f.Add(byte(5), []byte{0, 1, 0x92, 0})
	f.Add(byte(5), packet(0, []byte{0, 1, 0}, []byte{4, 0x1f, 0, 1, 'x'})[2:])
	f.Add(byte(4), []byte{0, 1})
	f.Add(byte(5), []byte{4, 5, 0x11, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, version byte, b []byte) {
		version = 4 + version%2
		if id, code, err := decodeAck(b, version); err == nil && (id == 0 || version < 5 && code != 0) {
			t.Errorf("acknowledgement % x: id %d, code %d", b, id, code)
		}
		if d, err := decodeDisconnect(b, version); err == nil && version < 5 && (len(b) > 0 || d.hasExpiry) {
			t.Errorf("DISCONNECT % x: %+v", b, d)
		}
	})
}

// FuzzStored reads what a Store may give back. What is read is written again
// as the same.
func FuzzStored(f *testing.F) {
	pub := Publish{Topic: "a/b", Payload: []byte("x"), QoS: 2, Retain: true, Expiry: 9}
	f.Add("q/0123456789abcdef/0001", appendStored([]byte{storeVersion}, &pub))
	f.Add("s/0123456789abcdef", (&session{id: "a", key: "0123456789abcdef"}).storedAs(time.Minute).Value)
	w := &will{key: "w/0123456789abcdef", pub: pub, username: "u"}
	f.Add(w.key, w.storedAs("id").Value)
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		fr := New(newFake(), Options{FanOut: true, Store: newJournal()})
		l := &loading{f: fr, sessions: map[string]*session{}}
		l.add(key, value)
		l.finish()
		if w, id, good := decodeWill(key, value); good {
			again, otherID, good := decodeWill(key, w.storedAs(id).Value)
			if !good || otherID != id || again.username != w.username || !samePublish(&again.pub, &w.pub) {
				t.Fatalf("%+v became %+v", w, again)
			}
		}
		if p, good := decodeStored(value); good {
			again, good := decodeStored(appendStored(nil, &p))
			if !good || !samePublish(&again, &p) {
				t.Fatalf("%+v became %+v", p, again)
			}
		}
	})
}

func samePublish(a, b *Publish) bool {
	same := a.Topic == b.Topic && bytes.Equal(a.Payload, b.Payload) && a.QoS == b.QoS && a.Retain == b.Retain && a.Expiry == b.Expiry && (a.Properties == nil) == (b.Properties == nil)
	if p, q := a.Properties, b.Properties; same && p != nil {
		same = p.ContentType == q.ContentType && p.ResponseTopic == q.ResponseTopic && bytes.Equal(p.CorrelationData, q.CorrelationData) && p.PayloadUTF8 == q.PayloadUTF8 && slices.Equal(p.User, q.User)
	}
	return same
}
