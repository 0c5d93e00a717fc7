package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Status answers /api/v1/status: the doors, who was refused and why, and what
// an operator should look at. Counts are since the hub started.
type Status struct {
	Connected int64 `json:"connected"` // devices, now
	Connects  int64 `json:"connects"`
	Takeovers int64 `json:"takeovers"` // connects in place of an open connection
	Expelled  int64 `json:"expelled"`  // whose secret or certificate was taken away
	// DuplicateDevices counts connections that showed two live devices with one
	// id; Duplicates are such devices, the newest sign first, at most 100.
	DuplicateDevices int64       `json:"duplicate_devices"`
	Duplicates       []Duplicate `json:"duplicates"`
	// RefusedConnects are by reason, as packetboat_hub_refused_connects_total.
	RefusedConnects map[string]int64 `json:"refused_connects"`
	Gate            GateStatus       `json:"gate"`
	TLS             *TLSStatus       `json:"tls,omitempty"`
	Codec           CodecStatus      `json:"codec"`
	// Problems are sentences for the operator; none: all is well.
	Problems []string `json:"problems"`
}

// Duplicate is a sign of two live devices with one id.
type Duplicate struct {
	Device string    `json:"device"`
	Count  int64     `json:"count"`
	Last   time.Time `json:"last"`
	// Addresses of the connection that was let in then, and of the one before.
	Addresses []string `json:"addresses"`
}

// GateStatus tells of connections before MQTT.
type GateStatus struct {
	Waiting        int64            `json:"waiting"`     // now
	Handshaking    int64            `json:"handshaking"` // now
	Arrived        int64            `json:"arrived"`
	Accepted       int64            `json:"accepted"`
	Delayed        int64            `json:"delayed"`         // by accept.rate
	FullHandshakes int64            `json:"full_handshakes"` // waits for one of accept.handshakes
	Refused        map[string]int64 `json:"refused"`         // by reason
}

// TLSStatus tells how long certificates and revocation lists are good.
type TLSStatus struct {
	NotAfter         time.Time  `json:"not_after"`
	ClientCANotAfter *time.Time `json:"client_ca_not_after,omitempty"`
	Lists            int        `json:"lists"`   // of revocations
	Revoked          int        `json:"revoked"` // certificates on them
	NextUpdate       *time.Time `json:"next_update,omitempty"`
	Stale            bool       `json:"stale"` // NextUpdate has passed
}

// CodecStatus tells of what is learned of the devices' messages, so that they
// take fewer bytes on the link. Bytes are of memory, exact.
type CodecStatus struct {
	Sessions      int64            `json:"sessions"`       // of connected devices that may learn
	StateBytes    int64            `json:"state_bytes"`    // that they keep
	Kept          int64            `json:"kept"`           // sessions of devices that are away
	KeptBytes     int64            `json:"kept_bytes"`     // that they keep
	TotalBytes    int64            `json:"total_bytes"`    // codec.total_bytes: the bound of both
	Fresh         int64            `json:"fresh"`          // sessions that began with nothing learned
	Resumed       int64            `json:"resumed"`        // that went on at a new connection
	SelfContained int64            `json:"self_contained"` // batches of devices that could learn and had no room for it
	Dropped       map[string]int64 `json:"dropped"`        // sessions, by reason
}

func (a *API) status(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	if a.o.Status == nil {
		return problem(http.StatusNotFound, "", "this API knows no hub", "")
	}
	return writeJSON(w, a.o.Status())
}

// Status asks how the hub is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.getJSON(ctx, "/api/v1/status", nil, &s)
	return s, err
}
