// Command demo shows Menshen with nothing to install: sample HTTP services, two embedded MySQL-compatible instances, and
// the real gateway with both doors before them, in one process.
//
//	go run .            run until Ctrl-C
//	go run . --config   print the configuration that a run would use, and exit
//
// It is a nested module, so that what it needs (a whole SQL engine) stays out of the gateway's go.mod. It listens on
// 127.0.0.1 only, because its passwords are printed on the screen. It is no way to run Menshen in earnest: use
// cmd/menshen and a file.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
)

func main() {
	silence()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// silence keeps the embedded SQL engine, which logs through these two, off the terminal. What goes wrong in it reaches
// the SQL client.
func silence() {
	log.SetOutput(io.Discard)
	logrus.SetOutput(io.Discard)
}

// command is main without the process: it returns the exit code, 1 for a wrong command line and 2 when something could
// not be started.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	printConfig := flags.Bool("config", false, "print the YAML that the demo runs with, and exit")
	quiet := flags.Bool("quiet", false, "write no access records to the terminal")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 1
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "demo: unexpected argument %q\n", flags.Arg(0))
		return 1
	}

	options := Options{Ports: DefaultPorts, Quiet: *quiet, Stdout: stdout, Stderr: stderr}
	var err error
	if *printConfig {
		err = PrintConfig(options)
	} else {
		err = Run(ctx, options)
	}
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 2
	}
	return 0
}
