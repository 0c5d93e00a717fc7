package mqttfront

import (
	"encoding/binary"
	"math"

	"github.com/packetboat/packetboat/pkg/stream"
)

// appendPuback appends a PUBACK. User properties go with it to MQTT 5 clients,
// all or none of them, if the packet then has at most limit bytes (0: any).
func appendPuback(dst []byte, version byte, id uint16, code byte, user []stream.Property, limit uint32) []byte {
	if version < 5 || code == Success && len(user) == 0 {
		return append(dst, typePuback<<4, 2, byte(id>>8), byte(id))
	}
	props := userSize(user)
	if props > 0 && props <= math.MaxUint16*8 { // never beyond four length bytes
		remaining := 3 + varintSize(props) + props
		if total := 1 + varintSize(remaining) + remaining; limit == 0 || total <= int(limit) {
			dst = appendVarint(append(dst, typePuback<<4), remaining)
			dst = append(dst, byte(id>>8), byte(id), code)
			return appendUser(appendVarint(dst, props), user)
		}
	}
	return append(dst, typePuback<<4, 3, byte(id>>8), byte(id), code) // [MQTT-3.4.2-3]
}

// appendDisconnect appends an MQTT 5 DISCONNECT; reason is left out if it does
// not fit into limit bytes (0: any).
func appendDisconnect(dst []byte, code byte, reason string, limit uint32) []byte {
	reason = reason[:min(len(reason), 1024)]
	props := 3 + len(reason)
	remaining := 1 + varintSize(props) + props
	if reason == "" || limit > 0 && 1+varintSize(remaining)+remaining > int(limit) {
		return append(dst, typeDisconnect<<4, 1, code)
	}
	dst = appendVarint(append(dst, typeDisconnect<<4), remaining)
	dst = appendVarint(append(dst, code), props)
	return appendString(append(dst, propReasonString), reason)
}

func userSize(user []stream.Property) (n int) {
	for _, u := range user {
		n += 5 + len(u.Key) + len(u.Value)
	}
	return n
}

func appendUser(dst []byte, user []stream.Property) []byte {
	for _, u := range user {
		dst = appendString(append(dst, propUser), u.Key)
		dst = appendString(dst, u.Value)
	}
	return dst
}

// appendString appends at most 65,535 bytes of s with their length.
func appendString(dst []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func varintSize(n int) int {
	size := 1
	for ; n >= 128; n >>= 7 {
		size++
	}
	return size
}

func appendVarint(dst []byte, n int) []byte {
	for ; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
