package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/config"
)

func TestMain(m *testing.M) {
	silence()
	os.Exit(m.Run())
}

// output collects what a running demo writes.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the demo on free ports; stop ends it and waits for it.
func start(t *testing.T, ports Ports) (layout Layout, out *output, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out = &output{}
	ready := make(chan Layout, 1)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Ports: ports, Quiet: true, Stdout: out, Stderr: out, Ready: func(l Layout) { ready <- l }})
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("the demo ended with an error: %v\n%s", err, out)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("the demo did not stop\n%s", out)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case layout = <-ready:
	case err := <-done:
		t.Fatalf("the demo did not start: %v\n%s", err, out)
	case <-time.After(30 * time.Second):
		t.Fatalf("the demo did not become ready\n%s", out)
	}
	return layout, out, stop
}

// get asks with an own client that keeps no connections: the leak check at the end counts them.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	client := &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestBothDoors(t *testing.T) {
	before := goleak.IgnoreCurrent()
	layout, out, stop := start(t, Ports{})
	web := "http://" + layout.Web

	t.Run("routes", func(t *testing.T) {
		f := func(path string, status int, contentType, part string) {
			t.Helper()
			response, body := get(t, web+path)
			if response.StatusCode != status {
				t.Errorf("GET %s: status %d, want %d\n%s", path, response.StatusCode, status, body)
			}
			if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, contentType) {
				t.Errorf("GET %s: content type %q, want %q", path, got, contentType)
			}
			if !strings.Contains(body, part) {
				t.Errorf("GET %s: %q is not in the body:\n%s", path, part, body)
			}
		}
		f("/users/1", 200, "application/json", `"name":"Ada Lovelace"`)
		f("/users/8", 200, "application/json", "王选")
		f("/users", 200, "application/json", "Grace Hopper")
		f("/users/99", 404, "application/json", "no such user")
		f("/users/me", 400, "application/json", "an id is a number")
		f("/orders/1", 200, "application/json", `"item":"Analytical engine, brass"`)
		f("/orders", 200, "application/json", `"placed":"2026-10-19"`)
		f("/ping", 200, "text/plain", "pong")
		f("/", 200, "text/html", "Menshen</span> is at the door")
		f("/config.yaml", 200, "application/yaml", configMark)
		f("/nothing/here", 404, "application/problem+json", `"status":404`)

		response, _ := get(t, web+"/v1/users/1")
		if got := response.Header.Get("Location"); response.StatusCode != 308 || got != "/users/1" {
			t.Errorf("GET /v1/users/1: %d to %q, want 308 to /users/1", response.StatusCode, got)
		}
	})

	t.Run("the split and the balance are visible", func(t *testing.T) {
		seen := map[string]int{}
		for range 50 {
			var answer struct{ From Identity }
			_, body := get(t, web+"/users/1")
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if answer.From.RequestID == "" {
				t.Fatalf("the request came without an id: %s", body)
			}
			seen[answer.From.Version+" "+answer.From.Instance]++
		}
		for _, want := range []string{"v1 users-a", "v1 users-b", "v2 users-v2"} {
			if seen[want] == 0 {
				t.Errorf("%s never answered in 50 requests: %v", want, seen)
			}
		}
	})

	t.Run("the page shows every endpoint", func(t *testing.T) {
		_, body := get(t, web+"/")
		for _, address := range []string{layout.UsersA, layout.UsersB, layout.UsersV2, layout.OrdersA, layout.OrdersB, layout.Shop, layout.Archive} {
			if !strings.Contains(body, address) {
				t.Errorf("the page does not show %s", address)
			}
		}
		if strings.Contains(body, `<p class="ill">`) {
			t.Errorf("the page has a problem:\n%s", body)
		}
	})

	t.Run("sql", func(t *testing.T) { testSQL(t, layout.SQL) })

	t.Run("what was printed", func(t *testing.T) {
		text := out.String()
		for _, c := range Commands(layout) {
			if !strings.Contains(text, c.Line) {
				t.Errorf("the greeting lacks %s", c.Line)
			}
		}
		if n := len(Commands(layout)); n != 5 {
			t.Errorf("%d commands, want 5", n)
		}
		for _, part := range []string{layout.Web, layout.SQL, layout.Admin} {
			if !strings.Contains(text, part) {
				t.Errorf("the greeting lacks %s", part)
			}
		}
	})

	stop()
	for _, address := range []string{layout.Web, layout.SQL, layout.Admin, layout.UsersA, layout.Shop} {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			t.Errorf("%s is still open after the stop", address)
		}
	}
	goleak.VerifyNone(t, before)
}

// testSQL speaks with the SQL door as an application would.
func testSQL(t *testing.T, address string) {
	db := connect(t, "demo:demo@tcp("+address+")/shop")

	var name string
	if err := db.QueryRow("select name from users where id = 1").Scan(&name); err != nil || name != "Ada Lovelace" {
		t.Fatalf("select: %q, %v", name, err)
	}
	// With an argument the driver prepares.
	if err := db.QueryRow("select name from users where id = ?", 8).Scan(&name); err != nil || name != "王选" {
		t.Fatalf("prepared select: %q, %v", name, err)
	}

	insert, err := db.Prepare("insert into orders (user_id, item, amount, placed) values (?, ?, ?, ?)")
	if err != nil {
		t.Fatal(err)
	}
	defer insert.Close()
	result, err := insert.Exec(3, "Bicycle chain", "12.50", "2026-11-22")
	if err != nil {
		t.Fatal(err)
	}
	id, err := result.LastInsertId()
	if err != nil || id != 11 {
		t.Fatalf("insert: id %d, want 11 (%v)", id, err)
	}
	var amount string
	if err := db.QueryRow("select amount from orders where id = ?", id).Scan(&amount); err != nil || amount != "12.50" {
		t.Fatalf("read what was inserted: %q, %v", amount, err)
	}

	count := func(what interface {
		QueryRow(string, ...any) *sql.Row
	}) (n int) {
		t.Helper()
		if err := what.QueryRow("select count(*) from orders").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	whole := count(db)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("delete from orders where user_id = 1"); err != nil {
		t.Fatal(err)
	}
	if n := count(tx); n != whole-2 {
		t.Errorf("inside the transaction: %d orders, want %d", n, whole-2)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if n := count(db); n != whole {
		t.Errorf("after the rollback: %d orders, want %d", n, whole)
	}
	tx, err = db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("delete from orders where id = ?", id); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := count(db); n != whole-1 {
		t.Errorf("after the commit: %d orders, want %d", n, whole-1)
	}

	_, err = db.Exec("select * from nothing")
	if err == nil || !strings.Contains(err.Error(), "1146") {
		t.Errorf("an unknown table: %v, want error 1146", err)
	}

	archive := connect(t, "demo:demo@tcp("+address+")/archive")
	var n int
	if err := archive.QueryRow("select count(*) from orders").Scan(&n); err != nil || n != 3 {
		t.Errorf("the archive: %d orders, want 3 (%v)", n, err)
	}
	for _, c := range []struct{ dsn, code string }{
		{"demo:wrong@tcp(" + address + ")/shop", "1045"},
		{"nobody:demo@tcp(" + address + ")/shop", "1045"},
		{"demo:demo@tcp(" + address + ")/nowhere", "1049"},
	} {
		err := connect(t, c.dsn).Ping()
		if err == nil || !strings.Contains(err.Error(), c.code) {
			t.Errorf("%s: %v, want error %s", c.dsn, err, c.code)
		}
	}
}

func connect(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestPortsThatAreTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	wanted := taken.Addr().(*net.TCPAddr).Port

	layout, out, _ := start(t, Ports{Web: wanted})
	if layout.Web == taken.Addr().String() {
		t.Fatalf("the HTTP door is on the port that was taken")
	}
	if want := fmt.Sprintf("port %d is taken: the HTTP door is on %s", wanted, layout.WebPort()); !strings.Contains(out.String(), want) {
		t.Errorf("the greeting does not say %q:\n%s", want, out)
	}
	if response, _ := get(t, "http://"+layout.Web+"/ping"); response.StatusCode != 200 {
		t.Errorf("GET /ping: %s", response.Status)
	}
}

func TestPrintedConfigLoads(t *testing.T) {
	for _, args := range [][]string{{"--config"}, {"-config", "--quiet"}} {
		var stdout, stderr bytes.Buffer
		if code := command(t.Context(), args, &stdout, &stderr); code != 0 {
			t.Fatalf("demo %v: exit %d: %s", args, code, &stderr)
		}
		c, err := config.Parse(config.File{Name: "demo.yaml", Data: stdout.Bytes()})
		if err != nil {
			t.Fatalf("demo %v: %v\n%s", args, err, &stdout)
		}
		if len(c.Listeners) != 2 || len(c.Databases) != 2 || len(c.Routes) != 5 || c.Admin == nil {
			t.Errorf("demo %v: %d listeners, %d databases, %d routes", args, len(c.Listeners), len(c.Databases), len(c.Routes))
		}
	}
}

func TestPrintsTheConfigOfTheRunningDemo(t *testing.T) {
	layout, _, _ := start(t, Ports{})
	_, want := get(t, "http://"+layout.Home+"/config.yaml")
	_, home, _ := net.SplitHostPort(layout.Home)
	var ports Ports
	fmt.Sscan(home, &ports.Home)
	var got bytes.Buffer
	if err := PrintConfig(Options{Ports: ports, Quiet: true, Stdout: &got, Stderr: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("printed:\n%s\nruns with:\n%s", &got, want)
	}
}

func TestCommandLine(t *testing.T) {
	f := func(code int, says string, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := command(t.Context(), args, &stdout, &stderr); got != code || !strings.Contains(stderr.String(), says) {
			t.Errorf("demo %v: exit %d, want %d with %q:\n%s", args, got, code, says, &stderr)
		}
	}
	f(0, "print the YAML", "-h")
	f(1, "-nonsense", "--nonsense")
	f(1, `unexpected argument "run"`, "run")
}

func TestInstanceStopsUnderItsClients(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	instance, err := startInstance(ln, shopSQL)
	if err != nil {
		t.Fatal(err)
	}
	db := connect(t, "menshen:menshen-demo@tcp("+ln.Addr().String()+")/shop")
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	stranger := connect(t, "menshen:wrong@tcp("+ln.Addr().String()+")/shop")
	if err := stranger.Ping(); err == nil {
		t.Error("the instance let a wrong password in")
	}
	stranger.Close()
	if err := instance.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Ping(); err == nil {
		t.Error("the connection outlived its instance")
	}
	db.Close()
	goleak.VerifyNone(t, before)
}
