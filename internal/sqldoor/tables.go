package sqldoor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Tables is what one generation of the config means to the SQL door. It never changes after Compile, but for Generation,
// which may be set before it is published.
type Tables struct {
	Generation uint64

	directory *identity.Directory
	databases map[string]*database
	names     []string // of databases, sorted
	listeners map[string]*listener
	outside   *observe.SQLSeries // statements outside of any database
}

// database is a logical database with its one instance.
type database struct {
	name      string
	schema    string // on the instance
	home      string // stands for instance and login: a connection is good for every database with the same
	set       *upstream.Set
	pool      *backend.Pool
	limits    backend.Limits
	shared    bool // sessions share connections
	settings  *backend.Settings
	statement time.Duration // see config.DatabaseTimeouts
	series    *observe.SQLSeries
}

// listener is a mysql listener's settings.
type listener struct {
	defaultDatabase string
	timeouts        config.ListenerTimeouts
	limits          config.ListenerLimits
	proxies         proxyproto.Trust // whose connections begin with a PROXY protocol header
	series          *observe.ListenerSeries
}

// checks are the same for all instances: while one is out, statements for its database are refused at once, so the first
// good answer brings it back.
var checks = health.Settings{Interval: 2 * time.Second, Timeout: 2 * time.Second, Rise: 1, Fall: 3}

// Compile makes the tables of a configuration, with one upstream set for each database ("databases.NAME"). Problems of
// consumers are not among the problems: whoever compiles the whole config asks package identity itself.
func Compile(c *config.Config, g *upstream.Generation, m *observe.Metrics) (*Tables, config.Problems) {
	t := &Tables{
		databases: make(map[string]*database, len(c.Databases)),
		listeners: make(map[string]*listener),
		names:     slices.Sorted(maps.Keys(c.Databases)),
		outside:   m.SQLDatabase(""),
	}
	t.directory, _ = identity.Compile(c)
	var problems config.Problems
	for _, name := range t.names {
		d, p := compileDatabase(c, name, g, m)
		t.databases[name] = d
		problems = append(problems, p...)
	}
	for name, l := range c.Listeners {
		if l.Protocol == config.ProtocolMySQL {
			t.listeners[name] = &listener{
				defaultDatabase: l.DefaultDatabase,
				timeouts:        l.Timeouts,
				limits:          l.Limits,
				proxies:         l.ProxyProtocol,
				series:          m.Listener(name, string(config.ProtocolMySQL)),
			}
		}
	}
	return t, problems
}

func compileDatabase(c *config.Config, name string, g *upstream.Generation, m *observe.Metrics) (*database, config.Problems) {
	from := c.Databases[name]
	path := "databases." + name
	var problems config.Problems
	problem := func(at, format string, args ...any) {
		problems = append(problems, c.Problem(path+at, format, args...))
	}
	if len(from.Shards) != 1 {
		problem(".shards", "%d shards (accepted: exactly one, which means not sharded)", len(from.Shards))
		return &database{name: name}, problems
	}
	shard := from.Shards[slices.Collect(maps.Keys(from.Shards))[0]]
	settings := &backend.Settings{
		User:     from.Login.User,
		Password: string(from.Login.Password),
		Connect:  time.Duration(from.Timeouts.Connect),
		Proxy:    proxyproto.ParseVersion(string(from.ProxyProtocol)),
	}
	if base, bad := tlsconfig.Client(from.TLS); base != nil {
		settings.TLS = tlsconfig.ForAddress(base, shard.Primary)
		for _, b := range bad {
			problem(".tls."+b.Field, "%s", b.Message)
		}
	}
	d := &database{
		name:      name,
		schema:    shard.Schema,
		settings:  settings,
		statement: time.Duration(from.Timeouts.Statement),
		series:    m.SQLDatabase(name),
		shared:    from.Pool.Share != "session",
		limits: backend.Limits{
			Connections: from.Pool.MaxConnections,
			Lifetime:    time.Duration(from.Pool.MaxLifetime),
			Idle:        time.Duration(from.Pool.IdleTimeout),
			Queue:       time.Duration(from.Pool.QueueTimeout),
		},
	}
	if d.schema == "" {
		d.schema = name
	}
	identity := settingsIdentity(from)
	d.home = shard.Primary + " " + identity
	spec := upstream.Spec{
		Name:      path,
		Endpoints: []upstream.EndpointSpec{{Address: shard.Primary, Weight: 1}},
		Health:    checks,
		Identity:  identity,
		NewPool:   func(*upstream.Endpoint) io.Closer { return new(backend.Pool) },
		Probe: func(ctx context.Context, address string) error {
			d.pool.Tidy()
			return backend.Probe(ctx, address, settings, &d.pool.Facts)
		},
	}
	d.set = g.Set(spec)
	// The endpoint, and with it what is known about its instance, may be older than this generation. Probes begin when the
	// generation is committed, after this.
	d.pool, _ = d.set.Endpoints()[0].Pool.(*backend.Pool)
	return d, problems
}

// settingsIdentity stands for all that a connection's sign-in depends on, without showing the password.
func settingsIdentity(d *config.Database) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q", d.Login.User, string(d.Login.Password), d.ProxyProtocol)
	if t := d.TLS; t != nil {
		fmt.Fprintf(h, " %q %q %q %q %v", t.CA, t.Cert, t.Key, t.ServerName, t.InsecureSkipVerify)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// home gives the database whose instance answers a session that has chosen no database: the first one by name. It is
// nil when there is none.
func (t *Tables) home() *database {
	if len(t.names) == 0 {
		return nil
	}
	return t.databases[t.names[0]]
}

// defaultVersion is announced while no instance is known: all clients take it for a server of the middle ages of
// MySQL, which every instance behind the gateway can stand in for.
const defaultVersion = "5.7.44-Menshen"

// greeting gives the version and the capabilities to announce. The version is that of the instance behind the
// listener's default database, or else of the first database by name, word for word, because clients choose their SQL by it.
// Forms of answers are offered when every instance is known to speak them.
func (t *Tables) greeting(l *listener) (version string, offered mysql.Capability) {
	version, offered = defaultVersion, mysql.Offered
	first := l.defaultDatabase
	if t.databases[first] == nil && len(t.names) > 0 {
		first = t.names[0]
	}
	for _, name := range t.names {
		d := t.databases[name]
		v, c, ok := d.pool.Known()
		if !ok {
			offered &^= mysql.Framing
			continue
		}
		offered &^= mysql.Framing &^ c
		if name == first {
			version = v
		}
	}
	return version, offered
}
