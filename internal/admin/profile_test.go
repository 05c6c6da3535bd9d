package admin

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Each kind is what pprof reads: gzip around a message that names the kind of its numbers.
func TestProfiles(t *testing.T) {
	url := server(t, newGateway(t)) + "/api/v1/profile"
	for kind, holds := range map[string]string{"cpu": "nanoseconds", "heap": "inuse_space", "goroutine": "goroutine"} {
		w := ask(t, "GET", url+"?seconds=1&kind="+kind, "")
		if w.StatusCode != 200 || w.Header.Get("Content-Type") != "application/octet-stream" || !strings.Contains(w.Header.Get("Content-Disposition"), kind) {
			t.Fatalf("%s: %s %v", kind, w.Status, w.Header)
		}
		z, err := gzip.NewReader(strings.NewReader(w.body))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if plain, err := io.ReadAll(z); err != nil || !bytes.Contains(plain, []byte(holds)) {
			t.Errorf("%s: %v, without %q", kind, err, holds)
		}
	}
	for query, says := range map[string]string{
		"?kind=fire": `kind=\"fire\" (one of cpu, heap, goroutine is accepted)`, "?seconds=0": "a number from 1 to 60", "?seconds=61": "a number from 1 to 60",
		"?seconds=x": `seconds=\"x\"`, "?second=1": "second",
	} {
		if w := ask(t, "GET", url+query, ""); w.StatusCode != 400 || !strings.Contains(w.body, says) {
			t.Errorf("%s: %s %s", query, w.Status, w.body)
		}
	}
	if w := ask(t, "POST", url, ""); w.StatusCode != 405 {
		t.Errorf("POST: %s", w.Status)
	}
}

// There is one profile of the processors at a time; who leaves ends his.
func TestOneProfileAtATime(t *testing.T) {
	url := server(t, newGateway(t)) + "/api/v1/profile"
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", url+"?seconds=60", nil)
		for {
			answer, err := http.DefaultClient.Do(r)
			if err == nil && answer.StatusCode == http.StatusConflict { // one of those below came first
				answer.Body.Close()
				continue
			}
			left <- err
			return
		}
	}()
	for ask(t, "GET", url+"?seconds=1", "").StatusCode != http.StatusConflict { // until the first one has begun
	}
	leave()
	if err := <-left; err == nil {
		t.Fatal("an answer for who left")
	}
	for ask(t, "GET", url+"?seconds=1", "").StatusCode == http.StatusConflict {
	}
}
