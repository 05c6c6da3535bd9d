package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-gateway/menshen/internal/app"
	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/snapshot"
)

func checkCommand() *cobra.Command {
	var path, output string
	c := &cobra.Command{
		Use:   "check -c FILE|DIR",
		Short: "Validate a configuration; print all its problems, or what it holds",
		Long: `Read and compile a configuration as run would, without opening a listener. Each problem is one line,
file:line:column: path: what is wrong (what would be accepted). The exit code is 1 when there is one. A note is about
what is right, and often not what was meant.`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			cfg, err := compile(path, nil)
			var notes config.Problems
			if err == nil {
				notes = append(config.Unread(path), cfg.Notes()...)
			}
			if err == nil && output == "text" {
				for _, note := range notes {
					fmt.Fprintln(c.ErrOrStderr(), "note: "+note.String())
				}
				fmt.Fprintln(c.OutOrStdout(), "ok: "+counts(cfg))
				return nil
			}
			var problems config.Problems
			if output == "json" && (err == nil || errors.As(err, &problems)) {
				return checkJSON(c.OutOrStdout(), cfg, problems, notes)
			}
			return err
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	return c
}

func checkJSON(w io.Writer, c *config.Config, problems, notes config.Problems) error {
	type problem struct {
		File    string `json:"file"`
		Line    int    `json:"line"`
		Column  int    `json:"column"`
		Path    string `json:"path"`
		Message string `json:"message"`
	}
	answer := struct {
		OK       bool           `json:"ok"`
		Counts   map[string]int `json:"counts,omitempty"`
		Problems []problem      `json:"problems"`
		Notes    []problem      `json:"notes,omitempty"`
	}{OK: len(problems) == 0, Problems: []problem{}}
	for _, p := range problems {
		answer.Problems = append(answer.Problems, problem(p))
	}
	for _, n := range notes {
		answer.Notes = append(answer.Notes, problem(n))
	}
	if answer.OK {
		answer.Counts = map[string]int{"listeners": len(c.Listeners), "routes": len(c.Routes), "services": len(c.Services),
			"databases": len(c.Databases), "consumers": len(c.Consumers)}
	}
	if err := printJSON(w, answer); err != nil {
		return err
	}
	if !answer.OK {
		return &silentError{app.ExitInput}
	}
	return nil
}

// compile loads a configuration and compiles it whole, as run would. use, when given, sees the snapshot before it is
// dropped.
func compile(path string, use func(*snapshot.Snapshot) error) (*config.Config, error) {
	c, err := load(path)
	if err != nil {
		return nil, err
	}
	store := snapshot.NewStore(slog.New(slog.DiscardHandler), observe.NewMetrics())
	defer store.Close()
	pending, err := store.Prepare(c, path)
	if err != nil {
		return nil, &app.ExitError{Code: app.ExitInput, Err: err}
	}
	defer pending.Abort()
	if use != nil {
		return c, use(pending.Snapshot)
	}
	return c, nil
}

// counts says in words what a configuration holds.
func counts(c *config.Config) string {
	var parts []string
	add := func(n int, one string) {
		if n != 1 {
			one += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, one))
	}
	add(len(c.Listeners), "listener")
	add(len(c.Routes), "route")
	add(len(c.Services), "service")
	add(len(c.Databases), "database")
	add(len(c.Consumers), "consumer")
	return strings.Join(parts, ", ")
}
