package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/audit"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/hub"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/local"
)

// errBroken ends a verify that found something.
var errBroken = errors.New("a promise is broken")

func verifyCommand() *cobra.Command {
	var hubURL, data, device string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "read the whole log and prove what it promises", Args: cli.NoArgs,
		Long: `Read the whole log of a running hub, or of a stopped one with --data, and count per
device: records, doubles, gaps that are neither lost nor out there, losses by
reason, order violations, and what retention has deleted and nobody can check.

It exits with 1 when a promise is broken.`,
		Example: `  packetboat-hub verify
  packetboat-hub verify --hub http://127.0.0.1:8460 --device truck-17
  packetboat-hub verify --data /var/lib/packetboat-hub --json`,
	}
	c.Flags().StringVar(&hubURL, "hub", defaultHub, "address of the hub's API")
	c.Flags().StringVar(&data, "data", "", "data directory of a hub that is stopped")
	c.Flags().StringVar(&device, "device", "", "only this device")
	c.Flags().BoolVar(&asJSON, "json", false, "the whole report as one JSON object")
	c.MarkFlagsMutuallyExclusive("hub", "data")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := cli.Signals(c.Context())
		defer stop()
		log, done, err := openReader(hubURL, data)
		if err != nil {
			return err
		}
		defer done()
		report, err := audit.Run(ctx, log, audit.Options{Device: device, Progress: progress(c.ErrOrStderr())})
		if err != nil {
			return err
		}
		if asJSON {
			err = json.NewEncoder(c.OutOrStdout()).Encode(report)
		} else {
			err = report.WriteTable(c.OutOrStdout())
		}
		if err == nil && !report.OK {
			err = cli.Fail(cli.Failed, errBroken, "keep the data as it is; docs/operations/hub.md says what each finding means")
		}
		return err
	}
	return c
}

// openReader opens the log of a running hub, or of a stopped one.
func openReader(hubURL, data string) (commitlog.Reader, func(), error) {
	if data == "" {
		client, err := newClient(hubURL)
		if err != nil {
			return nil, nil, err
		}
		return client, client.Close, nil
	}
	dir := hub.LogDir(data)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, cli.Fail(cli.Usage, fmt.Errorf("%s holds no log: %s is missing", data, filepath.Base(dir)), "--data names the data directory of a hub")
	}
	log, err := local.Open(local.Options{Dir: dir, ReadOnly: true})
	if errors.Is(err, local.ErrLocked) {
		return nil, nil, cli.Fail(cli.Locked, err, "a hub runs on it: ask that one with --hub, or stop it")
	}
	if err != nil {
		return nil, nil, err
	}
	return log, func() { _ = log.Close() }, nil // it was only read
}

// progress tells every few seconds how far the reading is: in place on a
// terminal, else in lines of their own. It says nothing of short work.
func progress(w io.Writer) func(int64) {
	began := time.Now()
	last := began
	begin, end := "", "\n"
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			begin, end = "\r", " "
		}
	}
	return func(records int64) {
		now := time.Now()
		if now.Sub(last) < 3*time.Second {
			return
		}
		last = now
		fmt.Fprintf(w, "%sread %d records in %s%s", begin, records, now.Sub(began).Round(time.Second), end)
	}
}
