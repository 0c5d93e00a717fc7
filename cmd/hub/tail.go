package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/pkg/commitlog"
)

const defaultHub = "http://127.0.0.1:8460"

// tailAgain is how long a follower waits before it asks a hub again that went
// away.
const tailAgain = time.Second

type tailFlags struct {
	hub, from, to, cursor string
	filter                commitlog.Filter
	limit                 int64
	fresh                 bool
}

func tailCommand() *cobra.Command {
	var f tailFlags
	c := &cobra.Command{
		Use: "tail", Short: "print records as NDJSON", Args: cli.NoArgs,
		Long: `Print the records of a running hub, a JSON object a line, from the oldest on. Each
line carries the cursor that resumes after it. With --follow it goes on as
records arrive, also when the hub restarts.`,
		Example: `  packetboat-hub tail --device truck-17 --from 2026-01-31T08:00:00Z
  packetboat-hub tail --follow --new --topic 'car/+/speed' | jq -r .payload
  packetboat-hub tail --cursor 0:1024 --limit 100`,
	}
	c.Flags().StringVar(&f.hub, "hub", defaultHub, "address of the hub's API")
	c.Flags().StringVar(&f.filter.Device, "device", "", "only this device")
	c.Flags().StringVar(&f.filter.Topic, "topic", "", "only topics that match this MQTT topic filter")
	c.Flags().StringVar(&f.from, "from", "", "not before this time, RFC 3339 or µs since 1970")
	c.Flags().StringVar(&f.to, "to", "", "before this time, RFC 3339 or µs since 1970")
	c.Flags().StringVar(&f.cursor, "cursor", "", "resume after the line that carries this cursor")
	c.Flags().BoolVarP(&f.filter.Follow, "follow", "f", false, "go on as records arrive")
	c.Flags().BoolVar(&f.fresh, "new", false, "begin at the end: only what arrives from now on")
	c.Flags().Int64Var(&f.limit, "limit", 0, "end after so many records; 0: no limit")
	c.MarkFlagsMutuallyExclusive("new", "cursor")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := cli.Signals(c.Context())
		defer stop()
		err := f.run(ctx, c.OutOrStdout(), c.ErrOrStderr())
		if ctx.Err() != nil {
			return nil // stopped as asked
		}
		return err
	}
	return c
}

// parse reads the flags that are text.
func (f *tailFlags) parse() (from commitlog.Cursor, err error) {
	for _, t := range []struct {
		flag, text string
		into       *int64
	}{{"--from", f.from, &f.filter.From}, {"--to", f.to, &f.filter.To}} {
		if t.text == "" {
			continue
		}
		if *t.into, err = httpapi.ParseTime(t.text); err != nil {
			return from, cli.Fail(cli.Usage, fmt.Errorf("%s: %.40q is not a time", t.flag, t.text), "give RFC 3339, as 2026-01-31T08:00:00Z, or µs since 1970")
		}
	}
	if err := f.filter.Check(); err != nil {
		return from, cli.Fail(cli.Usage, err, "")
	}
	if from, err = commitlog.ParseCursor(f.cursor); err != nil {
		return from, cli.Fail(cli.Usage, fmt.Errorf("--cursor: %w", err), "give the cursor of a line as it stands there")
	}
	return from, nil
}

func (f *tailFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	cursor, err := f.parse()
	if err != nil {
		return err
	}
	client, err := newClient(f.hub)
	if err != nil {
		return err
	}
	defer client.Close()
	if f.fresh {
		extents, err := client.Extent(ctx)
		if err != nil {
			return err
		}
		for _, e := range extents {
			cursor.Set(e.Shard, e.Next)
		}
	}
	left, told := f.limit, false
	for {
		n, err := f.copy(ctx, client, stdout, &cursor, left)
		if left -= n; err == nil || f.limit > 0 && left <= 0 {
			return err
		}
		told = told && n == 0
		if !f.again(ctx, err, &told, stderr) {
			return err
		}
	}
}

// again waits before a follower asks once more; false: it should not.
func (f *tailFlags) again(ctx context.Context, err error, told *bool, stderr io.Writer) bool {
	var gone *httpapi.UnreachableError
	var p *httpapi.Problem
	if !f.filter.Follow || !errors.As(err, &gone) && !(errors.As(err, &p) && p.Status == 503) {
		return false
	}
	if !*told {
		fmt.Fprintf(stderr, "%v; trying again\n", err)
		*told = true
	}
	wait := time.NewTimer(tailAgain)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wait.C:
		return true
	}
}

// copy prints lines from the cursor on, and leaves it behind the last one.
func (f *tailFlags) copy(ctx context.Context, client *httpapi.Client, stdout io.Writer, cursor *commitlog.Cursor, limit int64) (n int64, err error) {
	out := bufio.NewWriter(stdout)
	defer func() { err = errors.Join(err, out.Flush()) }()
	for line, err := range client.Lines(ctx, *cursor, f.filter, limit) {
		if err != nil {
			return n, err
		}
		var place struct {
			Cursor string `json:"cursor"`
		}
		if err := json.Unmarshal(line, &place); err != nil {
			return n, fmt.Errorf("reading a line: %w", err)
		}
		if *cursor, err = commitlog.ParseCursor(place.Cursor); err != nil {
			return n, fmt.Errorf("reading a line: %w", err)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return n, err
		}
		n++
		if f.filter.Follow {
			if err := out.Flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func newClient(addr string) (*httpapi.Client, error) {
	client, err := httpapi.NewClient(addr)
	return client, cli.Fail(cli.Usage, err, "--hub takes an address like "+defaultHub)
}
