package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// A thousand clients at once, half of them with TLS, send messages of all the sizes at which a frame's form changes, and pings in between. In
// the middle the configuration is reloaded under them. Every message comes back as it was, every tunnel ends as its client wants it,
// and nothing is left of them.
func TestThousandWebSockets(t *testing.T) {
	t.Parallel()
	const clients = 1000
	log := filepath.Join(testenv.Dir(t), "access.log")
	site, echo := testenv.NewCertificate(t), echoServer(t)
	config := func(tag string) string {
		return fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: %s
listeners:
  plain:  {address: "127.0.0.1:0"}
  secure: {address: "127.0.0.1:0", tls: {cert: %q, key: %q}}
services: {echo: {endpoints: [%q]}}
routes:
  ws:  {match: /ws/*, service: echo}
  tag: {match: /tag, respond: {body: %s}}
`, log, site.CertFile, site.KeyFile, echo, tag)
	}
	g := start(t, config("one"))
	h := tlsClient(t, site)
	t.Cleanup(h.CloseIdleConnections)
	before := g.weigh(func() {})

	var ready, sent, finished sync.WaitGroup
	reloaded := make(chan struct{})
	dialing := make(chan struct{}, 50) // so many handshakes at once
	ready.Add(clients)
	sent.Add(clients)
	for i := range clients {
		url := g.url("plain", fmt.Sprintf("/ws/%d", i))
		if i%2 == 1 {
			url = "https://" + g.addresses["secure"] + fmt.Sprintf("/ws/%d", i)
		}
		finished.Go(func() {
			once := sync.OnceFunc(ready.Done)
			twice := sync.OnceFunc(sent.Done)
			defer once()
			defer twice()
			dialing <- struct{}{}
			c, err := dialWith(h, url)
			<-dialing
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			defer c.CloseNow()
			c.SetReadLimit(1 << 20)
			random := rand.New(rand.NewPCG(uint64(i), 6))
			err = converse(c, random, []int{0, 1, 125, 126})
			once()
			ready.Wait() // all of them are open
			if err == nil {
				err = converse(c, random, []int{4095, 16 << 10, 125 + i})
			}
			twice()
			for round := 0; err == nil; round++ { // while the reload is under way, and once more behind it
				select {
				case <-reloaded:
					round = -1
				default:
				}
				if err = converse(c, random, []int{random.IntN(2000)}); round < 0 {
					break
				}
			}
			if err == nil && i%10 == 0 {
				err = converse(c, random, []int{65535, 65536, 200 << 10})
			}
			if err == nil {
				err = c.Close(websocket.StatusNormalClosure, "enough")
			}
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	sent.Wait()
	g.apply(config("two"))
	other := client(t)
	if _, body := fetch(t, other, g.url("plain", "/tag")); string(body) != "two" {
		t.Errorf("after the reload: %s", body)
	}
	other.CloseIdleConnections()
	close(reloaded)
	finished.Wait()

	tunnels := 0
	for _, r := range records(t, log, clients+1) {
		if r["status"] == 101.0 {
			tunnels++
			if r["fault"] != nil || r["bytes_in"].(float64) < 4095 || r["bytes_out"].(float64) < 4095 {
				t.Errorf("a record says %v", r)
			}
		}
	}
	if tunnels != clients {
		t.Errorf("%d records of tunnels, want %d", tunnels, clients)
	}
	after := g.weigh(func() {})
	if after.goroutines > before.goroutines+5 || after.descriptors > before.descriptors+10 {
		t.Errorf("something is left: %+v, then %+v", before, after)
	}
}

func dialWith(h *http.Client, url string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: h})
	return c, err
}

// converse sends messages of these sizes, all before the first echo is read, with a ping in front, and compares what comes back.
func converse(c *websocket.Conn, random *rand.Rand, sizes []int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	defer cancel()
	messages := make([][]byte, len(sizes))
	for i, size := range sizes {
		messages[i] = make([]byte, size)
		for at := range messages[i] {
			messages[i][at] = byte(random.Uint32())
		}
	}
	pinged, written := make(chan error, 1), make(chan error, 1)
	go func() { pinged <- c.Ping(ctx) }()
	go func() {
		for _, m := range messages {
			if err := c.Write(ctx, websocket.MessageBinary, m); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for i, m := range messages {
		_, back, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("message %d of %d bytes: %w", i, len(m), err)
		}
		if string(back) != string(m) {
			return fmt.Errorf("message %d of %d bytes came back as %d others", i, len(m), len(back))
		}
	}
	if err := <-written; err != nil {
		return err
	}
	// The answer to the ping may be behind the last echo: one message more has it read.
	for {
		select {
		case err := <-pinged:
			return err
		case <-time.After(time.Millisecond): // a pong that is on its way need not be looked for
		}
		if err := ping(c, "still there"); err != nil {
			return err
		}
	}
}
