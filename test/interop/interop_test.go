// Package interop drives the gateway with what others have written to try HTTP/2 and gRPC: h2spec, the interoperability tests of
// grpc-go, curl, nghttp and h2load. It is a module of its own, so that the gateway's does not carry their dependencies.
package interop

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/app"
	"github.com/menshen-gateway/menshen/internal/config"
)

// start runs a gateway inside the test and gives the addresses of its listeners by name.
func start(t testing.TB, text string) map[string]string {
	t.Helper()
	c, err := config.Parse(config.File{Name: "interop.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatalf("config:\n%v", err)
	}
	ready := make(chan map[string]string, 1)
	log := new(lockedBuffer)
	gateway, err := app.New(app.Options{Config: c, Log: log, Version: "test", Ready: func(addresses map[string]string) { ready <- addresses }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gateway.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", log)
		}
	})
	select {
	case addresses := <-ready:
		return addresses
	case err := <-ended:
		ended <- err
		t.Fatalf("the gateway does not start: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway is not ready")
	}
	return nil
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}
