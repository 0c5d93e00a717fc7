package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/internal/rig/recording"
)

// fleetFlags are what sensors and replay share.
type fleetFlags struct {
	fleet.Options
	tls      tlsFlags
	qos      string
	receipts string
	mqtt     string
	quiet    bool
	verbose  bool
}

func (f *fleetFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.Broker, "broker", "tcp://127.0.0.1:1883", "the edge's MQTT `address`: tcp, tls, ws or wss")
	f.tls.add(c)
	fl.StringVar(&f.Username, "username", "", "user `name` to connect with")
	fl.StringVar(&f.Password, "password", "", "its password")
	fl.StringVar(&f.mqtt, "mqtt", "3.1.1", "MQTT `version`, 3.1.1 or 5")
	fl.StringVar(&f.qos, "qos", "1", "quality of service: 0, 1 or 2, or a `list` as 0,1,2, from which each topic gets one")
	fl.IntVar(&f.Window, "window", 100, "`messages` without acknowledgement, per client")
	fl.StringVar(&f.receipts, "receipts", "", "append a receipt of every message to this `file`")
	fl.DurationVar(&f.Drain, "drain", 0, "give up after this `time` without the last acknowledgements; 0: wait")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress lines")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "say why connections end")
}

// run drives the clients until they are done or a signal comes.
func (f *fleetFlags) run(c *cobra.Command, clients []fleet.Client) (err error) {
	switch f.mqtt {
	case "3.1.1", "4":
		f.Version = 4
	case "5":
		f.Version = 5
	default:
		return usage(fmt.Errorf("--mqtt %.20q: use 3.1.1 or 5", f.mqtt))
	}
	for q := range strings.SplitSeq(f.qos, ",") {
		if q != "0" && q != "1" && q != "2" {
			return usage(fmt.Errorf("--qos %.20q: use 0, 1 or 2, or a list of them", f.qos))
		}
		f.Mix = append(f.Mix, q[0]-'0')
	}
	if f.TLS, err = f.tls.config(); err != nil {
		return err
	}
	if f.verbose {
		f.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if f.receipts != "" {
		if f.Receipts, err = receipts.Append(f.receipts); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Receipts.Close()) }()
	}
	fl, err := fleet.New(clients, f.Options)
	if err != nil {
		return usage(err)
	}
	ctx, stop := cli.Signals(c.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- fl.Run(ctx) }()
	out := c.ErrOrStderr()
	if f.quiet {
		out = io.Discard
	}
	err = progress(ctx, out, fl, f.Receipts, done)
	s := fl.Stats()
	fmt.Fprintf(c.OutOrStdout(), "%d messages sent, %d acknowledged, %d sent again, %d connections", s.Published, s.Acknowledged, s.Resent, s.Connections)
	if s.SessionsLost > 0 {
		fmt.Fprintf(c.OutOrStdout(), ", %d sessions lost by the edge", s.SessionsLost)
	}
	fmt.Fprintln(c.OutOrStdout())
	return err
}

// progress prints a line every two seconds until done says how it ended.
func progress(ctx context.Context, out io.Writer, fl *fleet.Fleet, r *receipts.Writer, done <-chan error) error {
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	start, last, told := time.Now(), int64(0), false
	for at := start; ; {
		select {
		case err := <-done:
			return err
		case now := <-t.C:
			if r != nil {
				_ = r.Flush() // what goes wrong stays, and Close says it
			}
			s := fl.Stats()
			fmt.Fprintf(out, "%5s  %7.0f messages/s  %9d sent  %9d acknowledged  %6d in flight  %d sent again",
				now.Sub(start).Round(time.Second), float64(s.Published-last)/now.Sub(at).Seconds(), s.Published, s.Acknowledged, s.InFlight, s.Resent)
			if s.Behind > time.Second {
				fmt.Fprintf(out, "  %s behind", s.Behind.Round(100*time.Millisecond))
			}
			if s.Connected < s.Clients {
				fmt.Fprintf(out, "  %d of %d connected (%s)", s.Connected, s.Clients, s.LastError)
			}
			fmt.Fprintln(out)
			last, at = s.Published, now
			if ctx.Err() != nil && !told {
				told = true
				fmt.Fprintln(out, "stopping:", context.Cause(ctx))
			}
		}
	}
}

func sensorsCommand() *cobra.Command {
	var f fleetFlags
	var profile string
	var clients int
	var rate float64
	var duration time.Duration
	var seed uint64
	c := &cobra.Command{
		Use: "sensors", Short: "made-up devices with plausible signals", Args: cli.NoArgs,
		Long: `sensors connects made-up devices to an edge. Each is a client of its own, named
<profile>-<seed>-<number>, and publishes below a topic of that name. Payloads
are {"ts":…,"n":…,"value":…}; n counts the messages of a topic.

Profiles: car (850 sensors of 0.1 to 100 Hz, 4,433 messages/s), ship (124
sensors, 134 messages/s), steady (10 sensors, 100 messages/s).

When the edge is away, the devices wait, connect again and send again what was
not acknowledged; with QoS 2 within their sessions, under the same packet ids. The
first signal stops them in order; a second one kills.`,
		Example: `  packetboat-sim sensors --profile car --duration 30s --receipts receipts
  packetboat-sim sensors --profile steady --clients 10 --rate 5000
  packetboat-sim sensors --profile ship --mqtt 5 --username bridge --password secret
  packetboat-sim sensors --qos 0,1,2 --broker tls://127.0.0.1:8883 --ca-file ca.pem`,
		RunE: func(c *cobra.Command, _ []string) error {
			if clients < 1 || clients > 100_000 {
				return usage(fmt.Errorf("--clients %d: use 1 to 100,000", clients))
			}
			if duration < 0 {
				return usage(fmt.Errorf("--duration %s: use 0 for no end, or more", duration))
			}
			f.Speed = 1
			var all []fleet.Client
			for i := range clients {
				name := fmt.Sprintf("%s-%d-%d", profile, seed, i+1)
				d, err := signals.New(signals.Options{Profile: profile, Name: name, Seed: seed, Rate: rate / float64(clients), Start: time.Now()})
				if err != nil {
					return usage(err)
				}
				all = append(all, fleet.Client{ID: name, Source: fleet.FromDevice(d, duration)})
			}
			return f.run(c, all)
		},
	}
	f.add(c)
	c.Flags().StringVar(&profile, "profile", "car", "`kind` of device: "+strings.Join(signals.Profiles, ", "))
	c.Flags().IntVar(&clients, "clients", 1, "`number` of devices")
	c.Flags().Float64Var(&rate, "rate", 0, "`messages/s` of all devices together; 0: the profile's own")
	c.Flags().DurationVar(&duration, "duration", 0, "stop after this `time`; 0: run until stopped")
	c.Flags().Uint64Var(&seed, "seed", 1, "`number` that decides every value; another one is another fleet")
	return c
}

func replayCommand() *cobra.Command {
	var f fleetFlags
	var speed string
	var o recording.Options
	var bare bool
	c := &cobra.Command{
		Use: "replay FILE...", Short: "recorded telemetry, as sensors sent it",
		Long: `replay publishes recordings, each file as a client of its own. The format is
recognised by content and name:

  CSV with a header    vehicle/<column>       {"ts":<ms>,"value":<cell>}, a message per cell
  candump -L           can/<interface>/<id>   the frame's bytes
  NMEA 0183            nmea/<talker+type>     the sentence (it has no time: 7.8 per second)
  NMEA 2000 as text    n2k/<PGN>/<source>     the line
  JSON array           iot/<device>           the element
  NDJSON               {"t":<seconds>,"topic":"…","payload":"…"} or "payload_base64"`,
		Example: `  packetboat-sim replay drive.csv --speed 10 --receipts receipts
  packetboat-sim replay can.log ship.n2k.csv --speed max`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("which recording? give one file or more"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			if f.Speed, err = parseSpeed(speed); err != nil {
				return usage(err)
			}
			if bare {
				o.Layout = recording.Bare
			}
			clients, err := recordings(args, o)
			if err != nil {
				return err
			}
			return f.run(c, clients)
		},
	}
	f.add(c)
	c.Flags().StringVar(&speed, "speed", "1", "how fast recorded time passes: a `factor`, or max")
	c.Flags().BoolVar(&bare, "bare", false, "publish CSV cells as they are, not as JSON")
	return c
}

func parseSpeed(text string) (float64, error) {
	if text == "max" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f > 0) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("--speed %.20q: use a factor such as 1 or 10, or max", text)
	}
	return f, nil
}

// recordings makes a client of each file, once all of them are recognised.
func recordings(paths []string, o recording.Options) (clients []fleet.Client, err error) {
	names := map[string]int{}
	for _, path := range paths {
		if _, err := recording.RecogniseFile(path); err != nil {
			return nil, err
		}
		id := "replay-" + strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if names[id]++; names[id] > 1 {
			id += "-" + strconv.Itoa(names[id])
		}
		clients = append(clients, fleet.Client{ID: id, Source: recording.ReadFile(path, o)})
	}
	return clients, nil
}
