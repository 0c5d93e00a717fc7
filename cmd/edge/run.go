package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/edge"
	"github.com/packetboat/packetboat/internal/obs"
)

// settings are the flags that give keys of the configuration a value.
var settings = []struct {
	flag, key, usage string
	list             bool
}{
	{"device", "device", "id of this vehicle", false},
	{"hub", "hub.urls", "where the data goes, tcp://host:1884 or tls://host:8884; given several times, they are tried in order", true},
	{"secret-file", "hub.secret_file", "file with the device's secret", false},
	{"data-dir", "data_dir", "where the journal lives", false},
	{"listen", "listen.mqtt", "where sensors connect, host:port", false},
	{"http", "listen.http", "status, metrics and health, host:port or off", false},
	{"log-level", "log.level", "debug, info, warn or error", false},
}

// source collects what --config and the settings on the command line say.
func source(c *cobra.Command) config.Source {
	s := config.Source{EnvPrefix: edge.EnvPrefix, Environ: os.Environ()}
	s.Path, _ = c.Flags().GetString("config")
	for _, x := range settings {
		f := c.Flags().Lookup(x.flag)
		if f == nil || !f.Changed {
			continue
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		s.Set = append(s.Set, config.Override{Key: x.key, Value: value, From: "--" + x.flag})
	}
	return s
}

func configFlag(c *cobra.Command) {
	c.Flags().StringP("config", "c", "", "configuration file")
}

func settingFlags(c *cobra.Command) {
	configFlag(c)
	for _, x := range settings {
		if x.list {
			c.Flags().StringSlice(x.flag, nil, x.usage)
		} else {
			c.Flags().String(x.flag, "", x.usage)
		}
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
			boundMemory(os.Getenv, &conf)
			return edge.Run(ctx, conf, obs.NewLogger(stderr, conf.Log), nil)
		},
	}
	settingFlags(c)
	return c
}

// boundMemory tells the runtime where the memory of the process should end,
// unless GOMEMLIMIT does: at twice what the bounds of the configuration add up
// to. Up to there the collector's own pace holds; a vehicle's computer has
// little to spare beyond.
func boundMemory(getenv func(string) string, c *edge.Config) {
	if strings.TrimSpace(getenv("GOMEMLIMIT")) == "" {
		debug.SetMemoryLimit(baseMemory + 2*c.BoundedMemory())
	}
}

// baseMemory is what everything but the sensors' side may need, twice.
const baseMemory = 32 << 20
