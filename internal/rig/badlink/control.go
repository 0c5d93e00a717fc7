package badlink

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// status is what the control address answers.
type status struct {
	Listen     string     `json:"listen"`
	Target     string     `json:"target"`
	Conditions Conditions `json:"conditions"` // delay, jitter, stall in ns
	BytesUp    int64      `json:"bytes_up"`
	BytesDown  int64      `json:"bytes_down"`
	Open       int64      `json:"connections"`
	Accepted   int64      `json:"accepted"`
	Stalls     int64      `json:"stalls"`
}

// Handler is the control address: GET / tells conditions and counters as JSON;
// POST / changes what its query names, as in POST /?blackhole&rate=2000, in
// that order, and answers the same. It asks for no password: serve it on loopback.
func (l *Link) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { l.answer(w) })
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		var changes []func(*Conditions)
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") { // in their order; up alone is a change too
			if pair == "" {
				continue
			}
			text, err := url.QueryUnescape(pair)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			change, err := ParseChange(text)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			changes = append(changes, change)
		}
		err := l.Change(func(c *Conditions) {
			for _, change := range changes {
				change(c)
			}
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		l.answer(w)
	})
	return mux
}

func (l *Link) answer(w http.ResponseWriter) {
	s := l.Stats()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status{ // the client has gone: nobody to tell
		Listen: l.addr, Target: l.o.Target, Conditions: l.Conditions(), BytesUp: s.BytesUp, BytesDown: s.BytesDown,
		Open: s.Connections, Accepted: s.Accepted, Stalls: s.Stalls,
	})
}
