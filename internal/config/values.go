package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size. It is written as a number with a unit: B, kB, MB, GB, TB
// (powers of 1,000) or KiB, MiB, GiB, TiB (powers of 1,024); 0 needs none.
type Bytes int64

var sizeUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// ParseBytes reads a size such as "512MiB" or "1.5 GB". Case does not matter.
func ParseBytes(s string) (Bytes, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := s[len(number):]
	number = strings.TrimSpace(number)
	size := int64(-1)
	for _, u := range sizeUnits {
		if strings.EqualFold(u.name, unit) {
			size = u.size
		}
	}
	if unit == "" && number == "0" {
		size = 1
	}
	if size < 0 {
		return 0, fmt.Errorf("%.40q is not a size: write 512MiB, 2GB or 4096B", s)
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/size {
			return 0, fmt.Errorf("%.40q is out of range", s)
		}
		return Bytes(n * size), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || strings.ContainsAny(number, "xXeEpP_") {
		return 0, fmt.Errorf("%.40q is not a size: write 512MiB, 2GB or 4096B", s)
	}
	if f *= float64(size); f < 0 || f >= math.MaxInt64 {
		return 0, fmt.Errorf("%.40q is out of range", s)
	}
	return Bytes(f), nil
}

// String gives the size in the largest unit that keeps it whole.
func (b Bytes) String() string {
	if b == 0 {
		return "0B"
	}
	best, digits := "", math.MaxInt
	for _, u := range sizeUnits {
		if n := int64(b) / u.size; n*u.size == int64(b) {
			if s := strconv.FormatInt(n, 10); len(s) < digits {
				best, digits = s+u.name, len(s)
			}
		}
	}
	return best
}

// MarshalText writes what String gives.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads what ParseBytes reads.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// Duration is a span of time, written as time.ParseDuration reads it, with "d"
// for days of 24 hours in front: "90s", "1h30m", "7d", "1d12h". 0 needs no
// unit.
type Duration time.Duration

const day = 24 * time.Hour

// ParseDuration reads a span of time that is not negative.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%.40q is not a duration: write 90s, 5m, 1h30m or 7d", s)
	rest, days := s, int64(0)
	if number, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return 0, bad
		}
		if int64(n) > int64(math.MaxInt64/day) {
			return 0, fmt.Errorf("%.40q is out of range", s)
		}
		rest, days = after, int64(n)
		if rest == "" {
			return Duration(time.Duration(days) * day), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, bad
	}
	if d < 0 || strings.HasPrefix(rest, "-") {
		return 0, fmt.Errorf("%.40q is negative", s)
	}
	sum := time.Duration(days)*day + d
	if sum < d {
		return 0, fmt.Errorf("%.40q is out of range", s)
	}
	return Duration(sum), nil
}

// String gives the shortest form: "7d", "1h30m", "100ms".
func (d Duration) String() string {
	t := time.Duration(d)
	if t == 0 {
		return "0s"
	}
	out := ""
	if t >= day {
		out = strconv.FormatInt(int64(t/day), 10) + "d"
		if t %= day; t == 0 {
			return out
		}
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return out + s
}

// MarshalText writes what String gives.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}
