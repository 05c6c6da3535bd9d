package main

import (
	"context"
	"fmt"

	"github.com/menshen-gateway/menshen/internal/app"
	"github.com/menshen-gateway/menshen/internal/config"
)

// serve runs the real gateway with a configuration until ctx is done and the gateway has drained.
func serve(ctx context.Context, text []byte, o Options, ready func()) error {
	c, err := config.Parse(config.File{Name: "demo.yaml", Data: text})
	if err != nil {
		return fmt.Errorf("the demo's configuration is wrong: %w", err)
	}
	gateway, err := app.New(app.Options{
		Config:  c,
		Log:     o.Stderr,
		Version: "demo",
		Ready:   func(map[string]string) { ready() },
	})
	if err != nil {
		return fmt.Errorf("build the gateway: %w", err)
	}
	return gateway.Run(ctx)
}
