package soak

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// series are samples of the metrics page by name and labels, without the
// program's prefix.
type series map[string]float64

var asking = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// read asks for the metrics of the edge.
func read(ctx context.Context, addr string) (series, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := asking.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	defer res.Body.Close()
	return parse(io.LimitReader(res.Body, 16<<20))
}

func parse(r io.Reader) (series, error) {
	all := series{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := s.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			all[strings.TrimPrefix(line[:at], "packetboat_edge_")] = v
		}
	}
	if s.Err() != nil {
		return nil, fmt.Errorf("reading metrics: %w", s.Err())
	}
	return all, nil
}

// A counter that says why is recognised by its name: one that is not found here
// leaves a behaviour unseen, which breaks the soak, and not the other way round.
var (
	why      = regexp.MustCompile(`^(mqtt|sensor|gate|tls|accept|listener)[a-z_]*(error|refus|fail|drop|reject|denied|bad_login|stall|timeout|takeover|withheld|evict|expelled|invalid|too_many|too_large|slow|limit)[a-z_]*_total`)
	notWhy   = regexp.MustCompile(`^sensor_messages_dropped_total`) // a rule of the operator's
	ordinary = regexp.MustCompile(`^mqtt_(connects|connections)_total`)
)

// must names, for behaviours that one counter is made for, which: others may
// rise by what the behaviour does on the side.
var must = map[string]*regexp.Regexp{
	"wrong-passwords": regexp.MustCompile(`bad_logins`),
	"same-id-flood":   regexp.MustCompile(`takeovers`),
	"slow-publish":    regexp.MustCompile(`packet_time`),
	"no-connect":      regexp.MustCompile(`no_connect`),
	"bad-connect":     regexp.MustCompile(`refused_connects`),
	"topic-alias":     regexp.MustCompile(`alias`),
	"utf8":            regexp.MustCompile(`malformed`),
	"too-large":       regexp.MustCompile(`packet_too_large|packet_size`),
	"huge-length":     regexp.MustCompile(`packet_too_large|packet_size`),
	"bad-publish":     regexp.MustCompile(`malformed|"protocol"`),
	"receive-maximum": regexp.MustCompile(`receive_maximum|unreleased|refused_messages`),
	"retained-hoard":  regexp.MustCompile(`retained`),
	"never-reads":     regexp.MustCompile(`fan_out_dropped|slow_reader|write_time`),
}

// tells reports whether what rose says what a behaviour did.
func (m series) tells(behaviour string) bool {
	want := must[behaviour]
	if want == nil {
		return m.sum() > 0
	}
	for name := range m {
		if want.MatchString(name) {
			return true
		}
	}
	return false
}

// moved gives the counters that say why and rose from a to b, and by how much;
// with legal those of ordinary connections too, where nothing else rose.
func moved(a, b series, legal bool) series {
	rise := func(which func(string) bool) series {
		m := series{}
		for name, v := range b {
			if d := v - a[name]; d > 0 && which(name) {
				m[name] = d
			}
		}
		return m
	}
	m := rise(func(name string) bool { return why.MatchString(name) && !notWhy.MatchString(name) })
	if len(m) == 0 && legal {
		m = rise(ordinary.MatchString)
	}
	return m
}

// String names what moved, the largest first.
func (m series) String() string {
	names := slices.Collect(maps.Keys(m))
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), strings.Compare(a, b))
	})
	var parts []string
	for i, n := range names {
		if i == 3 {
			parts = append(parts, "…")
			break
		}
		short := strings.NewReplacer("mqtt_", "", "sensor_", "", "_total", "", `"`, "").Replace(n)
		parts = append(parts, fmt.Sprintf("%s +%.0f", short, m[n]))
	}
	return strings.Join(parts, ", ")
}

// sum is by how much all of them rose.
func (m series) sum() (n float64) {
	for _, v := range m {
		n += v
	}
	return n
}
