package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
)

func verifyCommand() *cobra.Command {
	var files []string
	var hub string
	var asJSON, strict bool
	var o prove.Options
	c := &cobra.Command{
		Use: "verify", Short: "compare receipts with the log", Args: cli.NoArgs,
		Long: `verify reads the whole log of a hub and compares it with the receipts, per topic
and in order: every message that was acknowledged must be there once, or be
declared lost. One that the sensor itself sent k times with QoS 0 or 1 may be there
up to k times, one of QoS 2 once however often it was sent in its session. One that
was sent and not acknowledged may be there or not. Equal payloads can leave open
whether a message that was sent again is there: such cases are counted as
undecidable (synthetic payloads carry a counter and leave nothing open). So are
declared losses that may be those of other messages.

Records of topics without receipts are counted and not judged. It exits with 1
when something is missing, double, unexpected or out of order, and with --strict
also when something is undecidable.`,
		Example: `  packetboat-sim verify --receipts receipts --hub http://127.0.0.1:8460
  packetboat-sim verify --receipts a --receipts b --device truck-17 --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usage(errors.New("which receipts? give --receipts FILE"))
			}
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			r, err := verify(ctx, files, hub, o)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = r.Print(c.OutOrStdout())
			}
			switch {
			case err != nil:
				return err
			case !r.OK():
				err = errors.New("a promise is broken")
				if r.Missing > 0 {
					return cli.Fail(cli.Failed, err, "what is still on its way is missing too: does `packetboat-edge status` say waiting 0?")
				}
				return err
			case strict && r.Undecidable > 0:
				return errors.New("not everything can be decided")
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&files, "receipts", nil, "`file` of receipts; may be given several times")
	fl.StringVar(&hub, "hub", "http://127.0.0.1:8460", "the hub's HTTP `address`")
	fl.StringVar(&o.Device, "device", "", "only the records of this `device`")
	fl.IntVar(&o.Examples, "examples", 5, "`cases` of each kind to tell")
	fl.BoolVar(&asJSON, "json", false, "the result as JSON")
	fl.BoolVar(&strict, "strict", false, "fail also when something is undecidable")
	return c
}

func verify(ctx context.Context, files []string, hub string, o prove.Options) (_ *prove.Report, err error) {
	client, err := httpapi.NewClient(hub)
	if err != nil {
		return nil, usage(err)
	}
	defer client.Close()
	var all []prove.Receipts
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("opening receipts: %w", err)
		}
		defer f.Close()
		all = append(all, prove.Receipts{Reader: receipts.NewReader(f, name), Name: name})
	}
	o.Coverage = func(device string) (*commitlog.DeviceCoverage, error) { return client.Coverage(ctx, device) }
	records := prove.FromLog(client.Read(ctx, commitlog.Cursor{}, commitlog.Filter{Device: o.Device}))
	r, err := prove.Run(all, records, o)
	if errors.Is(err, prove.ErrManyDevices) {
		return nil, cli.Fail(cli.Usage, err, "use --device")
	}
	return r, err
}
