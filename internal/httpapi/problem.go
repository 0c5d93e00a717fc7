package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Problem is an RFC 9457 problem detail. The client returns it as an error.
type Problem struct {
	// Type is "about:blank" or a urn:packetboat:problem:… that stays the same
	// whatever the texts become.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Hint says what to do about it.
	Hint string `json:"hint,omitempty"`
	// Parameter names the query parameter at fault.
	Parameter string `json:"parameter,omitempty"`

	retryAfter time.Duration
}

// Error gives the detail, or the title where there is none, and the hint.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}

// problem makes a Problem. An empty kind is about:blank.
func problem(status int, kind, detail, hint string) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Hint: hint}
	if kind != "" {
		p.Type = "urn:packetboat:problem:" + kind
	}
	return p
}

// badParameter says which query parameter is wrong and what it wants.
func badParameter(name, hint, format string, args ...any) *Problem {
	p := problem(http.StatusBadRequest, "parameter", fmt.Sprintf(format, args...), hint)
	p.Parameter = name
	return p
}

func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // strings and a number always marshal
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(p.retryAfter/time.Second, 1))))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
