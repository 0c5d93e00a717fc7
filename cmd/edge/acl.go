package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/edge"
)

func aclCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "check", Short: "say what is wrong with an ACL file, or what a sensor may do by it", Args: cli.NoArgs,
		Long: `Read an ACL file and say everything that is wrong with it. With --publish,
--see or --subscribe, say whether a sensor may do that, and by which line. A
subscription is allowed when the sensor may see any topic of it; each message is
judged by its own topic.

The exit code is 0 when all is good and allowed, 1 when something is denied, 2
when the file is wrong.`,
		Example: `  packetboat-edge acl check --file sensors.acl
  packetboat-edge acl check --config edge.yaml --user gps --client gps-1 \
      --publish sensors/gps/pos --subscribe 'sensors/#' --see cmd/gps`,
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := aclFile(c)
			if err != nil {
				return err
			}
			list, err := acl.Open(file)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
					return cli.Fail(cli.Usage, err, "")
				}
				return err
			}
			asked, err := askACL(c, list, filepath.Base(file))
			if err == nil && !asked {
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good: %d rules, %d users\n", file, list.Rules(), len(list.Users()))
			}
			return err
		},
	}
	configFlag(c)
	c.Flags().StringP("file", "f", "", "the ACL file (default: sensors.acl_file of the configuration)")
	c.Flags().String("user", "", "the sensor's user name; none: it gave none")
	c.Flags().String("client", "client", "the sensor's client id")
	c.Flags().StringArray("publish", nil, "a topic that it publishes to; may be given several times")
	c.Flags().StringArray("see", nil, "a topic whose messages it receives; may be given several times")
	c.Flags().StringArray("subscribe", nil, "a topic filter that it subscribes to; may be given several times")
	return c
}

// askACL answers what the flags ask.
func askACL(c *cobra.Command, list *acl.List, file string) (asked bool, err error) {
	user, _ := c.Flags().GetString("user")
	client, _ := c.Flags().GetString("client")
	v := list.For(user, client)
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	denied := 0
	for _, x := range []struct {
		flag string
		ask  func(string) acl.Verdict
	}{{"publish", v.ExplainPublish}, {"see", v.ExplainDeliver}, {"subscribe", v.ExplainSubscribe}} {
		topics, _ := c.Flags().GetStringArray(x.flag)
		for _, topic := range topics {
			if message := edge.CheckTopic(topic, x.flag == "subscribe"); message != "" {
				return true, cli.Fail(cli.Usage, fmt.Errorf("--%s %.80q: %s", x.flag, topic, message), "")
			}
			asked = true
			if !printVerdict(t, x.flag, topic, x.ask(topic), file) {
				denied++
			}
		}
	}
	if err := t.Flush(); err != nil {
		return asked, err
	}
	if denied > 0 {
		return true, fmt.Errorf("%d denied", denied)
	}
	return asked, nil
}

func printVerdict(w io.Writer, what, topic string, d acl.Verdict, file string) bool {
	word, why := "denied", "no line allows it"
	if d.Allowed {
		word = "allowed"
	}
	if d.Line > 0 {
		why = fmt.Sprintf("%s:%d: %s", file, d.Line, d.Rule)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", what, topic, word, why)
	return d.Allowed
}

// aclFile finds the file: --file, else what the environment or the
// configuration names. The rest of the configuration need not be good.
func aclFile(c *cobra.Command) (string, error) {
	if file, _ := c.Flags().GetString("file"); file != "" {
		return file, nil
	}
	conf := edge.Defaults()
	_ = source(c).Load(&conf)
	if conf.Sensors.ACLFile == "" {
		return "", cli.Fail(cli.Usage, errors.New("no acl file is named"), "say --file FILE, or set sensors.acl_file in the configuration and say --config")
	}
	return conf.Sensors.ACLFile, nil
}
