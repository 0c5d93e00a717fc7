package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/bench"
	"github.com/packetboat/packetboat/internal/cli"
)

func benchCommand() *cobra.Command {
	l := bench.Load{Name: "bench"}
	var connections []int
	var asJSON bool
	var files tlsFlags
	c := &cobra.Command{
		Use: "bench", Short: "messages/s and latency of a broker", Args: cli.NoArgs,
		Long: `bench publishes with a window of unacknowledged messages, and prints messages/s
and the time from PUBLISH to PUBACK, with QoS 2 to PUBCOMP; with QoS 0 only the
last message of a connection is acknowledged. It makes no judgement.`,
		Example: `  packetboat-sim bench --broker tcp://127.0.0.1:1883
  packetboat-sim bench --connections 1,10,100 --window 200 --payload 60 --json
  packetboat-sim bench --broker tls://127.0.0.1:8883 --ca-file ca.pem --qos 2`,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if l.TLS, err = files.config(); err != nil {
				return err
			}
			if l.QoS == 2 {
				l.Session = time.Hour
			}
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			var results []bench.Result
			for _, n := range connections {
				l.Connections = n
				r, err := l.Run(ctx)
				if err != nil {
					return err
				}
				results = append(results, r)
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(results)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintf(t, "connections\tmessages/s\tp50\tp90\tp99\tmax\t\n")
			for _, r := range results {
				fmt.Fprintf(t, "%d\t%.0f\t%s\t%s\t%s\t%s\t\n", r.Connections, r.PerSecond, short(r.P50), short(r.P90), short(r.P99), short(r.Max))
			}
			return t.Flush()
		},
	}
	fl := c.Flags()
	fl.StringVar(&l.Broker, "broker", "tcp://127.0.0.1:1883", "the broker's `address`")
	files.add(c)
	fl.Uint8Var(&l.QoS, "qos", 1, "quality of service: 0, 1 or 2")
	fl.StringVar(&l.Username, "username", "", "user `name` to connect with")
	fl.StringVar(&l.Password, "password", "", "its password")
	fl.IntSliceVar(&connections, "connections", []int{1, 10}, "`numbers` of connections, one run each")
	fl.IntVar(&l.Window, "window", 200, "`messages` without acknowledgement, per connection")
	fl.IntVar(&l.Payload, "payload", 60, "`bytes` of a payload")
	fl.IntVar(&l.Messages, "messages", 500_000, "`messages` of a run")
	fl.Float64Var(&l.Rate, "rate", 0, "`messages/s`; 0: as fast as it goes")
	fl.BoolVar(&asJSON, "json", false, "the results as JSON")
	return c
}

// short rounds a latency to three digits or so.
func short(d time.Duration) string {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func benchEdgeCommand() *cobra.Command {
	var o bench.EdgeOptions
	var quick bool
	c := &cobra.Command{
		Use: "bench-edge", Short: "the edge beside mosquitto, in one run", Args: cli.NoArgs,
		Long: `bench-edge builds and starts the edge, and beside it mosquitto with persistence
off and on where that is installed, and measures them in turns: QoS 1 messages/s
on 1 and 10 connections; QoS 0 and 2, TLS, an ACL file, 1,000 connections and
subscribers beside that; memory of a connection that is idle; and for the edge
memory, bytes on the device and commits. The edge acknowledges what is on flash; mosquitto what it has in memory.
It prints a table and makes no judgement.`,
		Example: `  packetboat-sim bench-edge
  packetboat-sim bench-edge --rounds 7 --dir /mnt/flash`,
		RunE: func(c *cobra.Command, _ []string) error {
			if quick {
				o.Rounds, o.Messages, o.LowRate = 1, 20_000, 2*time.Second
			}
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			o.Out = c.OutOrStdout()
			return bench.Edge(ctx, o)
		},
	}
	fl := c.Flags()
	fl.StringVar(&o.Bin, "bin", "", "`folder` of packetboat-edge and packetboat-hub; without: beside this program, or built")
	fl.StringVar(&o.Dir, "dir", "", "`folder` on the device to measure; without: the temporary folder")
	fl.IntVar(&o.Rounds, "rounds", 5, "`rounds` of every measurement")
	fl.IntVar(&o.Messages, "messages", 300_000, "`messages` of a load")
	fl.IntVar(&o.Payload, "payload", 60, "`bytes` of a payload")
	fl.IntVar(&o.Window, "window", 200, "`messages` without acknowledgement, per connection")
	fl.DurationVar(&o.LowRate, "low-rate", 10*time.Second, "how `long` 10 messages/s are watched")
	fl.BoolVar(&quick, "short", false, "one small round, to see that it works")
	return c
}
