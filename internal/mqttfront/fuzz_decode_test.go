package mqttfront

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"
)

// FuzzConnect decodes a CONNECT. What our check passes mochi's decoder takes;
// nothing panics, what is read is not more than was sent, and it shares no memory
// with the packet.
func FuzzConnect(f *testing.F) {
	for _, o := range []connectOptions{
		{id: "a"}, {id: "a", version: 4, persist: true, keepAlive: 9, user: "u", password: "p"}, {version: 3, id: "x"},
		{id: "a", willTopic: "w", will: "x", willFlags: 0x30, willProps: append([]byte{0x18, 0, 0, 0, 9}, userProp("k", "v")...), props: append([]byte{0x21, 0, 9, 0x27, 0, 0, 1, 0, 0x17, 0}, userProp("k", "v")...)},
	} {
		f.Add(connectPacket(o)[2:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var checked hello
		_, wrong := checked.check(body)
		given := bytes.Clone(body)
		ours, err := decodeConnect(given)
		if (wrong == nil) != (err == nil) {
			t.Fatalf("the check says %v, the decoder %v", wrong, err)
		}
		if err != nil {
			return
		}
		for i := range given {
			given[i] = 0xAA
		}
		again, err := decodeConnect(bytes.Clone(body))
		if err != nil || !reflect.DeepEqual(again, ours) {
			t.Fatalf("%+v became %+v when its packet changed", again, ours)
		}
		size := len(ours.id) + len(ours.username) + len(ours.password) + userSize(ours.user)
		if w := ours.will; w != nil {
			size += len(w.Topic) + len(w.Payload)
			if p := w.Properties; p != nil {
				size += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData) + userSize(p.User)
			}
		}
		if size > len(body) {
			t.Fatalf("%d bytes were read from %d", size, len(body))
		}
	})
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
		d, err := decodeDisconnect(b, version)
		if err == nil && version < 5 && (len(b) > 0 || d.hasExpiry) {
			t.Errorf("DISCONNECT % x: %+v", b, d)
		}
		if version == 5 && len(b) > 1 && (err == nil) != (checkAll(b[1:], inDisconnect) == nil) {
			t.Errorf("DISCONNECT % x: what is checked is not decoded: %v", b, err)
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
