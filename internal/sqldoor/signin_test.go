package sqldoor

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
)

func TestSignIn(t *testing.T) {
	config, certificate := serverTLS(t)
	client := &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	if err := driver.RegisterTLSConfig("menshen", client); err != nil {
		t.Fatal(err)
	}
	db := mariadb(t)
	yaml := shop(db.Addr, ", default_database: stock")
	withTLS := func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } }
	fast := open(t, yaml, withTLS)
	full := open(t, yaml, withTLS, func(d *Door) { d.full = true })

	// Every way to prove a password, right and wrong, with go-sql-driver.
	for _, g := range []*gate{fast, full} {
		for _, secure := range []string{"tls=menshen", "tls=false"} {
			t.Run(fmt.Sprintf("full %v, %s", g == full, secure), func(t *testing.T) {
				if err := g.one("app:apple", "shop", secure).Ping(); err != nil {
					t.Error(err)
				}
				for user, using := range map[string]string{"app:wrong": "YES", "app": "NO", "nobody:apple": "YES", "nobody": "NO", "APP:apple": "YES", "other:apple": "YES"} {
					name, _, _ := strings.Cut(user, ":")
					err := g.one(user, "shop", secure).Ping()
					wantCode(t, err, 1045, fmt.Sprintf("Access denied for user '%s'@'127.0.0.1' (using password: %s)", name, using))
				}
			})
		}
	}

	// The mariadb client, which prefers mysql_native_password, and asks again for other plugins.
	t.Run("mariadb client", func(t *testing.T) {
		for _, options := range [][]string{
			nil,
			{"--default-auth=mysql_native_password"},
			{"--default-auth=caching_sha2_password"},
			{"--ssl", "--ssl-ca=" + certificate.AuthorityFile},
			{"--ssl", "--ssl-ca=" + certificate.AuthorityFile, "--default-auth=mysql_clear_password"},
		} {
			if out, err := fast.cli("app", "apple", "shop", "SELECT 1", options...); err != nil || out != "1\n" {
				t.Errorf("%v: %q, %v", options, out, err)
			}
			if _, err := fast.cli("app", "wrong", "shop", "SELECT 1", options...); err == nil || !strings.Contains(err.Error(), "ERROR 1045 (28000): Access denied for user 'app'@'127.0.0.1' (using password: YES)") {
				t.Errorf("%v with a wrong password: %v", options, err)
			}
		}
	})

	// Our own client side against our own server side: it is what signs in to instances.
	t.Run("own client", func(t *testing.T) {
		for _, g := range []*gate{fast, full} {
			for _, config := range []*tls.Config{nil, client} {
				s := &backend.Settings{User: "app", Password: "apple", TLS: config, Connect: 10 * time.Second}
				c, err := backend.Open(t.Context(), g.Addr, s, backend.Session{Capabilities: mysql.MultiResults | mysql.DeprecateEOF, Schema: "shop"}, nil)
				if err != nil {
					t.Errorf("full %v, TLS %v: %v", g == full, config != nil, err)
					continue
				}
				_ = c.Write(quit)
				_ = c.Close()
				s.Password = "wrong"
				if c, err := backend.Open(t.Context(), g.Addr, s, backend.Session{}, nil); err == nil || !strings.Contains(err.Error(), "1045 (28000)") {
					t.Errorf("wrong password: %v", err)
					if c != nil {
						_ = c.Close()
					}
				}
			}
		}
	})

	t.Run("default database", func(t *testing.T) {
		if v := value[int](t, fast.one("app:apple", ""), "SELECT id FROM items"); v != 7 {
			t.Errorf("id is %d", v)
		}
	})

	t.Run("version of the instance", func(t *testing.T) {
		if v := value[string](t, fast.one("app:apple", "shop"), "SELECT VERSION()"); !strings.Contains(greetingOf(t, fast.Addr).Version, v) {
			t.Errorf("greeting says %q, instance %q", greetingOf(t, fast.Addr).Version, v)
		}
		if c := greetingOf(t, fast.Addr).Capabilities; !c.Has(mysql.TLS|mysql.Framing|mysql.LongPassword) || c&(mysql.OptionalMetadata|mysql.QueryAttributes|mysql.ExpiredPasswords) != 0 {
			t.Errorf("capabilities %s", c)
		}
	})

	t.Run("refused sign-ins are recorded", func(t *testing.T) {
		_ = fast.one("app:wrong", "shop").Ping()
		_ = fast.one("intruder:wrong", "guess").Ping()
		if all := fast.logged(`"sql_code":1045`); strings.Contains(all, "intruder") || strings.Contains(all, "guess") {
			t.Error("words of strangers in the access log")
		}
	})
}

func greetingOf(t testing.TB, address string) *mysql.Greeting {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := new(mysql.Greeting)
	if err := g.Decode(readMessage(t, c)); err != nil {
		t.Fatal(err)
	}
	return g
}

func readMessage(t testing.TB, c net.Conn) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	header := make([]byte, mysql.HeaderLen)
	if _, err := readFull(c, header); err != nil {
		t.Fatal(err)
	}
	h, _ := mysql.ParseHeader(header)
	payload := make([]byte, h.Length)
	if _, err := readFull(c, payload); err != nil {
		t.Fatal(err)
	}
	return payload
}

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := c.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// A listener that asks for client certificates lets nobody in without one, nor without TLS.
func TestSignInWithClientCertificates(t *testing.T) {
	db := mariadb(t)
	authority := testenv.NewAuthority(t, "Clients")
	for name, own := range map[string]*testenv.Certificate{
		"good": authority.Issue(t, nil, "app"), "stranger": testenv.NewAuthority(t, "Clients").Issue(t, nil, "app"), "none": nil,
	} {
		c := &tls.Config{InsecureSkipVerify: true}
		if own != nil {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own.Pair, nil }
		}
		if err := driver.RegisterTLSConfig("certificate-"+name, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []string{"required", "optional"} {
		site := testenv.NewCertificate(t)
		config, problems := tlsconfig.Server(&config.ListenerTLS{Cert: site.CertFile, Key: site.KeyFile, ClientAuth: &config.ClientAuth{CA: authority.File, Mode: mode}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		g := open(t, shop(db.Addr, ""), func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } })
		if err := g.one("app:apple", "shop", "tls=certificate-good").Ping(); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if err := g.one("app:apple", "shop", "tls=certificate-stranger").Ping(); err == nil {
			t.Errorf("%s: a stranger's certificate is good enough", mode)
		}
		withoutCertificate, plain := g.one("app:apple", "shop", "tls=certificate-none").Ping(), g.one("app:apple", "shop", "tls=false").Ping()
		if mode == "optional" && (withoutCertificate != nil || plain != nil) {
			t.Errorf("optional: %v, without TLS %v", withoutCertificate, plain)
		}
		if mode == "required" {
			if withoutCertificate == nil {
				t.Error("let in without a certificate")
			}
			wantCode(t, plain, 3159, "insecure transport")
		}
	}
}

// The instance's side of TLS: required by the login, verified by the gateway.
func TestTLSToTheInstance(t *testing.T) {
	certificate := testenv.NewCertificate(t, "localhost", "127.0.0.1")
	db := mariadb(t, "--ssl-cert="+certificate.CertFile, "--ssl-key="+certificate.KeyFile)
	db.Exec(t, "ALTER USER gate@'%' REQUIRE SSL")
	yaml := strings.ReplaceAll(shop(db.Addr), "login:", fmt.Sprintf("tls: {ca: %q}\n    login:", certificate.AuthorityFile))
	g := open(t, yaml)
	if v := value[string](t, g.one("app:apple", "shop"), "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'SSL_VERSION'"); !strings.HasPrefix(v, "TLS") {
		t.Errorf("SSL_VERSION is %q", v)
	}
	plain := open(t, shop(db.Addr))
	wantCode(t, plain.one("app:apple", "shop").Ping(), 1105, "could not sign in to the instance of database 'shop'")
	distrusting := open(t, strings.ReplaceAll(shop(db.Addr), "login:", "tls: true\n    login:"))
	wantCode(t, distrusting.one("app:apple", "shop").Ping(), 2003, "Can't connect to MySQL server on 'shop'")
}

func TestLimits(t *testing.T) {
	db := mariadb(t)
	for _, limit := range []string{"connections", "connections_per_address"} {
		g := open(t, shop(db.Addr, ", limits: {"+limit+": 2}"))
		a, b := g.one("app:apple", "shop"), g.one("app:apple", "shop")
		for _, c := range []interface{ Ping() error }{a, b} {
			if err := c.Ping(); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, g.one("app:apple", "shop").Ping(), 1040, "Too many connections")
		_ = a.Close()
		testenv.Eventually(t, 5*time.Second, func() error { return g.one("app:apple", "shop").Ping() })
	}
}

func TestTimeouts(t *testing.T) {
	db := mariadb(t)
	g := open(t, strings.ReplaceAll(shop(db.Addr, ", timeouts: {request_header: 300ms, request_body: 300ms, idle: 400ms}"), "login:", "timeouts: {statement: 500ms}\n    login:"))

	t.Run("sign-in", func(t *testing.T) {
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		readMessage(t, c)
		expectEnd(t, c)
	})
	t.Run("idle", func(t *testing.T) {
		c := dial(t, g)
		expectEnd(t, c)
	})
	t.Run("in the middle of a statement", func(t *testing.T) {
		c := dial(t, g)
		_, _ = c.Write([]byte{100, 0, 0, 0, byte(mysql.ComQuery), 'S', 'E'})
		var e mysql.Error
		if err := e.Decode(readMessage(t, c)); err != nil || e.Code != 1159 {
			t.Errorf("%v, %v", &e, err)
		}
		expectEnd(t, c)
	})
	t.Run("statement", func(t *testing.T) {
		one := g.one("app:apple", "shop")
		_, err := one.Exec("SELECT SLEEP(30)")
		wantCode(t, err, 3024, "maximum statement execution time exceeded")
		if v := value[int](t, one, "SELECT 1"); v != 1 {
			t.Error("no statement after a timeout")
		}
	})
}

// dial signs in by hand and gives the raw connection.
func dial(t testing.TB, g *gate) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var greeting mysql.Greeting
	if err := greeting.Decode(readMessage(t, c)); err != nil {
		t.Fatal(err)
	}
	in := signInFor(&greeting, "app", "apple", "shop")
	payload := in.AppendTo(nil)
	packet, _ := mysql.AppendPacket(nil, 1, payload)
	if _, err := c.Write(packet); err != nil {
		t.Fatal(err)
	}
	if more := readMessage(t, c); string(more) != "\x01\x03" {
		t.Fatalf("sign-in: %q", more)
	}
	if ok := readMessage(t, c); !mysql.IsOK(ok) {
		t.Fatalf("sign-in: %q", ok)
	}
	return c
}

func signInFor(g *mysql.Greeting, user, password, database string) *mysql.SignIn {
	return &mysql.SignIn{
		Capabilities: mysql.Protocol41 | mysql.LongPassword | mysql.SecureConnection | mysql.PluginAuth | mysql.PluginAuthLenenc |
			mysql.ConnectWithDatabase | mysql.MultiResults | mysql.PrepareMultiResults | mysql.DeprecateEOF&g.Capabilities,
		Collation: 45, User: []byte(user), Auth: mysql.SHA2Scramble(password, g.Nonce[:]), Database: []byte(database), Plugin: []byte(mysql.CachingSHA2),
	}
}

func expectEnd(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes instead of the end", n)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the connection stays open")
	}
}
