package demo

import (
	"fmt"
	"html/template"
	"math"
	"os"
	"runtime"
	"strings"
	"time"
)

// series is one line of a plot.
type series struct {
	name  string
	class string
	value func(before, now point) float64
}

// plot is one picture of the report.
type plot struct {
	title  string
	unit   string
	series []series
}

func rate(of func(point) int64) func(a, b point) float64 {
	return func(a, b point) float64 {
		if b.at <= a.at {
			return 0
		}
		return float64(of(b)-of(a)) / (b.at - a.at)
	}
}

var plots = []plot{
	{"Messages per second", "messages/s", []series{
		{"acknowledged to the sensors", "a", rate(func(p point) int64 { return p.acknowledged })},
		{"appended to the log", "b", rate(func(p point) int64 { return p.inLog })},
	}},
	{"Still out there: acknowledged, not yet in the log", "messages", []series{
		{"backlog", "c", func(_, b point) float64 { return float64(max(b.acknowledged-b.inLog, 0)) }},
	}},
	{"Bytes per second on the link", "bytes/s", []series{
		{"to the hub", "a", rate(func(p point) int64 { return p.linkUp })},
		{"back", "b", rate(func(p point) int64 { return p.linkDown })},
	}},
}

const (
	plotWidth, plotHeight = 900.0, 220.0
	plotLeft, plotBottom  = 70.0, 24.0
	plotTop               = 22.0
	smooth                = 4 // points a rate is taken over
)

// svg draws a plot.
func (p plot) svg(points []point, marks []mark) template.HTML {
	var b strings.Builder
	end, top := 1.0, 1.0
	lines := make([][]float64, len(p.series))
	for i, now := range points {
		before := points[max(i-smooth, 0)]
		end = math.Max(end, now.at)
		for s := range p.series {
			v := p.series[s].value(before, now)
			lines[s] = append(lines[s], v)
			top = math.Max(top, v)
		}
	}
	top = nice(top)
	x := func(at float64) float64 { return plotLeft + at/end*(plotWidth-plotLeft-10) }
	y := func(v float64) float64 { return plotHeight - plotBottom - v/top*(plotHeight-plotBottom-plotTop) }
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, plotWidth, plotHeight, template.HTMLEscapeString(p.title))
	for i := range 5 {
		v := top * float64(i) / 4
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, plotWidth-10, y(v), y(v), plotLeft-6, y(v)+4, number(v))
	}
	for s := 0.0; s <= end; s += nice(end / 10) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%g s</text>`, x(s), plotHeight-6, s)
	}
	for i, m := range marks {
		anchor, at := "start", x(m.at)+3
		if at > 0.85*plotWidth { // the text would leave the picture
			anchor, at = "end", x(m.at)-3
		}
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="mark" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`,
			x(m.at), x(m.at), plotTop-8, plotHeight-plotBottom, at, plotTop-10+float64(i%2)*12, anchor, template.HTMLEscapeString(m.text))
	}
	for s, values := range lines {
		fmt.Fprintf(&b, `<polyline class="%s" points="`, p.series[s].class)
		for i, v := range values {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(points[i].at), y(v))
		}
		b.WriteString(`"/>`)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // made above of numbers and escaped text
}

// nice is the next of 1, 2, 2.5, 5 times a power of ten.
func nice(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 2.5, 5, 10} {
		if v <= f*unit {
			return f * unit
		}
	}
	return v
}

func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%g k", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}

// picture is a plot as the page shows it.
type picture struct {
	Title, Unit string
	SVG         template.HTML
	Legend      []struct{ Class, Name string }
}

// writeReport writes the page.
func (d *demo) writeReport(v *verdict) error {
	d.mu.Lock()
	points, marks := d.points, d.marks
	d.mu.Unlock()
	page := struct {
		What, When, Machine     string
		OK                      bool
		Report                  any
		HubVerify, Tampered     string
		Doubled, Several        string
		PerUp, PerDown, Plain   string
		EdgeRuns, Points        int
		Pictures                []picture
		Resent, Connections     int64
		Undecidable, Unexpected int64
	}{
		What: d.what, When: time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		Machine: fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		OK:      v.report.OK(), Report: v.report, HubVerify: v.hubVerify, Tampered: v.tampered, Doubled: v.doubled, Several: several(v.report.QoS2),
		PerUp: fmt.Sprintf("%.2f", v.perUp), PerDown: fmt.Sprintf("%.2f", v.perDown), Plain: fmt.Sprintf("%.2f", v.plain), EdgeRuns: d.edgeRuns, Points: len(points),
		Resent: d.fleet.Stats().Resent, Connections: d.fleet.Stats().Connections, Undecidable: v.report.Undecidable, Unexpected: v.report.Unexpected,
	}
	for _, p := range plots {
		pic := picture{Title: p.title, Unit: p.unit, SVG: p.svg(points, marks)}
		for _, s := range p.series {
			pic.Legend = append(pic.Legend, struct{ Class, Name string }{s.class, s.name})
		}
		page.Pictures = append(page.Pictures, pic)
	}
	var b strings.Builder
	if err := pageTemplate.Execute(&b, page); err != nil {
		return fmt.Errorf("making the report: %w", err)
	}
	if err := os.WriteFile(d.path("report.html"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
