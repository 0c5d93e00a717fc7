package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/hub"
	"github.com/packetboat/packetboat/internal/obs"
)

// configFlags are the flags that say where the configuration comes from. Those
// that name a key win over environment and file.
type configFlags struct {
	cmd  *cobra.Command
	path string
	keys map[string]string // flag to key
}

func addConfigFlags(c *cobra.Command, keys ...string) *configFlags {
	f := &configFlags{cmd: c, keys: map[string]string{}}
	c.Flags().StringVarP(&f.path, "config", "c", "", "configuration file; without one the defaults hold")
	for _, k := range keys {
		switch k {
		case "data-dir":
			f.add(k, "data_dir", "directory of the log and the devices file")
		case "listen":
			f.add(k, "listen.mqtt", "address for devices, host:port or off")
		case "http":
			f.add(k, "listen.http", "address of API, metrics and health, host:port or off")
		case "log-level":
			f.add(k, "log.level", "debug, info, warn or error")
		}
	}
	return f
}

func (f *configFlags) add(flag, key, usage string) {
	f.cmd.Flags().String(flag, "", usage)
	f.keys[flag] = key
}

// load gives the configuration, with every violation reported at once.
func (f *configFlags) load() (hub.Config, error) {
	src := config.Source{Path: f.path, EnvPrefix: hub.EnvPrefix, Environ: os.Environ()}
	for flag, key := range f.keys {
		if fl := f.cmd.Flags().Lookup(flag); fl.Changed {
			src.Set = append(src.Set, config.Override{Key: key, Value: fl.Value.String(), From: "--" + flag})
		}
	}
	c := hub.Defaults()
	return c, src.Load(&c)
}

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "run", Short: "run the hub", Args: cli.NoArgs,
		Long: `Run the hub until SIGINT or SIGTERM; a second signal kills it. Without a
configuration it keeps its log in ./packetboat-hub-data and listens on loopback:
MQTT 5 for devices on 1884, HTTP on 8460.`,
		Example: `  packetboat-hub run
  packetboat-hub run --config /etc/packetboat/hub.yaml
  PACKETBOAT_HUB_LOG_LEVEL=debug packetboat-hub run --listen 127.0.0.1:2884`,
	}
	flags := addConfigFlags(c, "data-dir", "listen", "http", "log-level")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := flags.load()
		if err != nil {
			return err
		}
		ctx, stop := cli.Signals(c.Context())
		defer stop()
		h, err := hub.Open(conf, obs.NewLogger(c.ErrOrStderr(), conf.Log))
		if err != nil {
			return err
		}
		return h.Run(ctx)
	}
	return c
}
