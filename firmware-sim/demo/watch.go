package demo

import (
	"context"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
)

// point is what the demo saw at one moment.
type point struct {
	at           float64 // seconds since the start
	sent         int64   // handed to the sensors' connections
	acknowledged int64
	inLog        int64
	linkUp       int64 // bytes
	linkDown     int64
}

// mark is a moment worth a line in the plots.
type mark struct {
	at   float64
	text string
}

func (d *demo) mark(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks = append(d.marks, mark{time.Since(d.began).Seconds(), text})
}

const (
	watchEvery = 250 * time.Millisecond
	tellEvery  = 10 // points
)

// watch takes a point four times a second, and tells some of them.
func (d *demo) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	last := d.look(ctx)
	for n := 1; ; n++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		p := d.look(ctx)
		if n%tellEvery == 0 {
			seconds := p.at - last.at
			d.say("%6.0f messages/s  %8d acknowledged  %8d in the log  %7d still out there  %6.1f kB/s on the link",
				float64(p.sent-last.sent)/seconds, p.acknowledged, p.inLog, max(p.acknowledged-p.inLog, 0), float64(p.linkUp-last.linkUp)/seconds/1000)
			last = p
		}
	}
}

// look takes a point.
func (d *demo) look(ctx context.Context) point {
	f, l := d.fleet.Stats(), d.link.Stats()
	p := point{sent: f.Published, acknowledged: f.Acknowledged, linkUp: l.BytesUp, linkDown: l.BytesDown}
	m, err := proc.Metrics(ctx, d.hubHTTP)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.at = time.Since(d.began).Seconds()
	if err == nil {
		p.inLog = int64(m["packetboat_hub_log_messages"])
	} else if n := len(d.points); n > 0 {
		p.inLog = d.points[n-1].inLog // the hub is busy: it has not become less
	}
	d.points = append(d.points, p)
	return p
}
