package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/hub"
)

func configCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check", Short: "check the configuration, all of it", Args: cli.NoArgs,
		Long: `Check the configuration: file, environment and flags. Everything that is wrong is
reported at once, with its place. Then read the files it names: devices,
certificates, authorities and revocation lists.`,
		Example: `  packetboat-hub config check --config /etc/packetboat/hub.yaml`,
	}
	flags := addConfigFlags(c, "data-dir", "listen", "http", "log-level")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := flags.load()
		if err != nil {
			return err
		}
		more, err := conf.CheckFiles()
		for _, w := range append(conf.Warnings(), more...) {
			fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
		}
		if err != nil {
			return cli.Fail(cli.Usage, err, "")
		}
		what := flags.path
		if what == "" {
			what = "the default configuration"
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good\n", what)
		return err
	}
	return c
}

func configKeys() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "keys", Short: "list every key with its default and environment variable", Args: cli.NoArgs,
		Example: "  packetboat-hub config keys\n  packetboat-hub config keys --json",
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		keys := config.Describe(hub.Defaults(), hub.EnvPrefix)
		if asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(keys)
		}
		tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "KEY\tTYPE\tDEFAULT\tENVIRONMENT\tMEANING")
		for _, k := range keys {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", k.Name, k.Type, k.Default, k.Env, k.Doc)
		}
		return tw.Flush()
	}
	return c
}
