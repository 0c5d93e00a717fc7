package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/edge"
	"github.com/packetboat/packetboat/internal/pki"
)

func userAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "add NAME", Short: "make a sensor's password and print it once", Args: cli.ExactArgs("NAME"),
		Long: `Make a password of 256 random bits for a sensor, keep its hash in the users file
and print it: it is shown this once. A name that is there already gets a new
password. A running edge sees the change by itself, and ends the connections
that came with the old one.`,
		Example: `  packetboat-edge user add gps --file /etc/packetboat/sensors.users
  packetboat-edge user add gps --config /etc/packetboat/edge.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			file, err := usersFile(c)
			if err != nil {
				return err
			}
			text, sum := pki.NewSecret()
			replaced, err := pki.SetUser(file, args[0], sum)
			if err != nil {
				return userError(err)
			}
			note := "added"
			if replaced {
				note = "given a new password"
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s is %s in %s; its password is shown only now:\n", args[0], note, file)
			_, err = fmt.Fprintln(c.OutOrStdout(), text)
			return err
		},
	}
	fileFlags(c)
	return c
}

func userRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "remove NAME", Short: "take a sensor out of the users file", Args: cli.ExactArgs("NAME"),
		Long: `Take a sensor out of the users file. A running edge ends the connections that it
has within a second, and refuses new ones.`,
		Example: "  packetboat-edge user remove gps --file /etc/packetboat/sensors.users",
		RunE: func(c *cobra.Command, args []string) error {
			file, err := usersFile(c)
			if err != nil {
				return err
			}
			return userError(pki.RemoveUser(file, args[0]))
		},
	}
	fileFlags(c)
	return c
}

func userListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "list the names in the users file", Args: cli.NoArgs,
		Example: "  packetboat-edge user list --file /etc/packetboat/sensors.users",
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := usersFile(c)
			if err != nil {
				return err
			}
			names, err := pki.ListUsers(file)
			for _, n := range names {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			return userError(err)
		},
	}
	fileFlags(c)
	return c
}

func fileFlags(c *cobra.Command) {
	configFlag(c)
	c.Flags().StringP("file", "f", "", "the users file (default: sensors.users_file of the configuration)")
}

// usersFile finds the file: --file, else what the environment or the
// configuration names. The rest of the configuration need not be good, nor the
// file there yet: it may be this command that makes it.
func usersFile(c *cobra.Command) (string, error) {
	if file, _ := c.Flags().GetString("file"); file != "" {
		return file, nil
	}
	conf := edge.Defaults()
	_ = source(c).Load(&conf)
	if conf.Sensors.UsersFile == "" {
		return "", cli.Fail(cli.Usage, errors.New("no users file is named"), "say --file FILE, or set sensors.users_file in the configuration and say --config")
	}
	return conf.Sensors.UsersFile, nil
}

// userError gives an error of the users file its exit code and remedy.
func userError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pki.ErrUserName), errors.Is(err, pki.ErrNoUser):
		return cli.Fail(cli.Usage, err, "")
	case errors.Is(err, os.ErrPermission):
		return cli.Fail(cli.Operator, err, "run it as the user who owns the file")
	case errors.Is(err, fs.ErrNotExist):
		return cli.Fail(cli.Usage, err, "`packetboat-edge user add NAME --file FILE` makes the file, not its directory")
	}
	return err
}
