package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/rig/badlink"
)

func linkCommand() *cobra.Command {
	var o badlink.Options
	var rate int64
	var cut, schedule, control string
	c := &cobra.Command{
		Use: "link", Short: "a TCP proxy that imitates a bad link", Args: cli.NoArgs,
		Long: `link carries TCP connections and does to them what a bad link does.

Cuts: refuse (nobody listens), reset (connections are reset), blackhole
(connections are accepted and nothing flows; existing ones freeze).

A schedule is a list of <time>:<change>, and the control address takes the same
changes as POST /?<change>&<change>; GET / tells conditions and bytes. Changes:
up, refuse, reset, blackhole, cut=…, rate=…, rate-up=…, rate-down=…, delay=…,
jitter=…, loss=…, stall=….`,
		Example: `  packetboat-sim link --listen 127.0.0.1:2884 --to 127.0.0.1:1884 --rate 20000 --delay 300ms --loss 0.01
  packetboat-sim link --listen 127.0.0.1:2884 --to 127.0.0.1:1884 --schedule 10s:cut=blackhole,15s:up
  packetboat-sim link --listen 127.0.0.1:2884 --to 127.0.0.1:1884 --control 127.0.0.1:2885
  curl -X POST 'http://127.0.0.1:2885/?cut=reset'`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if _, _, err := net.SplitHostPort(o.Target); err != nil {
				return usage(fmt.Errorf("--to %.100q: want host:port", o.Target))
			}
			if o.Conditions.Cut, err = badlink.ParseCut(cut); err != nil {
				return usage(err)
			}
			if o.Schedule, err = badlink.ParseSchedule(schedule); err != nil {
				return usage(err)
			}
			if rate > 0 {
				o.Conditions.RateUp, o.Conditions.RateDown = rate, rate
			}
			o.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			return runLink(c, o, control)
		},
	}
	fl := c.Flags()
	fl.StringVar(&o.Listen, "listen", "127.0.0.1:2884", "`address` to listen on")
	fl.StringVar(&o.Target, "to", "127.0.0.1:1884", "`address` that connections go to")
	fl.Int64Var(&rate, "rate", 0, "`bytes/s` each way; 0: no limit")
	fl.Int64Var(&o.Conditions.RateUp, "rate-up", 0, "`bytes/s` towards --to")
	fl.Int64Var(&o.Conditions.RateDown, "rate-down", 0, "`bytes/s` back")
	fl.DurationVar(&o.Conditions.Delay, "delay", 0, "`time` everything takes, each way")
	fl.DurationVar(&o.Conditions.Jitter, "jitter", 0, "up to so much more `time`, at random")
	fl.Float64Var(&o.Conditions.Loss, "loss", 0, "`share` of packets that are lost, 0 to 1; each is a stall")
	fl.DurationVar(&o.Conditions.Stall, "stall", 200*time.Millisecond, "how `long` a lost packet stops its direction")
	fl.StringVar(&cut, "cut", "up", "`cut` to start with: up, refuse, reset or blackhole")
	fl.StringVar(&schedule, "schedule", "", "`changes` over time, as in 10s:cut=blackhole,15s:up")
	fl.StringVar(&control, "control", "", "`address` for changes over HTTP; without password, so use loopback")
	fl.Uint64Var(&o.Seed, "seed", 1, "`number` that makes jitter and loss repeatable")
	return c
}

func runLink(c *cobra.Command, o badlink.Options, control string) error {
	l, err := badlink.New(o)
	if err != nil {
		return cli.ListenError("--listen", o.Listen, err)
	}
	ctx, stop := cli.Signals(c.Context())
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if control != "" {
		ln, err := net.Listen("tcp", control)
		if err != nil {
			_ = l.Close() // never ran
			return cli.ListenError("--control", control, err)
		}
		var h http.Handler = l.Handler()
		wg.Go(func() {
			if err := obs.Serve(ctx, ln, h, o.Logger); err != nil {
				o.Logger.Error("serving the control address", "error", err)
			}
		})
	}
	out := c.ErrOrStderr()
	fmt.Fprintf(out, "%s carries to %s\n", l.Addr(), o.Target)
	wg.Go(func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				s := l.Stats()
				fmt.Fprintf(out, "%-9s  %d connections  %d bytes up  %d bytes down  %d stalls\n", l.Conditions().Cut, s.Connections, s.BytesUp, s.BytesDown, s.Stalls)
			}
		}
	})
	err = l.Run(ctx)
	s := l.Stats()
	fmt.Fprintf(c.OutOrStdout(), "%d bytes up, %d bytes down, %d connections\n", s.BytesUp, s.BytesDown, s.Accepted)
	return err
}
