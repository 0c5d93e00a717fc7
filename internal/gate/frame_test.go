package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// clientFrame makes a masked frame. form chooses how its length is written: 0
// the shortest, 1 and 2 longer ones, which are allowed to who reads leniently.
func clientFrame(first byte, payload []byte, mask [4]byte, form int) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case form == 0 && n < 126:
		b = append(b, 0x80|byte(n))
	case form <= 1 && n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i, x := range payload {
		b = append(b, x^mask[i&3])
	}
	return b
}

type controlFrame struct {
	op      byte
	payload string
}

// fed gives what a decoder makes of stream, read in pieces of the given sizes
// in turn (then in pieces of the last size).
func fed(d *decoder, stream []byte, sizes []int) (data []byte, control []controlFrame, err error) {
	for i := 0; len(stream) > 0 && err == nil; i++ {
		n := min(len(stream), sizes[min(i, len(sizes)-1)])
		piece := bytes.Clone(stream[:n])
		var k int
		k, err = d.feed(piece, func(op byte, payload []byte) { control = append(control, controlFrame{op, string(payload)}) })
		data = append(data, piece[:k]...)
		stream = stream[n:]
	}
	return data, control, err
}

// Whatever messages a client sends, cut into whatever frames with control
// frames between them, read in whatever pieces: the bytes come out in order.
func TestDecoderGivesWhatWasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream, want []byte
		var controls []controlFrame
		mask := func() (m [4]byte) { copy(m[:], rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "mask")); return m }
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			frames := rapid.IntRange(1, 4).Draw(t, "frames")
			for i := range frames {
				if rapid.IntRange(0, 3).Draw(t, "control") == 0 {
					op := rapid.SampledFrom([]byte{opPing, opPong}).Draw(t, "op")
					payload := rapid.SliceOfN(rapid.Byte(), 0, maxControl).Draw(t, "ping")
					stream = append(stream, clientFrame(0x80|op, payload, mask(), 0)...)
					controls = append(controls, controlFrame{op, string(payload)})
				}
				first := byte(opContinuation)
				if i == 0 {
					first = opBinary
				}
				if i == frames-1 {
					first |= 0x80
				}
				payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
				if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
					payload = bytes.Repeat(append(payload, 7), 300)
				}
				stream = append(stream, clientFrame(first, payload, mask(), rapid.IntRange(0, 2).Draw(t, "form"))...)
				want = append(want, payload...)
			}
		}
		var d decoder
		got, gotControls, err := fed(&d, stream, rapid.SliceOfN(rapid.IntRange(1, 700), 1, 20).Draw(t, "pieces"))
		if err != nil || !bytes.Equal(got, want) || !d.whole() {
			t.Fatalf("%d bytes, want %d, %v, whole %v", len(got), len(want), err, d.whole())
		}
		if len(controls) != len(gotControls) {
			t.Fatalf("%d control frames, want %d", len(gotControls), len(controls))
		}
		for i := range controls {
			if controls[i] != gotControls[i] {
				t.Fatalf("control frame %d is %v", i, gotControls[i])
			}
		}
	})
}

func TestDecoderRefuses(t *testing.T) {
	var m [4]byte
	long := make([]byte, maxControl+1)
	start := clientFrame(opBinary, []byte("a"), m, 0)
	for _, c := range []struct {
		what   string
		stream []byte
		status uint16
	}{
		{"text", clientFrame(0x80|opText, []byte("a"), m, 0), closeUnsupported},
		{"not masked", []byte{0x80 | opBinary, 1, 'a'}, closeProtocol},
		{"reserved bit", clientFrame(0xc0|opBinary, nil, m, 0), closeProtocol},
		{"opcode 3", clientFrame(0x83, nil, m, 0), closeProtocol},
		{"opcode 11", clientFrame(0x8b, nil, m, 0), closeProtocol},
		{"ping in pieces", clientFrame(opPing, nil, m, 0), closeProtocol},
		{"long ping", clientFrame(0x80|opPing, long, m, 0), closeProtocol},
		{"continuation of nothing", clientFrame(0x80, nil, m, 0), closeProtocol},
		{"continuation after the end", append(clientFrame(0x80|opBinary, nil, m, 0), clientFrame(0x80, nil, m, 0)...), closeProtocol},
		{"message in a message", append(start, clientFrame(0x80|opBinary, nil, m, 0)...), closeProtocol},
		{"huge", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, closeProtocol},
	} {
		for _, piece := range []int{1, 1000} {
			var d decoder
			_, _, err := fed(&d, c.stream, []int{piece})
			f, ok := errors.AsType[*frameError](err)
			if !ok || f.status != c.status {
				t.Errorf("%s in pieces of %d: %v", c.what, piece, err)
			}
		}
	}
	var d decoder
	_, _, err := fed(&d, append(clientFrame(0x80|opClose, []byte{3, 232}, m, 0), "rubbish"...), []int{100})
	if !errors.Is(err, errCloseFrame) {
		t.Errorf("close: %v", err)
	}
}

func TestCloseAnswer(t *testing.T) {
	for _, c := range []struct {
		payload []byte
		want    uint16
	}{
		{nil, 1000}, {[]byte{3}, 1002}, {[]byte{3, 232}, 1000}, {[]byte{3, 233, 'x'}, 1001}, {[]byte{3, 236}, 1002}, {[]byte{3, 237}, 1002},
		{[]byte{0, 0}, 1002}, {[]byte{0x0f, 0xa0}, 4000}, {[]byte{0xff, 0xff}, 1002},
	} {
		if got := closeAnswer(c.payload); got != c.want {
			t.Errorf("% x: %d, want %d", c.payload, got, c.want)
		}
	}
}

// Whatever comes: no panic, no more out than in, the same for all ways to cut
// it, and nothing kept but a header and a control frame.
func FuzzDecoder(f *testing.F) {
	f.Add(clientFrame(0x82, []byte("hello"), [4]byte{1, 2, 3, 4}, 0), 1)
	f.Add(append(clientFrame(0x02, []byte("a"), [4]byte{1}, 1), clientFrame(0x89, []byte("p"), [4]byte{9}, 0)...), 3)
	f.Add(clientFrame(0x88, []byte{3, 232}, [4]byte{}, 0), 2)
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, 4)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		if piece <= 0 {
			piece = 1
		}
		var one, two decoder
		data, control, err := fed(&one, stream, []int{max(1, len(stream))})
		data2, control2, err2 := fed(&two, stream, []int{piece})
		if !bytes.Equal(data, data2) || len(control) != len(control2) || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("whole: %d bytes, %v, %v; in pieces of %d: %d bytes, %v, %v", len(data), control, err, piece, len(data2), control2, err2)
		}
		if len(data) > len(stream) || cap(two.control) > 2*maxControl+8 {
			t.Fatalf("%d bytes of %d, control %d", len(data), len(stream), cap(two.control))
		}
	})
}
