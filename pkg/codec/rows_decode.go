package codec

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// cursor reads numbers and bytes. After the first error it gives zeros; bad
// stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	x := c.b[0]
	c.b = c.b[1:]
	return x
}

func (c *cursor) uvarint() uint64 {
	x, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *cursor) varint() int64 {
	x, n := binary.Varint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	x := c.b[:n:n]
	c.b = c.b[n:]
	return x
}

// rowDecoder reads the columns of a body. Payloads and correlation data of the
// records that it makes alias its bytes.
type rowDecoder struct {
	cursor
	left   int // content that is still allowed
	recs   []stream.Record
	metas  []byte
	topics []string
	topic  []int // of each record
	sizes  []int // of each record's payload
}

func (d *rowDecoder) decode(first uint64, count int) ([]stream.Record, error) {
	if count*minRecordSize > len(d.b) {
		return nil, corrupt("shorter than its records")
	}
	d.recs = make([]stream.Record, count)
	for i := range d.recs {
		d.recs[i].Seq = first + uint64(i)
	}
	head := d.byte()
	unit := int(head & unitMask)
	if head&headUnused != 0 || unit >= len(units) {
		return nil, fmt.Errorf("%w: columns of kind %#x", ErrCorrupt, head)
	}
	for _, step := range []func() error{
		func() error { return d.readMetas(head&mixedMeta != 0) },
		d.readDictionary,
		d.readTopics,
		func() error { return d.readTimes(units[unit]) },
		d.readSizes,
		d.readBoots,
		d.readProperties,
		d.readPayloads,
	} {
		if err := step(); err != nil {
			return nil, err
		}
		if d.bad {
			return nil, corrupt("the columns end too early")
		}
	}
	if len(d.b) != 0 {
		return nil, corrupt("bytes after the columns")
	}
	return d.recs, nil
}

// take counts n bytes of content.
func (d *rowDecoder) take(n int) error {
	if n > d.left {
		return fmt.Errorf("%w: more content than allowed", ErrTooLarge)
	}
	d.left -= n
	return nil
}

func (d *rowDecoder) readMetas(mixed bool) error {
	if mixed {
		d.metas = d.bytes(uint64(len(d.recs)))
	} else {
		d.metas = make([]byte, len(d.recs))
		m := d.byte()
		for i := range d.metas {
			d.metas[i] = m
		}
	}
	for i, m := range d.metas {
		if m&metaUnused != 0 || m&metaQoS > 2 {
			return fmt.Errorf("%w: meta byte %#x", ErrCorrupt, m)
		}
		d.recs[i].QoS = m & metaQoS
		d.recs[i].Retain = m&metaRetain != 0
		d.recs[i].Quality = stream.TimeQuality(m & metaQuality >> metaQualityShift)
	}
	return nil
}

// readDictionary reads the topics, each as what it does not share with the one
// before. What they take is bounded by the content allowed: each is used.
func (d *rowDecoder) readDictionary() error {
	total, last := 0, ""
	for {
		n := d.uvarint()
		if n == 0 {
			return nil
		}
		shared := d.uvarint()
		rest := d.bytes(n - 1)
		if shared > uint64(len(last)) || d.bad {
			return corrupt("a topic shares more than there is")
		}
		size := int(shared) + len(rest)
		if total += size; size > maxTopic || total > d.left || len(d.topics) == len(d.recs) {
			return fmt.Errorf("%w: topics", ErrTooLarge)
		}
		var b strings.Builder
		b.Grow(size)
		b.WriteString(last[:shared])
		b.Write(rest)
		last = b.String()
		d.topics = append(d.topics, last)
	}
}

func (d *rowDecoder) readTopics() error {
	next := make([]int, len(d.topics)+1) // 1 + number of the topic that followed; 0: none
	d.topic = make([]int, len(d.recs))
	used, prev := 0, 0 // prev counts from 1; 0 is before the first record
	for i := range d.recs {
		id := 0
		switch code := d.uvarint(); {
		case code == topicForeseen:
			id = next[prev]
		case code == topicNew:
			if used++; used <= len(d.topics) {
				id = used
			}
		case code-topicKnown < uint64(used):
			id = int(code-topicKnown) + 1
		}
		if id == 0 {
			return corrupt("a topic that is not known")
		}
		next[prev], prev = id, id
		d.topic[i] = id - 1
		d.recs[i].Topic = d.topics[id-1]
		if err := d.take(len(d.recs[i].Topic)); err != nil {
			return err
		}
	}
	if used != len(d.topics) {
		return corrupt("a topic without a record")
	}
	return nil
}

func (d *rowDecoder) readTimes(unit int64) error {
	t := int64(0)
	for i := range d.recs {
		t += d.varint()
		d.recs[i].Time = t * unit
	}
	return nil
}

func (d *rowDecoder) readSizes() error {
	d.sizes = make([]int, len(d.recs))
	last := make([]int, len(d.topics))
	for i := range d.sizes {
		n := int64(last[d.topic[i]]) + d.varint()
		if n < 0 || n > int64(len(d.b)) {
			return corrupt("a payload longer than the body")
		}
		last[d.topic[i]], d.sizes[i] = int(n), int(n)
		if err := d.take(int(n)); err != nil {
			return err
		}
	}
	return nil
}

func (d *rowDecoder) readBoots() error {
	var boot stream.Epoch
	mono := int64(0)
	for i := range d.recs {
		if d.metas[i]&metaBoot == 0 {
			continue
		}
		switch d.byte() {
		case 0:
		case 1:
			copy(boot[:], d.bytes(uint64(len(boot))))
		default:
			return corrupt("a boot id of no kind")
		}
		mono += d.varint()
		d.recs[i].Boot, d.recs[i].Mono = boot, mono
	}
	return nil
}

func (d *rowDecoder) readProperties() error {
	for i := range d.recs {
		if d.metas[i]&metaProps == 0 {
			continue
		}
		p := new(stream.Properties)
		if err := d.readPropertiesOf(p); err != nil {
			return err
		}
		d.recs[i].Properties = p
	}
	return nil
}

func (d *rowDecoder) readPropertiesOf(p *stream.Properties) error {
	kinds := d.byte()
	if kinds&propUnused != 0 {
		return fmt.Errorf("%w: properties of kind %#x", ErrCorrupt, kinds)
	}
	p.PayloadUTF8 = kinds&propUTF8 != 0
	if kinds&propContentType != 0 {
		p.ContentType = string(d.text())
	}
	if kinds&propResponse != 0 {
		p.ResponseTopic = string(d.text())
	}
	if kinds&propCorrelation != 0 {
		p.CorrelationData = d.text()
	}
	if kinds&propUser != 0 {
		n := d.uvarint()
		if n > uint64(len(d.b)) { // each takes two bytes at least
			return corrupt("more user properties than bytes")
		}
		if n > uint64(d.left/perProperty) {
			return fmt.Errorf("%w: %d user properties", ErrTooLarge, n)
		}
		p.User = make([]stream.Property, n)
		for i := range p.User {
			p.User[i] = stream.Property{Key: string(d.text()), Value: string(d.text())}
		}
	}
	// What is empty has no flag: one record has one form.
	if kinds == 0 || propertyKinds(p) != kinds {
		return corrupt("properties that are empty")
	}
	return d.take(propertiesSize(p))
}

func (d *rowDecoder) text() []byte { return d.bytes(d.uvarint()) }

// readPayloads finds each payload in the column, which stands topic by topic.
func (d *rowDecoder) readPayloads() error {
	start := make([]int, len(d.topics))
	for i, n := range d.sizes {
		start[d.topic[i]] += n
	}
	at := 0
	for id, n := range start {
		start[id] = at
		at += n
	}
	all := d.bytes(uint64(at))
	if d.bad {
		return nil
	}
	for i, n := range d.sizes {
		from := start[d.topic[i]]
		start[d.topic[i]] += n
		d.recs[i].Payload = all[from : from+n : from+n]
	}
	return nil
}
