package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// route is one path of the API. The OpenAPI document must name the same paths
// and parameters; a test compares the two.
type route struct {
	path   string   // as http.ServeMux knows it
	params []string // query parameters; any other is refused
	serve  func(*API, http.ResponseWriter, *http.Request, url.Values) error
}

// routes lists the whole API in the order of the document.
var routes = []route{
	{"/healthz", nil, (*API).operational},
	{"/readyz", nil, (*API).operational},
	{"/metrics", nil, (*API).operational},
	{"/api/v1/openapi.json", nil, (*API).openapi},
	{"/api/v1/status", nil, (*API).status},
	{"/api/v1/log", nil, (*API).log},
	{"/api/v1/devices", []string{"after", "limit"}, (*API).devices},
	{"/api/v1/devices/{id}/streams", []string{"ranges"}, (*API).streams},
	{"/api/v1/records", []string{"device", "topic", "from", "to", "cursor", "follow", "limit"}, (*API).records},
}

// handler checks method and parameters, and turns an error into a problem.
func (a *API) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := checkRequest(rt, r)
		if err == nil {
			err = rt.serve(a, w, r, r.URL.Query())
		}
		if err != nil {
			a.refuse(w, r, err)
		}
	})
}

func checkRequest(rt route, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return problem(http.StatusMethodNotAllowed, "", r.Method+" is not answered here", "the API only reads: use GET")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem(http.StatusBadRequest, "parameter", "the query is malformed: "+err.Error(), "percent-encode it, '+' in a topic filter as %2B and '#' as %23")
	}
	for name, values := range query {
		if !slices.Contains(rt.params, name) {
			hint := "it takes none"
			if len(rt.params) > 0 {
				hint = "it takes " + strings.Join(rt.params, ", ")
			}
			return badParameter(clip(name), hint, "there is no parameter %q", clip(name))
		}
		if len(values) > 1 {
			return badParameter(name, "give it once", "%s stands there %d times", name, len(values))
		}
	}
	return nil
}

// clip bounds what an answer repeats of a request.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
