package sqldoor

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/testenv"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

func TestMain(m *testing.M) {
	_ = driver.SetLogger(log.New(io.Discard, "", 0)) // it reports each broken connection, which these tests break on purpose
	goleak.VerifyTestMain(m)
}

// gate is a running door under test.
type gate struct {
	*Door
	Addr string

	t        testing.TB
	registry *upstream.Registry
	metrics  *observe.Metrics
	tables   atomic.Pointer[Tables]
	access   *lockedBuffer
	records  *observe.AccessLog
	ln       net.Listener
}

// Sessions is the number of client connections.
func (g *gate) Sessions() int { return g.Count() }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// open starts a door with a configuration whose listener is called sql.
func open(t testing.TB, yaml string, options ...func(*Door)) *gate {
	t.Helper()
	level := slog.LevelError
	if os.Getenv("MENSHEN_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	g := &gate{t: t, registry: upstream.NewRegistry(logger), metrics: observe.NewMetrics(), access: new(lockedBuffer)}
	g.records = observe.NewAccessLog(g.access)
	g.Door = New(Options{Tables: g.tables.Load, Log: logger, Access: g.records, Metrics: g.metrics})
	for _, o := range options {
		o(g.Door)
	}
	g.reload(yaml)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.ln, g.Addr = ln, ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), ln, "sql") }()
	t.Cleanup(func() {
		_ = ln.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = g.Drain(ctx, "")
		if n := g.Sessions(); n != 0 {
			t.Errorf("%d sessions are left after Drain", n)
		}
		for _, s := range g.registry.Status() {
			for _, e := range s.Endpoints {
				if e.Active != 0 {
					t.Errorf("%s: %d leases are not done", s.Name, e.Active)
				}
			}
		}
		g.registry.Close()
		_ = g.records.Close()
	})
	return g
}

// reload makes another configuration current.
func (g *gate) reload(yaml string) {
	g.t.Helper()
	c, err := config.Parse(config.File{Name: "test.yaml", Data: []byte(yaml)})
	if err != nil {
		g.t.Fatal(err)
	}
	if io := os.Getenv("MENSHEN_TEST_IO"); io != "" { // the whole suite on the other poller
		for _, l := range c.Listeners {
			l.IO = io
		}
	}
	generation := g.registry.Begin()
	defer generation.Abort()
	tables, problems := Compile(c, generation, g.metrics)
	if len(problems) > 0 {
		g.t.Fatal(problems)
	}
	if old := g.tables.Load(); old != nil {
		tables.Generation = old.Generation + 1
	}
	generation.Commit()
	g.tables.Store(tables)
	tables.Published()
}

// pool opens a client pool through the gate; more are DSN parameters.
func (g *gate) pool(user, database string, more ...string) *sql.DB {
	g.t.Helper()
	db, err := sql.Open("mysql", fmt.Sprintf("%s@tcp(%s)/%s?%s", user, g.Addr, database, strings.Join(more, "&")))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = db.Close() })
	return db
}

// one opens a pool of a single connection.
func (g *gate) one(user, database string, more ...string) *sql.DB {
	db := g.pool(user, database, more...)
	db.SetMaxOpenConns(1)
	return db
}

// cli runs a statement with the mariadb client.
func (g *gate) cli(user, password, database, statement string, options ...string) (string, error) {
	g.t.Helper()
	host, port, _ := net.SplitHostPort(g.Addr)
	args := []string{"--no-defaults", "--protocol=tcp", "--host=" + host, "--port=" + port, "--user=" + user, "--password=" + password, "--batch", "--skip-column-names"}
	cmd := osexec.Command(testenv.Lookup(g.t, "mariadb"), append(append(args, options...), "--execute="+statement, database)...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, problem.String())
	}
	return out.String(), nil
}

// logged waits until the access log holds the text and gives all of it.
func (g *gate) logged(text string) string {
	g.t.Helper()
	testenv.Eventually(g.t, 5*time.Second, func() error {
		if all := g.access.String(); !strings.Contains(all, text) {
			return fmt.Errorf("not in the access log: %s\n%s", text, all)
		}
		return nil
	})
	return g.access.String()
}

// shop is a configuration with one database on an instance, and a second one on the same.
func shop(address string, more ...string) string {
	listener := ""
	if len(more) > 0 {
		listener = more[0]
	}
	return fmt.Sprintf(`
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql%s}
databases:
  shop:
    login: {user: gate, password: secret}
    shards: {s0: {primary: %q}}
  stock:
    login: {user: gate, password: secret}
    shards: {s0: {primary: %q, schema: stock_0}}
consumers:
  app: {mysql: {password: apple}}
  other: {mysql: orange}
`, listener, address, address)
}

// mariadb starts an instance with the schemas and the login of shop.
func mariadb(t testing.TB, options ...string) *testenv.DB {
	t.Helper()
	db := testenv.MariaDB(t, append([]string{"--max-allowed-packet=64M", "--local-infile=1"}, options...)...)
	db.Exec(t,
		"CREATE USER gate@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON *.* TO gate@'%'",
		"CREATE DATABASE shop", "CREATE DATABASE stock_0",
		"CREATE TABLE shop.users (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100))",
		"INSERT INTO shop.users (name) VALUES ('ada'), ('grace'), ('Привет, 🐘')",
		"CREATE TABLE stock_0.items (id INT PRIMARY KEY)",
		"INSERT INTO stock_0.items VALUES (7)")
	return db
}

// code gives the number of a MySQL error, 0 for none, -1 for another error.
func code(err error) int {
	var e *driver.MySQLError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e.Number)
	}
	return -1
}

func wantCode(t testing.TB, err error, want int, text string) {
	t.Helper()
	if code(err) != want || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error is %v, want %d with %q", err, want, text)
	}
}

func value[T any](t testing.TB, db interface {
	QueryRow(string, ...any) *sql.Row
}, query string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func serverTLS(t testing.TB) (*tls.Config, *testenv.Certificate) {
	c := testenv.NewCertificate(t, "localhost", "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, c
}
