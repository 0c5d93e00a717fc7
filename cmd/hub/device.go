package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/hub"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/stream"
)

func deviceAdd() *cobra.Command {
	c := &cobra.Command{
		Use: "add ID", Short: "give a device a secret, and print it once", Args: cli.ExactArgs("ID"),
		Long: `Give a device a secret and print it: on standard output stands nothing else, and
the hub keeps only its hash. A running hub knows it at once. As soon as one
device has a secret, a hub without allow_anonymous lets in only devices that
give theirs, or show a certificate where tls.client_ca_file names authorities.
With --certificate the device is listed without a secret, for tls.devices: listed.`,
		Example: `  packetboat-hub device add truck-17 > secret
  packetboat-hub device add truck-17 --replace        # the old secret ends
  packetboat-hub device add truck-17 --certificate    # no secret: its certificate is enough`,
	}
	flags := addConfigFlags(c, "data-dir")
	replace := c.Flags().Bool("replace", false, "give a device that has a secret another one")
	certificate := c.Flags().Bool("certificate", false, "list the device, and give it no secret")
	c.RunE = func(c *cobra.Command, args []string) error {
		id := args[0]
		if err := stream.CheckDeviceID(id); err != nil {
			return cli.Fail(cli.Usage, err, "")
		}
		conf, err := flags.load()
		if err != nil {
			return err
		}
		path := conf.DevicesPath()
		if known, err := listDevices(path); err != nil {
			return err
		} else if !*replace && slices.Contains(known, id) {
			return cli.Fail(cli.Usage, fmt.Errorf("device %s has a secret already", id), "--replace gives it another one")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return fmt.Errorf("making the data directory: %w", err)
		}
		secret, sum := pki.NewSecret()
		if *certificate {
			sum = pki.Sum{} // the hash of nothing that anybody could send
		}
		if _, err := pki.SetUser(path, id, sum); err != nil {
			return err
		}
		if err := giveToOwner(path); err != nil {
			return err
		}
		if *certificate {
			fmt.Fprintf(c.ErrOrStderr(), "%s is listed; only a certificate lets it in\n", id)
			return nil
		}
		fmt.Fprintf(c.ErrOrStderr(), "secret of %s (kept nowhere: store it in the edge's secret file now):\n", id)
		_, err = fmt.Fprintln(c.OutOrStdout(), secret)
		return err
	}
	return c
}

func deviceList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "list the devices that have a secret", Args: cli.NoArgs,
		Example: `  packetboat-hub device list`,
	}
	flags := addConfigFlags(c, "data-dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := flags.load()
		if err != nil {
			return err
		}
		known, err := listDevices(conf.DevicesPath())
		for _, id := range slices.Sorted(slices.Values(known)) {
			fmt.Fprintln(c.OutOrStdout(), id)
		}
		return err
	}
	return c
}

func deviceRemove() *cobra.Command {
	c := &cobra.Command{
		Use: "remove ID", Short: "take a device's secret away", Args: cli.ExactArgs("ID"),
		Long: `Take a device's secret away. It cannot connect any more, and a running hub ends
its connection within seconds. What it sent stays in the log. With tls.devices:
any a certificate lets it in all the same, until it is on a revocation list.`,
		Example: `  packetboat-hub device remove truck-17`,
	}
	flags := addConfigFlags(c, "data-dir")
	c.RunE = func(c *cobra.Command, args []string) error {
		conf, err := flags.load()
		if err != nil {
			return err
		}
		err = pki.RemoveUser(conf.DevicesPath(), args[0])
		if errors.Is(err, pki.ErrNoUser) || errors.Is(err, fs.ErrNotExist) {
			return cli.Fail(cli.Usage, fmt.Errorf("no device %.80q has a secret", args[0]), "`packetboat-hub device list` names those that have")
		}
		if err == nil && conf.TLS.ClientCAFile != "" && conf.TLS.Devices == hub.DevicesAny {
			fmt.Fprintf(c.ErrOrStderr(), "a certificate still lets %s in: put it on the list of tls.crl_file, or set tls.devices: listed\n", args[0])
		}
		return err
	}
	return c
}

// giveToOwner gives a file that root made to the owner of its directory, which
// is the hub's user.
func giveToOwner(path string) error {
	var dir unix.Stat_t
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Stat(filepath.Dir(path), &dir); err != nil {
		return fmt.Errorf("looking whose directory it is: %w", err)
	}
	if err := os.Chown(path, int(dir.Uid), int(dir.Gid)); err != nil {
		return fmt.Errorf("giving the devices file to the hub's user: %w", err)
	}
	return nil
}

// listDevices gives the ids in the devices file; none where there is no file.
func listDevices(path string) ([]string, error) {
	known, err := pki.ListUsers(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return known, err
}
