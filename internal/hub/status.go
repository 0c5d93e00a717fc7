package hub

import (
	"slices"
	"time"

	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/pkg/ingest"
)

// maxDuplicates bounds what a status lists.
const maxDuplicates = 100

// refused counts refused CONNECTs by reason.
func (b *bridgeStats) refused() map[string]int64 {
	return map[string]int64{
		"client_id": b.badID.Load(), "secret": b.badSecret.Load(), "certificate": b.badCertificate.Load(), "not_listed": b.notListed.Load(),
		"version": b.badVersion.Load(), "hello": b.badHello.Load(), "busy": b.busy.Load(),
	}
}

// status tells the operator how the hub is.
func (h *Hub) status() httpapi.Status {
	in, g, b := h.ingest.Stats(), h.gate.Stats(), &h.bridge.stats
	s := httpapi.Status{
		Connected: in.Sessions, Connects: in.Connects, Takeovers: in.Takeovers, Expelled: b.expelled.Load(),
		DuplicateDevices: in.Twins, Duplicates: h.duplicates(in.Twins), RefusedConnects: b.refused(),
		Gate: httpapi.GateStatus{Waiting: g.Waiting, Handshaking: g.Handshaking, Arrived: g.Arrived, Accepted: g.Accepted,
			Delayed: g.Delayed, FullHandshakes: g.FullHandshakes, Refused: g.Refused},
		Codec:    codecStatus(&in.Codec, int64(h.c.Codec.TotalBytes)),
		Problems: []string{},
	}
	problem := func(what string, err error) {
		if err != nil {
			s.Problems = append(s.Problems, what+": "+err.Error())
		}
	}
	problem("not ready", h.ingest.Ready())
	problem("devices_file", h.devices.problem())
	if h.tls == nil {
		return s
	}
	t := h.tls.Stats()
	s.TLS = &httpapi.TLSStatus{NotAfter: t.NotAfter.UTC(), ClientCANotAfter: orNil(t.ClientCANotAfter), Lists: t.Lists, Revoked: t.Revoked,
		NextUpdate: orNil(t.NextUpdate), Stale: t.Stale}
	problem("tls", h.tls.Err())
	s.Problems = append(s.Problems, tlsWarnings(t, time.Now())...)
	return s
}

func codecStatus(s *ingest.CodecStats, total int64) httpapi.CodecStatus {
	return httpapi.CodecStatus{Sessions: s.Sessions, StateBytes: s.StateBytes, Kept: s.Kept, KeptBytes: s.KeptBytes, TotalBytes: total,
		Fresh: s.Fresh, Resumed: s.Resumed, SelfContained: s.SelfContained, Dropped: s.Dropped}
}

// duplicates lists devices of which there seem to be two, if there were n signs.
func (h *Hub) duplicates(n int64) []httpapi.Duplicate {
	list := []httpapi.Duplicate{}
	if n == 0 { // the usual case, and asking all devices is not cheap
		return list
	}
	all := h.ingest.Devices()
	for i := range all {
		if d := duplicate(&all[i]); d != nil {
			list = append(list, *d)
		}
	}
	slices.SortFunc(list, func(a, b httpapi.Duplicate) int { return b.Last.Compare(a.Last) })
	return list[:min(len(list), maxDuplicates)]
}

func duplicate(d *ingest.DeviceStatus) *httpapi.Duplicate {
	t := &d.Twins
	if t.Count == 0 {
		return nil
	}
	return &httpapi.Duplicate{Device: d.Device, Count: t.Count, Last: t.At.UTC(), Addresses: t.Origins[:]}
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
