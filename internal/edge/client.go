package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/packetboat/packetboat/internal/cli"
)

// maxStatusBytes bounds an answer that is read.
const maxStatusBytes = 1 << 20

// BaseURL is where an edge that listens for HTTP on addr is asked on its own
// machine: an address that means all of them becomes loopback.
func BaseURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Ask gets the status of the edge at base, "http://127.0.0.1:8461".
func Ask(ctx context.Context, base string) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, cli.Fail(cli.Usage, fmt.Errorf("%.80q is not the address of an edge", base), "write --url http://127.0.0.1:8461")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/api/v1/status", nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine
	resp, err := client.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, cli.Fail(cli.Failed, fmt.Errorf("no edge runs at %s", base),
				"start one with `packetboat-edge run`, or say where it is: --url, or --config with its configuration")
		}
		return nil, fmt.Errorf("ask the edge at %s: %w", base, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return nil, cli.Fail(cli.Failed, fmt.Errorf("what answers at %s is no edge: %s", base, resp.Status), "say where the edge is: --url http://127.0.0.1:8461")
	}
	s := &Status{}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxStatusBytes)).Decode(s); err != nil {
		return nil, fmt.Errorf("read the status of the edge at %s: %w", base, err)
	}
	return s, nil
}
