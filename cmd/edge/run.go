package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/edge"
	"github.com/packetboat/packetboat/internal/obs"
)

// settings are the flags that give keys of the configuration a value.
var settings = []struct{ flag, key, usage string }{
	{"device", "device", "id of this vehicle"},
	{"hub", "hub.urls", "where the data goes, tcp://host:1884 or tls://host:8884; several with commas"},
	{"secret-file", "hub.secret_file", "file with the device's secret"},
	{"data-dir", "data_dir", "where the journal lives"},
	{"listen", "listen.mqtt", "where sensors connect, host:port"},
	{"http", "listen.http", "status, metrics and health, host:port or off"},
	{"log-level", "log.level", "debug, info, warn or error"},
}

// source collects what --config and the settings on the command line say.
func source(c *cobra.Command) config.Source {
	s := config.Source{EnvPrefix: edge.EnvPrefix, Environ: os.Environ()}
	s.Path, _ = c.Flags().GetString("config")
	for _, x := range settings {
		if f := c.Flags().Lookup(x.flag); f != nil && f.Changed {
			s.Set = append(s.Set, config.Override{Key: x.key, Value: f.Value.String(), From: "--" + x.flag})
		}
	}
	return s
}

func configFlag(c *cobra.Command) {
	c.Flags().StringP("config", "c", "", "configuration file")
}

func settingFlags(c *cobra.Command) {
	configFlag(c)
	for _, x := range settings {
		c.Flags().String(x.flag, "", x.usage)
	}
}

func runCommand(stderr io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use: "run", Short: "run the edge until it is told to stop", Args: cli.NoArgs,
		Long: `Run the edge until SIGINT or SIGTERM. It stops in order and keeps what is not
in the log yet; a second signal ends it at once, which costs nothing either that
was acknowledged.

Every key of the configuration is also an environment variable, listed by
"packetboat-edge config keys"; flags win over the environment, the environment
over the file.`,
		Example: `  packetboat-edge run --device truck-17 --hub tcp://hub.example:1884
  PACKETBOAT_EDGE_BUFFER_MAX_BYTES=8GiB packetboat-edge run --config edge.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf := edge.Defaults()
			if err := source(c).Load(&conf); err != nil {
				return err
			}
			ctx, stop := cli.Signals(context.Background())
			defer stop()
			boundMemory(os.Getenv)
			return edge.Run(ctx, conf, obs.NewLogger(stderr, conf.Log), nil)
		},
	}
	settingFlags(c)
	return c
}

// Without limits of the runtime's own the heap may double before it is
// collected. A vehicle's computer has better uses for memory than for the few
// percent of its processor that the tighter setting takes.
const (
	gcPercent   = 50
	memoryLimit = 256 << 20 // far above what the bounds of the configuration add up to
)

// boundMemory sets the runtime's limits unless its variables do.
func boundMemory(getenv func(string) string) {
	if strings.TrimSpace(getenv("GOGC")) == "" {
		debug.SetGCPercent(gcPercent)
	}
	if strings.TrimSpace(getenv("GOMEMLIMIT")) == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
