package wire

import (
	"fmt"
	"sort"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// FormatCoverage gives the properties of CONNACK that say what is settled: one
// for each epoch, in the order of cov. Where bounds are met it says less than
// is settled, but always names every epoch: for one that is not named the edge
// gives up its records as stale. So cov should hold only epochs of pb-held,
// which are at most MaxEpochs.
func FormatCoverage(cov []stream.EpochCoverage) []stream.Property {
	props := make([]stream.Property, len(cov))
	left := budget(MaxText)
	for i := range cov {
		props[i] = stream.Property{Key: PropCoverage, Value: cov[i].Epoch.String()}
		left.fits(PropCoverage, props[i].Value)
	}
	for i := range cov { // the detail, as far as it fits
		detail := ""
		for _, l := range cov[i].Lanes {
			room := min(int(left)-len(detail), laneText)
			detail += formatLane(&l, room)
		}
		if detail != "" {
			props[i].Value += ":" + detail[1:]
			left -= budget(len(detail))
		}
	}
	return props
}

// laneText bounds the text of one lane, so that an epoch's property stays below
// MQTT's 65,535 bytes and no epoch takes all there is.
const laneText = 20_000

// formatLane gives ";n=<ranges>" and, if any of them are lost, ";nl=<ranges>",
// for the numbers up to some point that keeps within MaxRanges and room bytes.
// Both lists end at the same point: a lost number must not pass as one that is
// in the log.
func formatLane(l *stream.LaneCoverage, room int) string {
	if !l.Lane.Valid() || l.Settled.IsEmpty() {
		return ""
	}
	text := func(n int) string { // of the first n settled ranges
		upto := l.Settled.Ranges()[n-1].Last
		return laneUpTo(l, upto)
	}
	fits := func(s string) bool { return s != "" && len(s) <= room }
	n := min(l.Settled.Len(), MaxRanges)
	if s := text(n); fits(s) {
		return s
	}
	// The most ranges that fit; one more does not.
	n = sort.Search(n, func(n int) bool { return !fits(text(n + 1)) })
	best := ""
	if n > 0 {
		best = text(n)
	}
	// Part of the next range, up to where its lost ones still fit.
	next := l.Settled.Ranges()[n]
	var cuts []uint64
	for r := range l.Lost.Within(next) {
		if cuts = append(cuts, r.Last); len(cuts) > MaxRanges {
			break
		}
	}
	n = sort.Search(len(cuts), func(i int) bool { return !fits(laneUpTo(l, cuts[i])) })
	if n > 0 {
		best = laneUpTo(l, cuts[n-1])
	}
	return best
}

// laneUpTo gives the text for the numbers up to n; "" if it has too many ranges.
func laneUpTo(l *stream.LaneCoverage, n uint64) string {
	part := stream.Range{First: 1, Last: n}
	settled, lost := stream.Collect(l.Settled.Within(part)), stream.Collect(l.Lost.Within(part))
	if settled.Len() > MaxRanges || lost.Len() > MaxRanges {
		return ""
	}
	name := laneLetters[l.Lane : l.Lane+1]
	s := ";" + name + "=" + settled.String()
	if !lost.IsEmpty() {
		s += ";" + name + "l=" + lost.String()
	}
	return s
}

// ParseCoverage reads what FormatCoverage gives; other properties are passed
// over, and so are fields that are not known here.
func ParseCoverage(props []stream.Property) ([]stream.EpochCoverage, error) {
	var cov []stream.EpochCoverage
	seen := make(map[stream.Epoch]bool)
	for _, p := range props {
		if p.Key != PropCoverage {
			continue
		}
		e, rest, err := splitEpoch(PropCoverage, p.Value)
		if err != nil {
			return nil, err
		}
		if seen[e] {
			return nil, fmt.Errorf("%w: %s: an epoch twice", ErrMalformed, PropCoverage)
		}
		seen[e] = true
		c := stream.EpochCoverage{Epoch: e}
		if c.Lanes, err = parseLanes(rest); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, PropCoverage, err)
		}
		cov = append(cov, c)
	}
	return cov, nil
}

func parseLanes(text string) ([]stream.LaneCoverage, error) {
	var lanes []stream.LaneCoverage
	for name, value := range fields(text) {
		isLost := strings.HasSuffix(name, "l")
		letter := strings.TrimSuffix(name, "l")
		if len(letter) != 1 || !laneOf(letter[0]).Valid() {
			continue
		}
		s, err := stream.ParseRangeSet(value, MaxRanges)
		if err != nil {
			return nil, err
		}
		lane, n := laneOf(letter[0]), len(lanes)
		switch {
		case !isLost:
			for _, l := range lanes {
				if l.Lane == lane {
					return nil, fmt.Errorf("lane %s twice", lane)
				}
			}
			lanes = append(lanes, stream.LaneCoverage{Lane: lane, Settled: s})
		case n == 0 || lanes[n-1].Lane != lane || !lanes[n-1].Lost.IsEmpty():
			return nil, fmt.Errorf("%s does not follow %s", name, letter)
		default:
			for _, r := range s.Ranges() {
				if !lanes[n-1].Settled.ContainsRange(r) {
					return nil, fmt.Errorf("%s is lost and not settled", r)
				}
			}
			lanes[n-1].Lost = s
		}
	}
	return lanes, nil
}
