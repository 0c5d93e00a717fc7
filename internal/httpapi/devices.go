package httpapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	defaultDevices = 1000  // devices on a page
	maxDevices     = 10000 // devices on a page, at most
	defaultRanges  = 100   // runs shown of each set

	linksFor = time.Second // how long what is known of connections is used
)

// DeviceList answers /api/v1/devices.
type DeviceList struct {
	Devices []Device `json:"devices"`
	// Next is the value of after for the next page; "": this was the last.
	Next string `json:"next,omitempty"`
}

// LogInfo answers /api/v1/log.
type LogInfo struct {
	// Log is <name>.<incarnation>; another incarnation is another life of the
	// same log, as after a restored backup.
	Log         string                  `json:"log"`
	Name        stream.Epoch            `json:"name"`
	Incarnation stream.Epoch            `json:"incarnation"`
	Shards      int                     `json:"shards"`
	Records     int64                   `json:"records"` // offsets from floor to next, over all shards
	Bytes       int64                   `json:"bytes"`
	Extents     []commitlog.ShardExtent `json:"extents"`
}

func (a *API) log(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	extents, err := a.o.Log.Extent(r.Context())
	if err != nil {
		return err
	}
	id := a.o.Log.ID()
	info := LogInfo{Log: id.String(), Name: id.Name, Incarnation: id.Incarnation, Shards: a.o.Log.Shards(), Extents: extents}
	for _, e := range extents {
		info.Records += e.Next - e.Floor
		info.Bytes += e.Bytes
	}
	return writeJSON(w, info)
}

// devices lists, in the order of their ids, the devices that the log or the hub
// has seen.
func (a *API) devices(w http.ResponseWriter, r *http.Request, q url.Values) error {
	limit, err := countParameter(q, "limit", defaultDevices, maxDevices)
	if err != nil {
		return err
	}
	after := q.Get("after")
	links := a.links()
	ids := slices.Collect(maps.Keys(links))
	for id, err := range a.o.Log.Devices(r.Context()) {
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id <= after })
	slices.Sort(ids)
	ids = slices.Compact(ids)
	list := DeviceList{Devices: []Device{}}
	if int64(len(ids)) > limit {
		ids = ids[:limit]
		list.Next = ids[limit-1]
	}
	for _, id := range ids {
		list.Devices = append(list.Devices, a.device(id, links[id]))
	}
	return writeJSON(w, list)
}

// links gives what is known of connections by device, not to be changed. It is
// at most linksFor old: who asks for ten thousand devices one by one must not
// have all of them listed ten thousand times.
func (a *API) links() map[string]Link {
	a.linksMu.Lock()
	defer a.linksMu.Unlock()
	if a.linkOf != nil && time.Since(a.linksAt) < linksFor {
		return a.linkOf
	}
	all := a.o.Links()
	a.linkOf, a.linksAt = make(map[string]Link, len(all)), time.Now()
	for _, l := range all {
		a.linkOf[l.Device] = l
	}
	return a.linkOf
}

func (a *API) device(id string, link Link) Device {
	return Device{Device: id, Shard: commitlog.ShardOf(id, a.o.Log.Shards()), Connected: link.Connected,
		Since: timeOrNil(link.Since), LastBatch: timeOrNil(link.LastBatch), Remote: link.Remote, Duplicate: link.Duplicate, Codec: link.Codec}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// streams answers what the log says of one device.
func (a *API) streams(w http.ResponseWriter, r *http.Request, q url.Values) error {
	limit, err := rangesParameter(q)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := stream.CheckDeviceID(id); err != nil {
		return problem(http.StatusBadRequest, "device", err.Error(), "")
	}
	cov, err := a.o.Log.Coverage(r.Context(), id)
	if err != nil {
		return err
	}
	link, seen := a.links()[id]
	if cov == nil && !seen {
		return problem(http.StatusNotFound, "unknown-device", "the log has never seen a device "+id, "/api/v1/devices lists the ones it has")
	}
	return writeJSON(w, newDeviceStreams(a.device(id, link), cov, link.Absent, limit))
}

// rangesParameter reads how many runs of each set are wanted; -1: all.
func rangesParameter(q url.Values) (int, error) {
	if q.Get("ranges") == "all" {
		return -1, nil
	}
	n, err := countParameter(q, "ranges", defaultRanges, commitlog.MaxRanges)
	if err != nil {
		return 0, badParameter("ranges", `give a whole number from 1 to `+strconv.Itoa(commitlog.MaxRanges)+` or "all"`, "%q is out of range", clip(q.Get("ranges")))
	}
	return int(n), nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the reader went away: nobody to tell
	return nil
}
