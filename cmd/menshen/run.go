package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/menshen-gateway/menshen/internal/app"
)

func runCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run -c FILE|DIR",
		Short: "Serve; reload when the configuration changes and on SIGHUP; SIGTERM drains",
		Long: `Serve until SIGTERM or SIGINT, then drain: readiness turns false, listeners close, requests finish within
drain_timeout, and the exit code is 0. A second signal ends at once.

The configuration is read again when its files change and on SIGHUP. One with an error is refused whole, and the
old one stays in service. SIGHUP also reopens the access log's file.

When all listeners are open, one line with their addresses goes to standard output.`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error { return run(path, c.OutOrStdout(), c.ErrOrStderr()) },
	}
	configFlag(c, &path)
	return c
}

func run(path string, stdout, stderr io.Writer) error {
	// Signals first: a SIGTERM while the listeners open must not be lost.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	a, err := app.New(app.Options{ConfigPath: path, Log: stderr, Version: version, Ready: func(addresses map[string]string) {
		line := "menshen " + version + " ready:"
		for _, name := range slices.Sorted(maps.Keys(addresses)) {
			line += " " + name + "=" + addresses[name]
		}
		fmt.Fprintln(stdout, line)
	}})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// Reloads have a goroutine of their own, so that one that takes its time does not hold up the end; requests that come
	// meanwhile become one.
	reloads := make(chan struct{}, 1)
	go func() { // ends with the process
		for range reloads {
			a.ReopenLogs()
			_, _ = a.Reload(ctx) // its failure is logged and shown by the admin API
		}
	}()
	go func() { // ends with the process
		for s := range signals {
			switch {
			case s == syscall.SIGHUP:
				select {
				case reloads <- struct{}{}:
				default:
				}
			case ctx.Err() != nil:
				os.Exit(128 + int(s.(syscall.Signal)))
			default:
				stop()
			}
		}
	}()
	return a.Run(ctx)
}
