package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Log is what the API reads. A commitlog.Log is one.
type Log interface {
	commitlog.Reader
	ID() stream.LogID
	Shards() int
}

// Link is what the hub knows of a device's connection.
type Link struct {
	Device    string
	Connected bool
	// Since is when it connected, or when its last connection ended.
	Since time.Time
	// LastBatch is when a batch of it was last settled; zero: not since the
	// hub started.
	LastBatch time.Time
	// Absent counts, per stream, the numbers that are out there and that the
	// connected edge does not hold.
	Absent map[stream.ID]uint64
	// Remote is the address it is connected from, or last was.
	Remote string
	// Duplicate is the last sign of two live devices with this id; nil: none.
	Duplicate *Duplicate
	// Codec is how its batches are encoded; nil: it is not connected.
	Codec *DeviceCodec
}

// Options are what an API is made of.
type Options struct {
	Log Log
	// Links lists the devices that the hub has seen since it started, in any
	// order. It is called for a request, from any goroutine, at most once in
	// linksFor; nil: nothing is known of connections.
	Links func() []Link
	// Status says how the hub is, for each request anew; nil: nothing is known.
	Status func() Status
	// Operational answers /healthz, /readyz and /metrics.
	Operational http.Handler
	// LoopbackOnly refuses requests whose Host is neither localhost nor a
	// loopback address, so that a web page cannot reach the API through a
	// name of its own.
	LoopbackOnly bool
	// MaxReaders bounds the responses of records under way at once, default
	// 64; more are answered 503.
	MaxReaders int
	// Patience is how long a write to a reader may take, default 30 s; then
	// it is cut off. An answer that is not a stream is one write.
	Patience time.Duration
	// Heartbeat is how long a response of records may be silent, default 15 s;
	// then it gets an empty line.
	Heartbeat time.Duration
	Logger    *slog.Logger
}

// API answers the requests. It is an http.Handler; make one with New.
type API struct {
	o       Options
	mux     *http.ServeMux
	readers chan struct{} // holds a token per records response

	linksMu sync.Mutex
	linksAt time.Time       // guarded by linksMu
	linkOf  map[string]Link // guarded by linksMu; replaced, never changed

	requests, refused, failed atomic.Int64
	lines, cutOff             atomic.Int64
}

// Stats are counts since the API was made.
type Stats struct {
	Requests, Refused, Failed int64 // Failed: answered 5xx, or ended by an error after the head was sent
	Readers                   int64 // responses of records under way
	Records                   int64 // records handed to readers
	CutOff                    int64 // readers that stopped reading
}

// New makes an API.
func New(o Options) *API {
	if o.MaxReaders <= 0 {
		o.MaxReaders = 64
	}
	if o.Patience <= 0 {
		o.Patience = 30 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Links == nil {
		o.Links = func() []Link { return nil }
	}
	if o.Operational == nil {
		o.Operational = http.NotFoundHandler()
	}
	a := &API{o: o, mux: http.NewServeMux(), readers: make(chan struct{}, o.MaxReaders)}
	for _, rt := range routes {
		a.mux.Handle(rt.path, a.handler(rt))
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, problem(http.StatusNotFound, "", "there is nothing at "+clip(r.URL.Path), "/api/v1/openapi.json lists what there is"))
	})
	return a
}

// ServeHTTP answers one request. A followed stream goes on until the request's
// context ends.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Records move their deadline with each write; all else is one write. A
	// recorder in a test knows no deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.o.Patience))
	if a.o.LoopbackOnly && !obs.IsLocal(r.Host) {
		a.refuse(w, r, problem(http.StatusMisdirectedRequest, "host", "this API answers to localhost only", "use http://127.0.0.1"))
		return
	}
	a.mux.ServeHTTP(w, r)
}

// Stats counts what was answered.
func (a *API) Stats() Stats {
	return Stats{
		Requests: a.requests.Load(), Refused: a.refused.Load(), Failed: a.failed.Load(),
		Readers: int64(len(a.readers)), Records: a.lines.Load(), CutOff: a.cutOff.Load(),
	}
}

// refuse answers with a problem. It must not be called once the head is sent.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problemOf(r, err)
	if p.Status >= 500 {
		a.failed.Add(1)
	} else {
		a.refused.Add(1)
	}
	if p.Status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", "GET, HEAD")
	}
	p.write(w)
}

// problemOf tells a reader what err is, and the operator what a reader is not
// told.
func (a *API) problemOf(r *http.Request, err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, commitlog.ErrClosed) || errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable, "stopping", "the hub is stopping", "try again, with the last cursor")
	}
	a.o.Logger.Error("cannot read the log", "path", r.URL.Path, "err", err)
	return problem(http.StatusInternalServerError, "log", "the log cannot be read", "the hub's own log says why")
}

func (a *API) operational(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	a.o.Operational.ServeHTTP(w, r)
	return nil
}
