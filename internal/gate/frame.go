package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The opcodes of RFC 6455 that we know.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// The status codes of a Close frame that we send.
const (
	closeNormal      = 1000
	closeProtocol    = 1002
	closeUnsupported = 1003
)

const (
	maxControl     = 125 // bytes in a control frame [RFC 6455, 5.5]
	maxFrameHeader = 14
)

// frameError is a fault of the client that ends the connection with a status.
type frameError struct {
	status uint16
	text   string
}

func (e *frameError) Error() string { return "websocket: " + e.text }

func broken(text string) error { return &frameError{closeProtocol, text} }

// errCloseFrame says that a Close frame came: nothing after it counts.
var errCloseFrame = errors.New("websocket: client sent a Close frame")

// decoder takes the frames of a client apart. It is a pure state machine: it
// keeps at most one frame header and one control frame.
type decoder struct {
	header  [maxFrameHeader]byte
	have    int    // bytes of header
	left    uint64 // of the frame's payload; valid once inside
	inside  bool   // the header is complete, the frame is not
	op      byte   // of the frame
	final   bool   // of the frame
	message bool   // a data message has begun and not ended
	mask    [4]byte
	at      uint   // position in mask
	control []byte // payload of a control frame, so far
}

// feed takes what was read and moves the data in it to the front of b: n bytes.
// Every whole control frame is given to handle, whose payload is valid during
// the call. Data before an error counts.
func (d *decoder) feed(b []byte, handle func(op byte, payload []byte)) (n int, err error) {
	out, in := 0, 0
	for in < len(b) {
		if !d.inside {
			d.header[d.have] = b[in]
			d.have++
			in++
			if done, err := d.readHeader(); err != nil {
				return out, err
			} else if !done {
				continue
			}
		}
		k := int(min(uint64(len(b)-in), d.left))
		if d.op >= opClose {
			for _, x := range b[in : in+k] {
				d.control = append(d.control, x^d.mask[d.at&3])
				d.at++
			}
		} else {
			d.unmask(b[out:out+k], b[in:in+k])
			out += k
		}
		in += k
		if d.left -= uint64(k); d.left == 0 {
			if err := d.endFrame(handle); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// readHeader looks at the header so far; done: it is complete and good.
func (d *decoder) readHeader() (done bool, err error) {
	if d.have < 2 {
		return false, nil
	}
	if d.have == 2 {
		if err := d.begin(d.header[0], d.header[1]); err != nil {
			return false, err
		}
	}
	length, size := uint64(d.header[1]&0x7f), 2
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if d.have < size+4 {
		return false, nil
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(d.header[2:]))
	case 127:
		if length = binary.BigEndian.Uint64(d.header[2:]); length>>63 != 0 {
			return false, broken("a frame of more than 2^63 bytes")
		}
	}
	copy(d.mask[:], d.header[size:])
	d.left, d.at, d.inside = length, 0, true
	return true, nil
}

// begin checks the first two bytes of a frame.
func (d *decoder) begin(first, second byte) error {
	d.op, d.final = first&0x0f, first&0x80 != 0
	switch {
	case first&0x70 != 0:
		return broken("reserved bits are set") // no extension was agreed on
	case second&0x80 == 0:
		return broken("a client's frame is not masked") // RFC 6455, 5.1
	case d.op == opText:
		return &frameError{closeUnsupported, "a text frame; MQTT needs binary ones"} // [MQTT-6.0.0-1]
	case d.op > opPong || d.op > opBinary && d.op < opClose:
		return broken(fmt.Sprintf("opcode %d is not known", d.op))
	case d.op >= opClose && (!d.final || second&0x7f > maxControl):
		return broken("a control frame is in pieces or too long")
	case d.op == opContinuation && !d.message:
		return broken("a continuation of nothing")
	case d.op == opBinary && d.message:
		return broken("a message begins within another")
	}
	return nil
}

// endFrame is called when the last byte of a frame has been taken.
func (d *decoder) endFrame(handle func(op byte, payload []byte)) error {
	d.inside, d.have = false, 0
	if d.op < opClose {
		d.message = !d.final
		return nil
	}
	payload := d.control
	d.control = d.control[:0]
	handle(d.op, payload)
	if d.op == opClose {
		return errCloseFrame
	}
	return nil
}

// whole reports whether the stream may end here.
func (d *decoder) whole() bool { return !d.inside && d.have == 0 && !d.message }

// unmask writes src, masked from position d.at on, to dst, which is at or
// before src in the same slice and as long.
func (d *decoder) unmask(dst, src []byte) {
	for len(src) > 0 && d.at&3 != 0 {
		dst[0] = src[0] ^ d.mask[d.at&3]
		dst, src = dst[1:], src[1:]
		d.at++
	}
	word := uint64(binary.LittleEndian.Uint32(d.mask[:]))
	word |= word << 32
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^word)
		dst, src = dst[8:], src[8:]
	}
	for i, x := range src {
		dst[i] = x ^ d.mask[d.at&3]
		d.at++
	}
}

// appendFrameHeader begins an unmasked, final frame: a server's.
func appendFrameHeader(b []byte, op byte, length int) []byte {
	b = append(b, 0x80|op)
	switch {
	case length < 126:
		return append(b, byte(length))
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
}

// closeAnswer is the status to answer a Close frame with. [RFC 6455, 5.5.1, 7.4]
func closeAnswer(payload []byte) uint16 {
	if len(payload) == 0 {
		return closeNormal
	}
	if len(payload) == 1 {
		return closeProtocol
	}
	code := binary.BigEndian.Uint16(payload)
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1011, code >= 3000 && code <= 4999:
		return code
	}
	return closeProtocol
}
