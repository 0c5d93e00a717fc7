package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	// maxLine is the longest line the client reads: a payload of 16 MiB in the
	// worst escaping.
	maxLine = 128 << 20
	// maxAnswer is the longest answer other than records that the client reads.
	maxAnswer = 256 << 20
	// silence is how long the hub may take for the head of an answer, and how
	// long a response of records may be without any byte; the hub sends an
	// empty line several times as often.
	silence = time.Minute
)

// Client reads a hub's log over HTTP. It is a commitlog.Reader. Its methods may
// be called from any goroutine.
type Client struct {
	base *url.URL
	http *http.Client
}

var _ commitlog.Reader = (*Client)(nil)

// NewClient makes a client of the hub at an address like
// http://127.0.0.1:8460. It connects to nothing yet.
func NewClient(hub string) (*Client, error) {
	if !strings.Contains(hub, "://") {
		hub = "http://" + hub
	}
	u, err := url.Parse(hub)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a hub: want http://host:port", hub)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	return &Client{base: u, http: &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: silence,
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          4,
	}}}, nil
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// UnreachableError says that no hub answered.
type UnreachableError struct {
	Hub string
	Err error
}

func (e *UnreachableError) Error() string { return "asking the hub at " + e.Hub + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *UnreachableError) Hint() string {
	if errors.Is(e.Err, syscall.ECONNREFUSED) {
		return "is the hub running? --hub names another address"
	}
	return "--hub names another address"
}

// get asks for a path below the base. The caller closes the body. An answer
// other than 200 is a *Problem.
func (c *Client) get(ctx context.Context, path string, q url.Values) (*http.Response, error) {
	u := *c.base
	u.RawPath = u.EscapedPath() + path
	u.Path += strings.ReplaceAll(path, "%2E", ".")
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		var ue *url.Error // repeats method and address
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, &UnreachableError{Hub: c.base.Redacted(), Err: err}
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, readProblem(res)
	}
	return res, nil
}

func readProblem(res *http.Response) error {
	p := &Problem{}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || json.Unmarshal(body, p) != nil || p.Status == 0 {
		return fmt.Errorf("the hub answered %s", res.Status)
	}
	return p
}

func (c *Client) getJSON(ctx context.Context, path string, q url.Values, into any) error {
	res, err := c.get(ctx, path, q)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("reading the hub's answer to %s: %w", path, err)
	}
	return nil
}

// Log tells what the log is called and holds.
func (c *Client) Log(ctx context.Context) (LogInfo, error) {
	var info LogInfo
	err := c.getJSON(ctx, "/api/v1/log", nil, &info)
	return info, err
}

// Extent says what each shard holds.
func (c *Client) Extent(ctx context.Context) ([]commitlog.ShardExtent, error) {
	info, err := c.Log(ctx)
	return info.Extents, err
}

// ListDevices yields the devices that the log or the hub has seen, in the order
// of their ids.
func (c *Client) ListDevices(ctx context.Context) iter.Seq2[Device, error] {
	return func(yield func(Device, error) bool) {
		q := url.Values{"limit": {strconv.Itoa(maxDevices)}}
		for {
			var page DeviceList
			if err := c.getJSON(ctx, "/api/v1/devices", q, &page); err != nil {
				yield(Device{}, err)
				return
			}
			for _, d := range page.Devices {
				if !yield(d, nil) {
					return
				}
			}
			if page.Next == "" || page.Next <= q.Get("after") {
				return
			}
			q.Set("after", page.Next)
		}
	}
}

// Devices yields the ids of ListDevices.
func (c *Client) Devices(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for d, err := range c.ListDevices(ctx) {
			if !yield(d.Device, err) || err != nil {
				return
			}
		}
	}
}

// Streams tells what the log says of a device, with at most ranges runs of
// each set, 0: all of them. A device that was never seen is a *Problem with
// status 404.
func (c *Client) Streams(ctx context.Context, device string, ranges int) (*DeviceStreams, error) {
	if err := stream.CheckDeviceID(device); err != nil {
		return nil, err
	}
	q := url.Values{"ranges": {"all"}}
	if ranges > 0 {
		q.Set("ranges", strconv.Itoa(ranges))
	}
	var d DeviceStreams
	path := "/api/v1/devices/" + url.PathEscape(device) + "/streams"
	return &d, c.getJSON(ctx, path, q, &d)
}

// Coverage is what the log says of a device, nil for one it has never seen.
func (c *Client) Coverage(ctx context.Context, device string) (*commitlog.DeviceCoverage, error) {
	d, err := c.Streams(ctx, device, 0)
	var p *Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case len(d.Epochs) == 0 && d.Forgotten == 0:
		return nil, nil // connected, and nothing in the log yet
	}
	return d.Coverage()
}
