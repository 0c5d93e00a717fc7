package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/edge"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "ask the running edge how it is", Args: cli.NoArgs,
		Long: `Ask the edge on this machine for its link, its backlog per lane, its last error
and what it accepted, settled and lost.`,
		Example: `  packetboat-edge status
  packetboat-edge status --json | jq .messages
  packetboat-edge status --config /etc/packetboat/edge.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			base, err := baseURL(c)
			if err != nil {
				return err
			}
			s, err := edge.Ask(c.Context(), base)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return s.Print(c.OutOrStdout())
		},
	}
	configFlag(c)
	c.Flags().Bool("json", false, "print everything as JSON")
	c.Flags().String("url", "", "address of the edge (default http://127.0.0.1:8461)")
	return c
}

// baseURL finds the edge: --url, or where the configuration or the environment
// let it listen, or where it listens by itself.
func baseURL(c *cobra.Command) (string, error) {
	if base, _ := c.Flags().GetString("url"); base != "" {
		if !strings.Contains(base, "://") {
			base = "http://" + base
		}
		return base, nil
	}
	conf := edge.Defaults()
	if path, _ := c.Flags().GetString("config"); path != "" {
		if err := source(c).Load(&conf); err != nil {
			return "", err
		}
	} else if addr := os.Getenv("PACKETBOAT_EDGE_LISTEN_HTTP"); addr != "" {
		conf.Listen.HTTP = addr
	}
	if conf.Listen.HTTP == edge.Off {
		return "", cli.Fail(cli.Usage, fmt.Errorf("listen.http is off: the edge answers nobody"), "set listen.http to an address")
	}
	return edge.BaseURL(conf.Listen.HTTP), nil
}
