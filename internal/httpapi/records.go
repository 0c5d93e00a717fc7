package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
)

// ContentTypeLines is the content type of records: a JSON object per line.
const ContentTypeLines = "application/x-ndjson"

// records streams what the log holds, one line per record.
func (a *API) records(w http.ResponseWriter, r *http.Request, q url.Values) error {
	rq, err := parseRecordQuery(q)
	if err != nil {
		return err
	}
	if err := a.checkCursor(r, &rq.cursor); err != nil {
		return err
	}
	select {
	case a.readers <- struct{}{}:
		defer func() { <-a.readers }()
	default:
		p := problem(http.StatusServiceUnavailable, "readers", "too many readers at once", "try again in a moment")
		p.retryAfter = 5 * time.Second
		return p
	}
	h := w.Header()
	h.Set("Content-Type", ContentTypeLines)
	h.Set("Cache-Control", "no-store")
	h.Set("Packetboat-Log", a.o.Log.ID().String())
	if r.Method == http.MethodHead {
		return nil
	}
	w.WriteHeader(http.StatusOK)
	// The server's limit on reading a request must not end a long answer: its
	// watch for the reader going away is a read too.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if rq.filter.Follow {
		_ = http.NewResponseController(w).Flush() // the reader learns at once that it is being served
	}
	out := newLineWriter(w, a.o.Patience, a.o.Heartbeat)
	if err := a.copyRecords(out, r, &rq); err != nil {
		// The head is sent: the last line says what happened. An answer that
		// the hub's stop cuts short must not look like the end of the log.
		p := a.problemOf(r, err)
		if r.Context().Err() == nil {
			a.failed.Add(1)
		}
		_ = out.Append(func(b []byte) []byte { return appendProblem(b, p) })
	}
	if err := out.Close(); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.cutOff.Add(1)
			a.o.Logger.Warn("cut off a reader that stopped reading", "remote", r.RemoteAddr, "patience", a.o.Patience)
		}
		// What was sent must not look like a whole answer.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// checkCursor refuses a cursor that lies beyond the end of the log: it is of
// another log, or of a later state of this one that a backup has replaced. Read
// on from there, a reader would miss what is appended in between.
func (a *API) checkCursor(r *http.Request, c *commitlog.Cursor) error {
	if c.String() == "" {
		return nil
	}
	extents, err := a.o.Log.Extent(r.Context())
	if err != nil {
		return err
	}
	next := make(map[int]int64, len(extents))
	for _, e := range extents {
		next[e.Shard] = e.Next
	}
	for shard := range commitlog.MaxShards {
		if c.Next(shard) > next[shard] {
			p := problem(http.StatusConflict, "cursor-ahead", "the cursor lies beyond the end of the log",
				"the log is another one or was restored from a backup: read again from the beginning, or from a time")
			p.Parameter = "cursor"
			return p
		}
	}
	return nil
}

// copyRecords ends without error when the reader went away or stopped reading.
func (a *API) copyRecords(out *lineWriter, r *http.Request, rq *recordQuery) error {
	cursor, n := rq.cursor, int64(0)
	for s, err := range a.o.Log.Read(r.Context(), rq.cursor, rq.filter) {
		if err != nil {
			return err
		}
		cursor.Advance(&s)
		if out.Append(func(b []byte) []byte { return appendLine(b, NewLine(&s, cursor.String())) }) != nil {
			return nil
		}
		a.lines.Add(1)
		if n++; n == rq.limit {
			return nil
		}
	}
	return nil
}

var _ Log = commitlog.Log(nil)
