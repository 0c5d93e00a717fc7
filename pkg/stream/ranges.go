package stream

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Range is a run of sequence numbers, both ends included. A range with
// Last < First is empty.
type Range struct{ First, Last uint64 }

// Count is how many numbers r holds.
func (r Range) Count() uint64 {
	if r.Last < r.First {
		return 0
	}
	return r.Last - r.First + 1
}

func (r Range) String() string {
	if r.First == r.Last {
		return strconv.FormatUint(r.First, 10)
	}
	return strconv.FormatUint(r.First, 10) + "-" + strconv.FormatUint(r.Last, 10)
}

// RangeSet is a set of sequence numbers, kept as sorted, disjoint ranges that
// do not touch. The zero value is empty. Add at the end, the usual case, takes
// constant time; every other operation is linear in the number of ranges that
// it passes. The largest uint64 cannot be a member.
type RangeSet struct{ r []Range }

// NewRangeSet makes a set of the union of ranges, in any order.
func NewRangeSet(ranges ...Range) RangeSet {
	var s RangeSet
	for _, r := range ranges {
		s.Add(r)
	}
	return s
}

// Ranges returns the set's ranges in order. The slice belongs to the set and is
// valid until it is changed.
func (s *RangeSet) Ranges() []Range { return s.r }

// Len is the number of ranges.
func (s *RangeSet) Len() int { return len(s.r) }

// IsEmpty reports whether the set has no member.
func (s *RangeSet) IsEmpty() bool { return len(s.r) == 0 }

// Count is the number of members.
func (s *RangeSet) Count() (n uint64) {
	for _, r := range s.r {
		n += r.Count()
	}
	return n
}

// Min is the smallest member, 0 for an empty set.
func (s *RangeSet) Min() uint64 {
	if len(s.r) == 0 {
		return 0
	}
	return s.r[0].First
}

// Max is the largest member, 0 for an empty set.
func (s *RangeSet) Max() uint64 {
	if len(s.r) == 0 {
		return 0
	}
	return s.r[len(s.r)-1].Last
}

// Clone copies the set.
func (s *RangeSet) Clone() RangeSet { return RangeSet{slices.Clone(s.r)} }

// Equal reports whether both sets have the same members.
func (s *RangeSet) Equal(o *RangeSet) bool { return slices.Equal(s.r, o.r) }

// search gives the index of the first range that ends at or after n.
func (s *RangeSet) search(n uint64) int {
	if l := len(s.r); l == 0 || s.r[l-1].Last < n {
		return l
	}
	i, _ := slices.BinarySearchFunc(s.r, n, func(r Range, n uint64) int {
		switch {
		case r.Last < n:
			return -1
		case r.Last > n:
			return 1
		}
		return 0
	})
	return i
}

// Contains reports whether n is a member.
func (s *RangeSet) Contains(n uint64) bool {
	i := s.search(n)
	return i < len(s.r) && s.r[i].First <= n
}

// ContainsRange reports whether all of r is in the set. An empty r is.
func (s *RangeSet) ContainsRange(r Range) bool {
	if r.Count() == 0 {
		return true
	}
	i := s.search(r.First)
	return i < len(s.r) && s.r[i].First <= r.First && r.Last <= s.r[i].Last
}

// Overlaps reports whether any number of r is in the set.
func (s *RangeSet) Overlaps(r Range) bool {
	if r.Count() == 0 {
		return false
	}
	i := s.search(r.First)
	return i < len(s.r) && s.r[i].First <= r.Last
}

// Add makes all of r members.
func (s *RangeSet) Add(r Range) {
	if r.Count() == 0 {
		return
	}
	l := len(s.r)
	if l == 0 || s.r[l-1].Last+1 < r.First {
		s.r = append(s.r, r)
		return
	}
	if last := &s.r[l-1]; r.First >= last.First {
		last.Last = max(last.Last, r.Last)
		return
	}
	i := s.search(max(r.First, 1) - 1) // touching counts
	j := i
	for j < l && (s.r[j].First <= r.Last || s.r[j].First-1 == r.Last) {
		r.First, r.Last = min(r.First, s.r[j].First), max(r.Last, s.r[j].Last)
		j++
	}
	if i == j {
		s.r = slices.Insert(s.r, i, r)
		return
	}
	s.r[i] = r
	s.r = slices.Delete(s.r, i+1, j)
}

// AddSet makes all of o members.
func (s *RangeSet) AddSet(o *RangeSet) {
	for _, r := range o.r {
		s.Add(r)
	}
}

// Remove makes no number of r a member.
func (s *RangeSet) Remove(r Range) {
	if r.Count() == 0 {
		return
	}
	i := s.search(r.First)
	j := i
	var keep [2]Range
	n := 0
	for j < len(s.r) && s.r[j].First <= r.Last {
		if x := s.r[j]; x.First < r.First {
			keep[n] = Range{x.First, r.First - 1}
			n++
		}
		if x := s.r[j]; x.Last > r.Last {
			keep[n] = Range{r.Last + 1, x.Last}
			n++
		}
		j++
	}
	if i < j {
		s.r = slices.Replace(s.r, i, j, keep[:n]...)
	}
}

// RemoveSet makes no member of o a member.
func (s *RangeSet) RemoveSet(o *RangeSet) {
	for _, r := range o.r {
		s.Remove(r)
	}
}

// Within yields the parts of the set that lie in r, in order. The set must not
// change while it runs.
func (s *RangeSet) Within(r Range) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if r.Count() == 0 {
			return
		}
		for i := s.search(r.First); i < len(s.r) && s.r[i].First <= r.Last; i++ {
			if !yield(Range{max(s.r[i].First, r.First), min(s.r[i].Last, r.Last)}) {
				return
			}
		}
	}
}

// Missing yields the parts of r that are not in the set, in order. The set must
// not change while it runs.
func (s *RangeSet) Missing(r Range) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		next := r.First
		for in := range s.Within(r) {
			if next < in.First && !yield(Range{next, in.First - 1}) {
				return
			}
			next = in.Last + 1
		}
		if next <= r.Last && r.Count() > 0 {
			yield(Range{next, r.Last})
		}
	}
}

// Collect makes a set of what seq yields.
func Collect(seq iter.Seq[Range]) (s RangeSet) {
	for r := range seq {
		s.Add(r)
	}
	return s
}

// String gives "1-9000,9005"; an empty set is "".
func (s *RangeSet) String() string {
	var b strings.Builder
	for i, r := range s.r {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// ParseRangeSet reads what String gives: ranges in ascending order that do not
// overlap, of numbers from 1. At most limit ranges are read; more is an error.
func ParseRangeSet(text string, limit int) (s RangeSet, err error) {
	if text == "" {
		return s, nil
	}
	for n := 0; text != ""; n++ {
		var one string
		one, text, _ = strings.Cut(text, ",")
		first, last, isRun := strings.Cut(one, "-")
		if !isRun {
			last = first
		}
		r := Range{}
		if r.First, err = strconv.ParseUint(first, 10, 64); err == nil {
			r.Last, err = strconv.ParseUint(last, 10, 64)
		}
		switch {
		case err != nil || r.First == 0 || r.Last < r.First || r.Last == ^uint64(0):
			return s, fmt.Errorf("%.40q is not a range of sequence numbers", one)
		case n == limit:
			return s, fmt.Errorf("more than %d ranges", limit)
		case len(s.r) > 0 && r.First <= s.Max():
			return s, fmt.Errorf("range %s is out of order", one)
		}
		s.Add(r)
	}
	return s, nil
}
