package badlink

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Step is one change of a schedule.
type Step struct {
	At    time.Duration // since Run began
	Text  string        // as written, for messages
	Apply func(*Conditions)
}

// Schedule is a list of changes, in order of time.
type Schedule []Step

// maxSteps bounds a schedule.
const maxSteps = 10_000

// ParseSchedule reads "10s:cut=blackhole,15s:up,20s:rate=2000": steps of a time
// since the start and a change as ParseChange reads it. Steps at the same time
// are applied in the order written.
func ParseSchedule(text string) (Schedule, error) {
	var s Schedule
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		at, change, ok := strings.Cut(part, ":")
		if !ok {
			return nil, fmt.Errorf("schedule step %.60q: want <time>:<change>, as in 10s:cut=blackhole", part)
		}
		d, err := time.ParseDuration(at)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("schedule step %.60q: %.20q is not a time such as 10s", part, at)
		}
		apply, err := ParseChange(change)
		if err != nil {
			return nil, fmt.Errorf("schedule step %.60q: %w", part, err)
		}
		if len(s) == maxSteps {
			return nil, fmt.Errorf("a schedule has at most %d steps", maxSteps)
		}
		s = append(s, Step{At: d, Text: part, Apply: apply})
	}
	slices.SortStableFunc(s, func(a, b Step) int { return int(max(min(a.At-b.At, 1), -1)) })
	return s, nil
}

// ParseChange reads one change of the conditions: up, refuse, reset, blackhole,
// cut=<one of these>, rate=<bytes/s both ways>, rate-up=, rate-down=, delay=,
// jitter=, loss=<0..1>, stall=.
func ParseChange(text string) (func(*Conditions), error) {
	key, value, ok := strings.Cut(strings.TrimSpace(text), "=")
	if !ok {
		key, value = "cut", key
	}
	switch key {
	case "cut":
		c, err := ParseCut(value)
		return func(cond *Conditions) { cond.Cut = c }, err
	case "rate", "rate-up", "rate-down":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s=%.20s: want bytes per second, 0 for no limit", key, value)
		}
		return func(cond *Conditions) {
			if key != "rate-down" {
				cond.RateUp = n
			}
			if key != "rate-up" {
				cond.RateDown = n
			}
		}, nil
	case "loss":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= 1) {
			return nil, fmt.Errorf("loss=%.20s: want a share between 0 and 1", value)
		}
		return func(cond *Conditions) { cond.Loss = f }, nil
	case "delay", "jitter", "stall":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d > time.Minute {
			return nil, fmt.Errorf("%s=%.20s: want a time between 0 and 1m", key, value)
		}
		return func(cond *Conditions) {
			*map[string]*time.Duration{"delay": &cond.Delay, "jitter": &cond.Jitter, "stall": &cond.Stall}[key] = d
		}, nil
	}
	return nil, fmt.Errorf("%.20q cannot be changed: use cut, rate, rate-up, rate-down, delay, jitter, loss or stall", key)
}
