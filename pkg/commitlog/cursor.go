package commitlog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Cursor is a place in a log: for each shard the offset to read next. A shard
// that it does not name is read from its floor, so the zero value is the
// beginning. Copies share nothing once either is advanced.
type Cursor struct {
	next []shardOffset // ascending in shard; replaced, never changed in place
}

type shardOffset struct {
	shard  int
	offset int64
}

// Next is the offset to read next in a shard.
func (c *Cursor) Next(shard int) int64 {
	if i, ok := c.find(shard); ok {
		return c.next[i].offset
	}
	return 0
}

// Set places the cursor in one shard.
func (c *Cursor) Set(shard int, offset int64) {
	i, ok := c.find(shard)
	c.next = slices.Clone(c.next)
	if !ok {
		c.next = slices.Insert(c.next, i, shardOffset{shard: shard})
	}
	c.next[i].offset = offset
}

// Advance moves the cursor behind s.
func (c *Cursor) Advance(s *Stored) { c.Set(s.Shard, s.Offset+1) }

func (c *Cursor) find(shard int) (int, bool) {
	return slices.BinarySearchFunc(c.next, shard, func(x shardOffset, shard int) int { return x.shard - shard })
}

// String gives "0:123,1:5"; the beginning is "".
func (c Cursor) String() string {
	var b []byte
	for i, x := range c.next {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(x.shard), 10)
		b = append(b, ':')
		b = strconv.AppendInt(b, x.offset, 10)
	}
	return string(b)
}

// ParseCursor reads what String gives.
func ParseCursor(text string) (c Cursor, err error) {
	for more := text != ""; more; {
		var one string
		one, text, more = strings.Cut(text, ",")
		before, after, found := strings.Cut(one, ":")
		shard, err := strconv.ParseUint(before, 10, 31)
		if err != nil || !found || shard >= MaxShards {
			return Cursor{}, fmt.Errorf("%.40q is not a place in a log: want shard:offset", one)
		}
		offset, err := strconv.ParseUint(after, 10, 63)
		if err != nil {
			return Cursor{}, fmt.Errorf("%.40q is not a place in a log: want shard:offset", one)
		}
		if n := len(c.next); n > 0 && c.next[n-1].shard >= int(shard) {
			return Cursor{}, fmt.Errorf("shard %d is out of order", shard)
		}
		c.next = append(c.next, shardOffset{int(shard), int64(offset)})
	}
	return c, nil
}
