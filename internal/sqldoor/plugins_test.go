package sqldoor

import (
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// TestEd25519 signs in to accounts of MariaDB's ed25519 plugin.
func TestEd25519(t *testing.T) {
	db := mariadb(t, "--plugin-load-add=auth_ed25519")
	for i, password := range []string{"x", "secret", strings.Repeat("p", 32), strings.Repeat("long ", 20), "пароль, 🐘"} {
		user := "ed" + strconv.Itoa(i)
		db.Exec(t, "CREATE USER "+user+"@'%' IDENTIFIED VIA ed25519 USING PASSWORD('"+password+"')", "GRANT ALL ON *.* TO "+user+"@'%'")
		s := &backend.Settings{User: user, Password: password, Connect: 10 * time.Second}
		for range 20 { // each with a nonce of its own
			c, err := backend.Open(t.Context(), db.Addr, s, backend.Session{Schema: "shop"}, nil)
			if err != nil {
				t.Fatalf("%q: %v", password, err)
			}
			_ = c.Write(quit)
			_ = c.Close()
		}
		s.Password += "?"
		if c, err := backend.Open(t.Context(), db.Addr, s, backend.Session{}, nil); err == nil || !strings.Contains(err.Error(), "1045 (28000)") {
			t.Errorf("%q with a wrong password: %v", password, err)
			if c != nil {
				_ = c.Close()
			}
		}
	}
	g := open(t, strings.ReplaceAll(shop(db.Addr), "user: gate,", "user: ed1,"))
	if v := value[string](t, g.one("app:apple", "shop"), "SELECT CURRENT_USER()"); v != "ed1@%" {
		t.Errorf("signed in as %s", v)
	}
}

// faked is a server that is driven by hand: serve is called for each connection, on a goroutine of its own.
func faked(t testing.TB, serve func(c *wire.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	open := map[*wire.Conn]bool{}
	group.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := wire.New(nc) // nc is its own from here on
			mu.Lock()
			open[c] = true
			mu.Unlock()
			group.Go(func() {
				serve(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return ln.Addr().String()
}

// greet begins as a server that knows one plugin only, and gives the client's first answer.
func greet(c *wire.Conn, plugin string, config *tls.Config) (in mysql.SignIn, seq uint8, ok bool) {
	g := mysql.Greeting{Version: "8.0.36", ConnectionID: 7, Capabilities: mysql.Offered, Collation: 45, Status: mysql.Autocommit, Plugin: plugin}
	copy(g.Nonce[:], "01234567890123456789")
	if config != nil {
		g.Capabilities |= mysql.TLS
	}
	if c.WriteMessage(0, g.AppendTo) != nil {
		return in, 0, false
	}
	payload, seq, err := c.ReadMessage(1, 1<<16)
	if err == nil && mysql.IsTLSRequest(payload) && config != nil {
		if err = c.ServeTLS(config); err == nil {
			payload, seq, err = c.ReadMessage(seq, 1<<16)
		}
	}
	return in, seq, err == nil && in.Decode(payload) == nil
}

// TestClearPasswordToInstances: the password itself is sent inside TLS, and nowhere else.
func TestClearPasswordToInstances(t *testing.T) {
	config, certificate := serverTLS(t)
	client := &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	got := make(chan string, 10)
	for _, switched := range []bool{false, true} { // announced in the greeting, or asked for afterwards
		address := faked(t, func(c *wire.Conn) {
			plugin := mysql.ClearPassword
			if switched {
				plugin = mysql.NativePassword
			}
			in, seq, ok := greet(c, plugin, config)
			if !ok {
				return
			}
			// An unknown first plugin is answered as the oldest one, so a switch comes either way.
			change := mysql.AuthSwitch{Plugin: mysql.ClearPassword}
			_ = c.WriteMessage(seq, change.AppendTo)
			payload, seq, err := c.ReadMessage(seq+1, 1<<16)
			if err != nil {
				got <- "nothing"
				return
			}
			got <- string(in.User) + " " + strconv.Quote(string(payload))
			ok2 := mysql.OK{Status: mysql.Autocommit}
			_ = c.WriteMessage(seq, func(dst []byte) []byte { return ok2.AppendTo(dst, 0) })
			_, _, _ = c.ReadMessage(0, 100)
		})
		s := &backend.Settings{User: "gate", Password: "secret", Connect: 10 * time.Second, TLS: client}
		c, err := backend.Open(t.Context(), address, s, backend.Session{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if sent := <-got; sent != `gate "secret\x00"` {
			t.Errorf("sent %s", sent)
		}
		s.TLS = nil
		if _, err := backend.Open(t.Context(), address, s, backend.Session{}, nil); err == nil || !strings.Contains(err.Error(), "over TLS only") {
			t.Errorf("without TLS: %v", err)
		}
		if sent := <-got; sent != "nothing" {
			t.Errorf("without TLS it sent %s", sent)
		}
	}
}

// TestClearPasswordFromClients: without TLS a client that would send its password as it is is asked for a proof instead.
func TestClearPasswordFromClients(t *testing.T) {
	config, certificate := serverTLS(t)
	g := open(t, shop(mariadb(t).Addr), func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } })
	for _, client := range []*tls.Config{nil, {RootCAs: certificate.Pool, ServerName: "localhost"}} {
		nc, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c := wire.New(nc)
		defer c.Close()
		c.ReadBefore(poll.Now().Add(10 * time.Second))
		payload, seq, err := c.ReadMessage(0, 1000)
		var greeting mysql.Greeting
		if err == nil {
			err = greeting.Decode(payload)
		}
		if err != nil {
			t.Fatal(err)
		}
		in := mysql.SignIn{Capabilities: mysql.Protocol41 | mysql.SecureConnection | mysql.PluginAuth | mysql.LongPassword, User: []byte("app"), Auth: []byte("apple\x00"), Plugin: []byte(mysql.ClearPassword)}
		want := mysql.NativePassword
		if client != nil {
			in.Capabilities |= mysql.TLS
			_ = c.WriteMessage(seq, in.AppendTLSRequest)
			if err := c.AskTLS(client); err != nil {
				t.Fatal(err)
			}
			seq++
			want = mysql.ClearPassword
		}
		_ = c.WriteMessage(seq, in.AppendTo)
		payload, seq, err = c.ReadMessage(seq+1, 1000)
		var change mysql.AuthSwitch
		if err == nil {
			err = change.Decode(payload)
		}
		if err != nil || change.Plugin != want {
			t.Fatalf("TLS %v: asked for %q, %v", client != nil, change.Plugin, err)
		}
		// The password is no proof of any other kind.
		_ = c.WriteMessage(seq, func(dst []byte) []byte { return append(dst, "apple\x00"...) })
		payload, _, err = c.ReadMessage(seq+1, 1000)
		if err != nil || mysql.IsOK(payload) != (client != nil) {
			t.Errorf("TLS %v: %q, %v", client != nil, payload, err)
		}
	}
}
