package codec

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// rowColumns builds the plain form of a body. Its memory is reused.
type rowColumns struct {
	ids   map[string]int // topic to its number in the dictionary
	next  []int          // by topic: the one that followed it last, -1: none
	size  []int          // by topic: length of its last payload
	topic []int          // of each record
	codes []byte
	metas []byte
	start []int // by topic: where its payloads begin
}

func newRowColumns() *rowColumns { return &rowColumns{ids: make(map[string]int)} }

// append appends the plain form of recs to dst.
func (c *rowColumns) append(dst []byte, recs []stream.Record) ([]byte, error) {
	clear(c.ids)
	c.next, c.size, c.topic = append(c.next[:0], -1), c.size[:0], c.topic[:0]
	uniform, err := c.check(recs)
	if err != nil {
		return dst, err
	}
	metas := c.metas
	unit := commonUnit(recs)
	head := byte(unit)
	if !uniform {
		head |= mixedMeta
	}
	dst = append(dst, head)
	if uniform {
		dst = append(dst, metas[0])
	} else {
		dst = append(dst, metas...)
	}
	dst = c.appendTopics(dst, recs)
	dst = appendTimes(dst, recs, units[unit])
	dst = c.appendSizes(dst, recs)
	dst = c.appendBoots(dst, recs, metas)
	for i := range recs {
		if metas[i]&metaProps != 0 {
			dst = appendProperties(dst, recs[i].Properties)
		}
	}
	return c.appendPayloads(dst, recs), nil
}

// check refuses what cannot be encoded, and fills in the meta bytes.
func (c *rowColumns) check(recs []stream.Record) (uniform bool, err error) {
	if _, err := checkRecords(recs); err != nil {
		return false, err
	}
	c.metas, uniform = c.metas[:0], true
	for i := range recs {
		m := metaOf(&recs[i])
		c.metas = append(c.metas, m)
		uniform = uniform && m == c.metas[0]
	}
	return uniform, nil
}

// checkRecords refuses what cannot be encoded, and counts its content.
func checkRecords(recs []stream.Record) (content int, err error) {
	if len(recs) == 0 || len(recs) > MaxRecords {
		return 0, fmt.Errorf("%w: %d records, want 1 to %d", ErrInvalid, len(recs), MaxRecords)
	}
	for i := range recs {
		r := &recs[i]
		if r.QoS > 2 || r.Quality > 3 || len(r.Topic) > maxTopic {
			return 0, fmt.Errorf("%w: number %d has QoS %d, time quality %d and a topic of %d bytes", ErrInvalid, r.Seq, r.QoS, r.Quality, len(r.Topic))
		}
		if content += contentSize(r); content > MaxBytes {
			return 0, fmt.Errorf("%w: more than %d bytes of content", ErrInvalid, MaxBytes)
		}
	}
	return content, nil
}

// metaOf is the meta byte of a record.
func metaOf(r *stream.Record) byte {
	m := r.QoS | byte(r.Quality)<<metaQualityShift
	if r.Retain {
		m |= metaRetain
	}
	if !r.Boot.IsZero() || r.Mono != 0 {
		m |= metaBoot
	}
	if !r.Properties.IsZero() {
		m |= metaProps
	}
	return m
}

// contentSize is what a record counts towards Limits.Bytes.
func contentSize(r *stream.Record) int {
	n := len(r.Topic) + len(r.Payload)
	if r.Properties != nil {
		n += propertiesSize(r.Properties)
	}
	return n
}

func propertiesSize(p *stream.Properties) int {
	n := len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
	for _, u := range p.User {
		n += len(u.Key) + len(u.Value) + perProperty
	}
	return n
}

// commonUnit is the coarsest unit that holds all times.
func commonUnit(recs []stream.Record) int {
	unit := unitSecond
	for i := range recs {
		for recs[i].Time%units[unit] != 0 {
			unit--
		}
	}
	return unit
}

// appendTopics writes the dictionary, then a code for each record.
func (c *rowColumns) appendTopics(dst []byte, recs []stream.Record) []byte {
	c.codes = c.codes[:0]
	prev, prevName := 0, "" // topics count from 1 here; 0 is before the first record
	for i := range recs {
		name := recs[i].Topic
		id, known := c.ids[name]
		switch {
		case !known:
			id = len(c.ids) + 1
			c.ids[name] = id
			c.next, c.size = append(c.next, -1), append(c.size, 0)
			c.codes = append(c.codes, topicNew)
			shared := sharedPrefix(prevName, name)
			dst = binary.AppendUvarint(dst, uint64(len(name)-shared)+1)
			dst = binary.AppendUvarint(dst, uint64(shared))
			dst = append(dst, name[shared:]...)
			prevName = name
		case c.next[prev] == id:
			c.codes = append(c.codes, topicForeseen)
		default:
			c.codes = binary.AppendUvarint(c.codes, uint64(id-1+topicKnown))
		}
		c.next[prev] = id
		prev = id
		c.topic = append(c.topic, id-1)
	}
	dst = append(dst, 0) // the end of the dictionary
	return append(dst, c.codes...)
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendTimes(dst []byte, recs []stream.Record, unit int64) []byte {
	last := int64(0)
	for i := range recs {
		t := recs[i].Time / unit
		dst = binary.AppendVarint(dst, t-last)
		last = t
	}
	return dst
}

// appendSizes writes each payload's length less that of its topic's last.
func (c *rowColumns) appendSizes(dst []byte, recs []stream.Record) []byte {
	for i := range recs {
		n, size := len(recs[i].Payload), &c.size[c.topic[i]]
		dst = binary.AppendVarint(dst, int64(n)-int64(*size))
		*size = n
	}
	return dst
}

func (c *rowColumns) appendBoots(dst []byte, recs []stream.Record, metas []byte) []byte {
	var boot stream.Epoch
	mono := int64(0)
	for i := range recs {
		if metas[i]&metaBoot == 0 {
			continue
		}
		if r := &recs[i]; r.Boot == boot {
			dst = append(dst, 0)
		} else {
			boot = r.Boot
			dst = append(append(dst, 1), boot[:]...)
		}
		dst = binary.AppendVarint(dst, recs[i].Mono-mono)
		mono = recs[i].Mono
	}
	return dst
}

func appendProperties(dst []byte, p *stream.Properties) []byte {
	kinds := propertyKinds(p)
	dst = append(dst, kinds)
	for _, x := range [...]struct {
		kind byte
		text string
	}{{propContentType, p.ContentType}, {propResponse, p.ResponseTopic}, {propCorrelation, string(p.CorrelationData)}} {
		if kinds&x.kind != 0 {
			dst = appendText(dst, x.text)
		}
	}
	if kinds&propUser != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.User)))
		for _, u := range p.User {
			dst = appendText(appendText(dst, u.Key), u.Value)
		}
	}
	return dst
}

// propertyKinds says which properties there are; 0: none.
func propertyKinds(p *stream.Properties) (kinds byte) {
	for _, x := range [...]struct {
		kind byte
		set  bool
	}{
		{propUTF8, p.PayloadUTF8}, {propContentType, p.ContentType != ""}, {propResponse, p.ResponseTopic != ""},
		{propCorrelation, len(p.CorrelationData) > 0}, {propUser, len(p.User) > 0},
	} {
		if x.set {
			kinds |= x.kind
		}
	}
	return kinds
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendPayloads writes the payloads topic by topic, where they resemble each
// other most, in the order of the dictionary.
func (c *rowColumns) appendPayloads(dst []byte, recs []stream.Record) []byte {
	c.start = append(c.start[:0], make([]int, len(c.size))...)
	total := 0
	for i := range recs {
		c.start[c.topic[i]] += len(recs[i].Payload)
		total += len(recs[i].Payload)
	}
	at := len(dst)
	for id, n := range c.start {
		c.start[id] = at
		at += n
	}
	dst = slices.Grow(dst, total)[:len(dst)+total]
	for i := range recs {
		at := &c.start[c.topic[i]]
		*at += copy(dst[*at:], recs[i].Payload)
	}
	return dst
}
