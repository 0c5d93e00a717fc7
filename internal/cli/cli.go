// Package cli is what the programs share on the outside: exit codes, the way
// an error is shown to a person, signals, and the shape of their commands.
//
// It promises that a program ends with the documented code and with one
// lower-case line per problem on standard error, followed by a hint where one
// is known. It exits nothing itself and reads no configuration.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of every program.
const (
	OK       = 0 // stopped as asked, also with a backlog
	Failed   = 1 // failed, or a promise was found broken
	Usage    = 2 // wrong arguments or configuration
	Locked   = 3 // the data directory belongs to another process
	Listen   = 4 // an address cannot be listened on
	Operator = 5 // somebody has to decide or repair something first
)

// Error is an error that says how the program ends and what to do about it.
type Error struct {
	Code int    // one of the exit codes
	Err  error  // what went wrong
	Help string // what to do about it, one line; may be empty
}

// Fail wraps err with an exit code and a hint. A nil err stays nil.
func Fail(code int, err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Err: err, Help: hint}
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is how the program ends.
func (e *Error) ExitCode() int { return e.Code }

// Hint is what to do about it.
func (e *Error) Hint() string { return e.Help }

// ExitCode gives the code with which a program ends that failed with err: that
// of the outermost error with an ExitCode method, Failed without one.
func ExitCode(err error) int {
	if err == nil {
		return OK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return Failed
}

// Print shows err to a person: "name: what" and, on a line of its own, the
// hint. An error with a Lines method is shown as those lines.
func Print(w io.Writer, name string, err error) {
	var many interface{ Lines() []string }
	if errors.As(err, &many) {
		for _, line := range many.Lines() {
			fmt.Fprintf(w, "%s: %s\n", name, oneLine(line))
		}
	} else {
		fmt.Fprintf(w, "%s: %s\n", name, oneLine(err.Error()))
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) && hinted.Hint() != "" {
		fmt.Fprintf(w, "hint: %s\n", oneLine(hinted.Hint()))
	}
}

// oneLine keeps what came from outside from breaking the line or the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// Root makes a program's root command: no usage text after an error, and
// errors left to Run.
func Root(use, short, long, example string) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		SilenceUsage: true, SilenceErrors: true,
		Args: NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.CompletionOptions.HiddenDefaultCmd = true
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Fail(Usage, err, fmt.Sprintf("`%s --help` lists the flags", c.CommandPath()))
	})
	return c
}

// Group makes a command that only holds others.
func Group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(subs...)
	return c
}

// Version gives a program --version and the version command, which say build.
func Version(root *cobra.Command, build string) {
	root.Version = build
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	name := root.Name()
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "say what was built", Args: NoArgs,
		Example: "  " + name + " version\n  " + name + " --version",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), name, build)
			return err
		},
	})
}

// NoArgs refuses arguments; where subcommands exist it names the nearest ones.
func NoArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("`%s --help` shows what it takes", c.CommandPath())
	if !c.HasAvailableSubCommands() {
		return Fail(Usage, fmt.Errorf("%s takes no argument, got %q", c.CommandPath(), args[0]), hint)
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("did you mean `%s %s`?", c.CommandPath(), near[0])
	}
	return Fail(Usage, fmt.Errorf("unknown command %q", args[0]), hint)
}

// ExactArgs refuses anything but one argument for each of names.
func ExactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return Fail(Usage, fmt.Errorf("%s wants %s, got %d arguments", c.CommandPath(), strings.Join(names, " "), len(args)),
			fmt.Sprintf("`%s --help` shows an example", c.CommandPath()))
	}
}

// Run executes root with args and gives the exit code. What goes wrong is
// printed on stderr.
func Run(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return OK
	}
	Print(stderr, root.Name(), err)
	return ExitCode(err)
}
