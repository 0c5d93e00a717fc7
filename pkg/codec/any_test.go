package codec

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// chooser draws a number below n. One generator of messages serves random tests,
// properties that shrink, and fuzzing, where the input is what is drawn from.
type chooser func(n int) int

func byRand(seed uint64) chooser { return rand.New(rand.NewPCG(seed, 77)).IntN }

func byRapid(t *rapid.T) chooser {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "c") }
}

// byBytes draws from an input, and zeros behind its end.
func byBytes(b *[]byte) chooser {
	return func(n int) int {
		x := uint32(0)
		for m := n - 1; m > 0; m >>= 8 {
			x <<= 8
			if len(*b) > 0 {
				x |= uint32((*b)[0])
				*b = (*b)[1:]
			}
		}
		return int(x % uint32(n))
	}
}

func pick[T any](c chooser, of []T) T { return of[c(len(of))] }

func (c chooser) bits() uint64 {
	x := uint64(0)
	for range 4 {
		x = x<<16 | uint64(c(1<<16))
	}
	return x
}

func (c chooser) text(alphabet string, most int) string {
	b := make([]byte, c(most+1))
	for i := range b {
		b[i] = alphabet[c(len(alphabet))]
	}
	return string(b)
}

// world is what messages are drawn from: they resemble those before, as
// telemetry does, or do not at all.
type world struct {
	chooser
	now    int64 // µs
	unit   int64
	topics []string
	kinds  []int // of payload, by topic
	values []int64
	rest   []int64 // of busy columns
	mono   int64
	big    bool // payloads of more than some kB, too
}

func newWorld(c chooser) *world { return &world{chooser: c, now: 1_700_000_000_000_000, unit: 1000} }

func (w *world) records(n int) []stream.Record {
	recs := make([]stream.Record, n)
	if w.chooser(8) == 0 {
		w.unit = pick(w.chooser, []int64{1, 1000, 1_000_000})
	}
	for i := range recs {
		recs[i].Seq = uint64(i + 1)
		w.message(&recs[i].Message)
	}
	return recs
}

func (w *world) message(m *stream.Message) {
	k := 0
	if len(w.topics) == 0 || w.chooser(12) == 0 {
		k = len(w.topics)
		w.topics = append(w.topics, w.topic())
		w.kinds, w.values = append(w.kinds, w.chooser(payloadKinds)), append(w.values, int64(w.chooser(1000)))
	} else {
		k = w.chooser(len(w.topics))
	}
	if w.chooser(30) == 0 {
		w.kinds[k] = w.chooser(payloadKinds)
	}
	w.values[k] += int64(w.chooser(5)) - 2
	m.Topic, m.Payload = w.topics[k], []byte(w.payload(w.kinds[k], w.values[k]))
	m.Time, m.QoS, m.Quality = w.time(), uint8(w.chooser(2)), stream.TimeLocal
	switch w.chooser(16) {
	case 0:
		m.QoS, m.Retain, m.Quality = uint8(w.chooser(3)), w.chooser(2) == 0, stream.TimeQuality(w.chooser(4))
	case 1:
		w.mono += int64(w.chooser(1 << 20))
		m.Quality, m.Boot, m.Mono = stream.TimeUnknown, stream.Epoch{byte(w.chooser(2)), 15: byte(w.chooser(2))}, w.mono
	case 2:
		m.Boot, m.Mono = stream.Epoch{}, int64(w.bits())
	case 3:
		m.Properties = w.properties()
	}
}

func (w *world) topic() string {
	switch w.chooser(8) {
	case 0:
		return w.text("\x00\x01\x05a/é+#$ ", 20)
	case 1:
		if w.big {
			return strings.Repeat(pick(w.chooser, []string{"a", "b/", "abc\x00/"}), 1+w.chooser(13_000))
		}
	case 2:
		return fmt.Sprintf("\x00\xff%d", w.chooser(3))
	}
	return fmt.Sprintf("fleet/car%d/%s", w.chooser(3), w.text("abcd/", 9))
}

func (w *world) time() int64 {
	switch w.chooser(24) {
	case 0:
		return pick(w.chooser, []int64{0, -1, 1, -1 << 63, 1<<63 - 1, -1<<63 + 1, 1<<62 + 1, -1000, 999, -1_000_000})
	case 1:
		return int64(w.bits())
	case 2, 3, 4:
		w.now += int64(w.chooser(1 << 24))
	case 5:
		w.now -= int64(w.chooser(1 << 20))
	default:
		w.now += 100_000
	}
	return w.now / w.unit * w.unit
}

func (w *world) properties() *stream.Properties {
	p := &stream.Properties{PayloadUTF8: w.chooser(2) == 0, ContentType: w.text("ab/", 6), ResponseTopic: w.text("r/", 6)}
	if w.chooser(2) == 0 {
		p.CorrelationData = []byte(w.text("\x00\xff12", 5))
	}
	for range w.chooser(4) {
		p.User = append(p.User, stream.Property{Key: w.text("k", 2), Value: w.text("v\x00é", 3)})
	}
	if w.big && w.chooser(3) == 0 { // longer than what is remembered
		p.User = append(p.User, stream.Property{Value: strings.Repeat("x", 4080+w.chooser(30))})
	}
	return p
}

const payloadKinds = 12

func (w *world) payload(kind int, v int64) string {
	switch kind {
	case 0:
		return strconv.FormatInt(v, 10)
	case 1:
		return w.number(v)
	case 2:
		return w.json(v, 2)
	case 3:
		return w.sentence(v)
	case 4:
		return w.hex()
	case 5:
		return fmt.Sprintf(`{"id":"%s","on":%t,"n":%s}`, w.text("a1b2", 6), w.chooser(2) == 0, w.number(v))
	case 6:
		return w.binary(v)
	case 7:
		return pick(w.chooser, odd) + pick(w.chooser, odd)
	case 8:
		return w.text("é\xf0\x9f\x9a\xa4\xff\x00\x7f 1", 12)
	case 9:
		return w.long()
	case 10:
		return fmt.Sprintf("%s,%s;%d-%s", w.number(v), w.number(v+1), w.now/1000, pick(w.chooser, []string{"true", "false", "", "on"}))
	}
	return ""
}

// number is one as devices print them, or nearly.
func (w *world) number(v int64) string {
	switch w.chooser(10) {
	case 0:
		return fmt.Sprintf("%0*d", w.chooser(40), v)
	case 1:
		return w.text("0123456789", 40)
	case 2:
		return pick(w.chooser, []string{"-0", "-0.0", "1e5", "-1E-5", "1.50", "NaN", "-Infinity", "00.10", ".5", "5.", "--5", "+5", "1_000", "0x1F", "-", "-.5", "1..2"})
	case 3:
		return strconv.FormatInt(int64(w.bits()), 10)
	case 4:
		return strconv.FormatFloat(float64(v)/7, 'g', -1, 64)
	}
	return strconv.FormatFloat(float64(v)/100, 'f', pick(w.chooser, []int{-1, 2, 2, 2, 0, 1, 3, 18, 24, 25}), 64)
}

func (w *world) json(v int64, depth int) string {
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	switch w.chooser(kinds) {
	case 0:
		return w.number(v)
	case 1:
		return strconv.Quote(w.text("ab1é\n\"\t", 8))
	case 2:
		return pick(w.chooser, []string{"true", "false", "null"})
	case 3:
		return `"` + w.hex() + `"`
	case 4:
		return strconv.FormatInt(v, 10)
	}
	begin, end, sep := "[", "]", pick(w.chooser, []string{",", ", ", ",\n"})
	object := w.chooser(2) == 0
	if object {
		begin, end = "{", "}"
	}
	var parts []string
	for i := range w.chooser(4) {
		p := w.json(v+int64(i), depth-1)
		if object {
			p = `"k` + strconv.Itoa(i) + `":` + p
		}
		parts = append(parts, p)
	}
	return begin + strings.Join(parts, sep) + end
}

// sentence is NMEA, mostly.
func (w *world) sentence(v int64) string {
	s := fmt.Sprintf("GPRMC,%06d.00,A,%d.%04d,N*%s,%s", v, v%90, v%10000, w.text("*A0", 2), w.number(v))
	sum := xor([]byte(s))
	end := pick(w.chooser, []string{"", "\r\n", "\n", "\r", "\r\n\r\n", " "})
	switch w.chooser(8) {
	case 0:
		sum++
	case 1:
		return fmt.Sprintf("!%s*%02x%s", s, sum, end)
	case 2:
		return fmt.Sprintf("!%s*%02X%s", s, sum, end)
	case 3:
		return "$" + s + end
	}
	return fmt.Sprintf("$%s*%02X%s", s, sum, end)
}

func (w *world) hex() string {
	n := 1 + w.chooser(9)
	digits := pick(w.chooser, []string{"0123456789abcdef", "0123456789ABCDEF", "0123456789", "0123456789abCD"})
	sep := pick(w.chooser, []string{"", "", ":", "-", " ", ",", ";"})
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteByte(digits[w.chooser(len(digits))])
		b.WriteByte(digits[w.chooser(len(digits))])
	}
	if w.chooser(9) == 0 {
		b.WriteByte('f')
	}
	return b.String()
}

func (w *world) binary(v int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(v)*0x0101)
	b = append(b, 0, 0xff, byte(w.chooser(256)))
	b = b[:len(b)-w.chooser(2)*w.chooser(len(b))]
	return string(b)
}

// long are payloads around the limits of what is modelled and remembered.
func (w *world) long() string {
	most := 6000
	if w.big {
		most = pick(w.chooser, []int{70_000, 300_000})
	}
	unit := pick(w.chooser, []string{"7", "ab12", "a1g2", "1,", "text ", "\x00\x01\x02", "é", "0a:", "true ", "\xff"})
	return strings.Repeat(unit, 1+w.chooser(most)/len(unit))
}

// odd are payloads that are nearly numbers, templates or sentences.
var odd = []string{
	"", "0", "-0", "-0.00", "00", "007", "1e5", "-1", "--1", "1.", ".5", "1.50", "1.5", "27.0", "0.004532068199369834",
	"999999999999999999", "9999999999999999999", "-9223372036854775808", "12345678901234567890.123456789012345678901234567890",
	"0.0000000000000000000000001", "000000000000000000000000000000000000001", "$GPZDA,095603,,,,00,*41", "$GPZDA,095603,,,,00,*42",
	"$*00", "!*", "$GPZDA,095603,,,,00,*41\r\n", "$A*B*03", "$A*B*29", "$*\r\n*2A", "!*00\r\n", "true", "false", "[true,false,true]", "truefalse", "\x01\x02", "\x00", "a\x00b", "\xff\xfe",
	"é", "a1b2c3d4", "5e:44:3b:f3:79:c8", "5e:44:3b:f3:79:C8", "00,11,22,33,44", "00FF11EE", "00112233", "00ff11ee", "deadbeef", "00ff11e",
	"2014-08-15T19:00:00.042Z", "1 2 3 4 5", "NaN", "-Inf", "1-2-3", "1.2.3.4", "{\"a\":1,\"b\":-0.10}", "0x1F", "1_000", "\n", "$A\x80*00",
	strings.Repeat("7", 3000), strings.Repeat("1,", 600), strings.Repeat("text ", 3500), strings.Repeat("\x00\x01", 2100),
}
