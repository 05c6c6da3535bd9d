// Command menshen is the gateway and its tools. Each command is a thin file; messages go to standard error, data to
// standard output.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-gateway/menshen/internal/app"
	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/snapshot"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs the command and gives its exit code: 0 fine, 1 the user's input is wrong, 2 the environment is, 3 a bug.
func Main(args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	var err error
	switch first := append(args, "")[0]; {
	case first == "--version" || first == "-v" || first == "-V": // what most people try first
		root.SetArgs([]string{"version"})
		err = root.Execute()
	case strings.HasPrefix(first, "-") && first != "-h" && first != "--help": // the root knows no other; see FParseErrWhitelist
		err = fmt.Errorf("a command comes first, not %s: menshen run -c FILE serves, menshen check -c FILE validates (see: menshen --help)", first)
	default:
		err = root.Execute()
	}
	if err == nil {
		return 0
	}
	var silent *silentError
	if errors.As(err, &silent) {
		return silent.code
	}
	code := app.ExitInput // wrong flags and unknown commands, too
	var exit *app.ExitError
	if errors.As(err, &exit) {
		code = exit.Code
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(stderr, problems.Error())
	} else {
		fmt.Fprintln(stderr, "menshen: "+strings.TrimSpace(err.Error()))
	}
	return code
}

// silentError ends the command with a code when all has been said.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit %d", e.code) }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "menshen",
		Short: "Menshen: an HTTP API gateway and a SQL gateway behind one configuration",
		Long: `Menshen stands before your services and your databases: one door speaks HTTP, the other the
MySQL protocol, and both share balancing, health, identity, logs and metrics.

  menshen run -c menshen.yaml        serve
  menshen check -c menshen.yaml      validate a configuration
  menshen explain http GET http://api.example.com/users/1 -c menshen.yaml`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          group,
		Args:          cobra.ArbitraryArgs,
	}
	root.FParseErrWhitelist.UnknownFlags = true // so that a wrong command is named, rather than its flags
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (see: %s --help)", err, c.CommandPath())
	})
	root.AddCommand(runCommand(), checkCommand(), explainCommand(), configCommand(), versionCommand())
	return root
}

// group is the body of a command that only has others: it shows the help, or refuses a word that is none of them.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	message := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		message += " (did you mean " + strings.Join(near, " or ") + "?)"
	}
	return fmt.Errorf("%s (see: %s --help)", message, c.CommandPath())
}

// two refuses anything but two arguments, and shows what they are.
func two(c *cobra.Command, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("two arguments are needed, not %d: %s (see: %s --help)", len(args), strings.TrimSuffix(c.UseLine(), " [flags]"), c.CommandPath())
	}
	return nil
}

// none refuses arguments: what is meant is most likely the configuration.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, but a flag: %s -c %s", c.CommandPath(), c.CommandPath(), args[0])
	}
	return nil
}

// configFlag adds -c, which the command needs.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "", "configuration: a YAML file, or a folder whose *.yaml are merged")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *path == "" {
			return fmt.Errorf("which configuration? %s -c FILE, or a folder (see: %s --help)", c.CommandPath(), c.CommandPath())
		}
		return nil
	}
	_ = c.MarkFlagFilename("config", "yaml")
}

// outputFlag adds -o.
func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "text", "form of the output: text or json")
}

func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("-o %s is not known (accepted: text, json)", output)
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// load reads a configuration; its error carries the exit code.
func load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	var problems config.Problems
	if errors.As(err, &problems) {
		err = problems.With(snapshot.Problems(config.LoadIntact(path)))
	}
	if err != nil {
		return nil, &app.ExitError{Code: app.ExitInput, Err: err}
	}
	return c, nil
}
