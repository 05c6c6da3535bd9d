package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dolthub/go-mysql-server/server"
	gmssql "github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/mysql_db"
	vitess "github.com/dolthub/vitess/go/mysql"
	"github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/app"
	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// How the gateway signs in here: an account of caching_sha2_password, and a password longer than a nonce.
const (
	sha2User     = "sha2"
	sha2Password = "пароль of 32 bytes and some more, 🐘"
	sha2Accounts = "create user sha2@localhost identified with caching_sha2_password by '" + sha2Password + "';\n" +
		"grant all on *.* to sha2@localhost;\n"
)

// TestCachingSHA2 signs in, as the gateway does, at a server that others have written: with the password in full inside TLS, as go-mysql-server asks for it each time, and by the
// scramble alone from a server that remembers. The protocol's third way, under the server's RSA key, is missing: this server does not know it.
func TestCachingSHA2(t *testing.T) {
	before := goleak.IgnoreCurrent()
	certificate := testenv.NewCertificate(t)
	overTLS := func(c *server.Config) {
		c.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate.Pair}, MinVersion: tls.VersionTLS12}
	}
	asked := &desk{announces: vitess.MysqlNativePassword}    // the gateway learns of caching_sha2_password by AuthSwitch, with a nonce of its own
	greeting := &desk{announces: vitess.CachingSha2Password} // as MySQL 8: the nonce is the greeting's

	var yaml strings.Builder
	yaml.WriteString("listeners:\n  sql: {address: '127.0.0.1:0', protocol: mysql, drain_timeout: 5s}\nconsumers:\n  demo: {mysql: {password: demo}}\nlog: {format: text}\naccess_log: {to: none}\ndatabases:\n")
	var instances []*Instance
	for _, i := range []struct {
		name string
		desk *desk
	}{{"own", nil}, {"asked", asked}, {"greeting", greeting}} {
		settings := []func(*server.Config){overTLS}
		if i.desk != nil {
			settings = append(settings, i.desk.serve)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		instance, err := startInstance(ln, shopSQL, settings...)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, instance)
		instance.engine.Analyzer.Catalog.MySQLDb.SetPersister(&mysql_db.NoopPersister{}) // without one, CREATE USER panics
		if err := load(instance.engine, instance.provider, sha2Accounts); err != nil {
			t.Fatal(err)
		}
		for suffix, password := range map[string]string{"": sha2Password, "_wrong": sha2Password + "?", "_empty": ""} {
			fmt.Fprintf(&yaml, "  %s%s: {login: {user: %s, password: %q}, tls: {ca: %q}, shards: {s0: {primary: %q, schema: shop}}}\n",
				i.name, suffix, sha2User, password, certificate.AuthorityFile, ln.Addr())
		}
		fmt.Fprintf(&yaml, "  %s_plain: {login: {user: %s, password: %q}, shards: {s0: {primary: %q, schema: shop}}}\n", i.name, sha2User, sha2Password, ln.Addr())
	}
	address, log, stop := gateway(t, yaml.String())

	for name, d := range map[string]*desk{"own": nil, "asked": asked, "greeting": greeting} {
		t.Run(name, func(t *testing.T) {
			signInThrice(t, address, name, d)
			for _, end := range []string{"_wrong", "_empty", "_plain"} {
				db := connect(t, "demo:demo@tcp("+address+")/"+name+end)
				wantError(t, db.Ping(), 1105, "The gateway could not sign in to the instance of database '"+name+end+"'")
				db.Close()
				why := "1045 (28000): Access denied for user 'sha2'"
				if end == "_plain" {
					why = "2012 (HY000): No authentication methods available for authentication."
				}
				testenv.Eventually(t, 5*time.Second, func() error { return logged(log, "database="+name+end, "the instance refused: "+why) })
			}
		})
	}
	stop()
	for _, i := range instances {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t, before)
}

// signInThrice has three transactions at once, and so three connections to the instance, each of which has signed in.
func signInThrice(t *testing.T, address, database string, d *desk) {
	t.Helper()
	db := connect(t, "demo:demo@tcp("+address+")/"+database)
	defer db.Close()
	first := 0
	for i := range 3 {
		tx, err := db.Begin()
		if err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		defer tx.Rollback()
		var name, user string
		if err := tx.QueryRow("select name, user() from users where id = 1").Scan(&name, &user); err != nil || name != "Ada Lovelace" || !strings.HasPrefix(user, sha2User+"@") {
			t.Errorf("session %d: %q for %q, %v", i, name, user, err)
		}
		if d != nil && i == 0 {
			testenv.Eventually(t, 10*time.Second, func() error { // the health check may be asking at the same time
				full, fast := d.counts()
				if first = full; full+fast < 2 {
					return fmt.Errorf("%d sign-ins in full and %d fast", full, fast)
				}
				return nil
			})
		}
	}
	if d == nil {
		return
	}
	full, fast := d.counts()
	if first == 0 || full != first || fast < 2 {
		t.Errorf("%d sign-ins in full at first, %d in the end, and %d fast: want no more of them after the first session", first, full, fast)
	}
}

// logged says whether a line of the log has all parts.
func logged(log *output, parts ...string) error {
	for line := range strings.Lines(log.String()) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			return nil
		}
	}
	return fmt.Errorf("no line of the log has all of %q:\n%s", parts, log)
}

// desk stands in for go-mysql-server's own checks of caching_sha2_password, which remember nobody: the protocol is still that of Vitess, on which go-mysql-server stands.
type desk struct {
	announces vitess.AuthMethodDescription // in the greeting

	mu         sync.Mutex // guards those below
	verifier   []byte     // of the password that was right
	full, fast int
}

func (d *desk) serve(c *server.Config) {
	c.ProtocolListenerFactory = func(c server.Config, l vitess.ListenerConfig, s server.ServerEventListener) (server.ProtocolListener, error) {
		l.AuthServer = d
		return server.MySQLProtocolListenerFactory(c, l, s)
	}
}

// counts says how many sign-ins with the right password took that, and for how many the answer was enough.
func (d *desk) counts() (full, fast int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full, d.fast
}

func (d *desk) AuthMethods() []vitess.AuthMethod {
	return []vitess.AuthMethod{vitess.NewSha2CachingAuthMethod(d, d, d)}
}

func (d *desk) DefaultAuthMethodDescription() vitess.AuthMethodDescription { return d.announces }

func (d *desk) HandleUser(user string, _ net.Addr) bool { return user == sha2User }

func (d *desk) UserEntryWithCacheHash(_ []*x509.Certificate, salt []byte, user string, answer []byte, _ net.Addr) (vitess.Getter, vitess.CacheState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if vitess.VerifyHashedCachingSha2Password(answer, salt, d.verifier) {
		d.fast++
		return gmssql.MysqlConnectionUser{User: user, Host: "localhost"}, vitess.AuthAccepted, nil
	}
	return nil, vitess.AuthNeedMoreData, nil
}

func (d *desk) UserEntryWithPassword(_ []*x509.Certificate, user, password string, _ net.Addr) (vitess.Getter, error) {
	if password != sha2Password {
		return nil, vitess.NewSQLError(vitess.ERAccessDeniedError, vitess.SSAccessDeniedError, "Access denied for user '%v'", user)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	once := sha256.Sum256([]byte(password))
	twice := sha256.Sum256(once[:])
	d.verifier = twice[:]
	d.full++
	return gmssql.MysqlConnectionUser{User: user, Host: "localhost"}, nil
}

// gateway runs the real gateway; stop ends it and waits for it, after which log may be read.
func gateway(t *testing.T, yaml string) (sqlAddress string, log *output, stop func()) {
	t.Helper()
	c, err := config.Parse(config.File{Name: "test.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	log = &output{}
	ready := make(chan string, 1)
	g, err := app.New(app.Options{Config: c, Log: log, Version: "test", Ready: func(addresses map[string]string) { ready <- addresses["sql"] }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the gateway ended with an error: %v\n%s", err, log)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("the gateway did not stop\n%s", log)
		}
	})
	t.Cleanup(stop)
	select {
	case sqlAddress = <-ready:
	case <-time.After(30 * time.Second):
		t.Fatalf("the gateway did not become ready\n%s", log)
	}
	return sqlAddress, log, stop
}

func wantError(t *testing.T, err error, code uint16, part string) {
	t.Helper()
	var e *mysql.MySQLError
	if !errors.As(err, &e) || e.Number != code || !strings.Contains(e.Message, part) {
		t.Errorf("got error %v, want %d with %q", err, code, part)
	}
}
