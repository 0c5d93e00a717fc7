package wire

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// heldMore is the value of the pb-held that says that not all epochs are named.
const heldMore = "more"

// FormatHeld gives the properties of CONNECT that say what an edge holds: one
// for each epoch, oldest first as they are in held. Where bounds are met it
// says more than is held, never less: first ranges are joined, then epochs are
// left out (never the current one) and a last property says so.
func FormatHeld(held []stream.Held) []stream.Property {
	groups := groupHeld(held)
	left := budget(MaxText - len(PropHeld) - len(heldMore) - propertyCost)
	for _, ranges := range []int{MaxRanges, 1} {
		if props, ok := formatHeld(groups, ranges, left); ok {
			return props
		}
	}
	// The current epoch first, then the oldest: they are drained first.
	order := make([][]stream.Held, 0, len(groups))
	for _, g := range groups {
		if g[0].Current {
			order = append(order, g)
		}
	}
	for _, g := range groups {
		if !g[0].Current {
			order = append(order, g)
		}
	}
	props, _ := formatHeld(order, 1, left)
	return append(props, stream.Property{Key: PropHeld, Value: heldMore})
}

// groupHeld puts together what belongs to one epoch.
func groupHeld(held []stream.Held) (groups [][]stream.Held) {
	at := make(map[stream.Epoch]int)
	for _, h := range held {
		i, ok := at[h.Epoch]
		if !ok {
			i = len(groups)
			at[h.Epoch] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], h)
	}
	return groups
}

// formatHeld says as many groups as fit; ok says that they all do.
func formatHeld(groups [][]stream.Held, ranges int, left budget) (props []stream.Property, ok bool) {
	var log stream.LogID // the last one named
	for _, g := range groups {
		value := formatGroup(g, ranges, log)
		if len(props) == MaxEpochs || !left.fits(PropHeld, value) {
			return props, false
		}
		if a := g[0].Answered; !a.IsZero() {
			log = a
		}
		props = append(props, stream.Property{Key: PropHeld, Value: value})
	}
	return props, true
}

// formatGroup gives "<epoch>:c;a=<log>;u=<head>/<ranges>;…".
func formatGroup(g []stream.Held, ranges int, log stream.LogID) string {
	var b strings.Builder
	b.WriteString(g[0].Epoch.String())
	b.WriteByte(':')
	if g[0].Current {
		b.WriteString("c;")
	}
	switch a := g[0].Answered; {
	case a.IsZero():
	case a == log: // the last one named
		b.WriteString("a;")
	default:
		b.WriteString("a=" + a.String() + ";")
	}
	for _, h := range g {
		if !h.Lane.Valid() {
			continue
		}
		b.WriteByte(laneLetters[h.Lane])
		b.WriteByte('=')
		b.WriteString(strconv.FormatUint(h.Head, 10))
		b.WriteByte('/')
		b.WriteString(overstate(h.Ranges, ranges))
		b.WriteByte(';')
	}
	return strings.TrimSuffix(b.String(), ";")
}

// overstate gives s in at most n ranges: the last one takes in the rest.
func overstate(s stream.RangeSet, n int) string {
	if s.Len() > n {
		s = s.Clone()
		s.Add(stream.Range{First: s.Ranges()[n-1].First, Last: s.Max()})
	}
	return s.String()
}

// HeldIsPartial reports whether an edge holds more epochs than it could name.
func HeldIsPartial(props []stream.Property) bool {
	for _, p := range props {
		if p.Key == PropHeld && p.Value == heldMore {
			return true
		}
	}
	return false
}

// ParseHeld reads what FormatHeld gives; other properties are passed over, and
// so are fields that are not known here. An epoch without lanes stands in one
// Held whose Lane is 0.
func ParseHeld(props []stream.Property) ([]stream.Held, error) {
	var held []stream.Held
	seen := make(map[stream.Epoch]bool)
	left := budget(MaxText)
	var log stream.LogID
	for _, p := range props {
		if p.Key != PropHeld || p.Value == heldMore {
			continue
		}
		e, rest, err := splitEpoch(PropHeld, p.Value)
		if err != nil {
			return nil, err
		}
		if seen[e] || len(seen) == MaxEpochs || !left.fits(p.Key, p.Value) {
			return nil, fmt.Errorf("%w: %s: an epoch twice, or too many", ErrMalformed, PropHeld)
		}
		seen[e] = true
		group, err := parseGroup(e, rest, log)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, PropHeld, err)
		}
		if a := group[0].Answered; !a.IsZero() {
			log = a
		}
		held = append(held, group...)
	}
	return held, nil
}

func parseGroup(e stream.Epoch, text string, log stream.LogID) ([]stream.Held, error) {
	var group []stream.Held
	all := stream.Held{Epoch: e}
	for name, value := range fields(text) {
		switch {
		case name == "c":
			all.Current = true
		case name == "a" && value == "":
			all.Answered = log
		case name == "a":
			l, err := stream.ParseLogID(value)
			if err != nil {
				return nil, err
			}
			all.Answered = l
		case len(name) == 1 && laneOf(name[0]).Valid():
			h := stream.Held{Lane: laneOf(name[0])}
			head, ranges, _ := strings.Cut(value, "/")
			var err error
			if h.Head, err = strconv.ParseUint(head, 10, 64); err != nil || h.Head == ^uint64(0) {
				return nil, fmt.Errorf("%.40q is not a head", head)
			}
			if h.Ranges, err = stream.ParseRangeSet(ranges, MaxRanges); err != nil {
				return nil, err
			}
			if h.Ranges.Max() > h.Head {
				return nil, fmt.Errorf("number %d above the head %d", h.Ranges.Max(), h.Head)
			}
			for _, o := range group {
				if o.Lane == h.Lane {
					return nil, fmt.Errorf("lane %s twice", h.Lane)
				}
			}
			group = append(group, h)
		}
	}
	if len(group) == 0 {
		group = append(group, stream.Held{})
	}
	for i := range group {
		group[i].Epoch, group[i].Current, group[i].Answered = all.Epoch, all.Current, all.Answered
	}
	return group, nil
}
