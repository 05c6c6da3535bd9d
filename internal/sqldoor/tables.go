package sqldoor

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
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
	listeners map[string]*site
	outside   *observe.SQLSeries // statements outside of any database

	config     *config.Config
	digestsMax int
	slow       slowSettings
}

// database is a logical database with its instances. Where a statement goes is asked of primary and replica, in instance.go.
type database struct {
	name      string
	schema    string // on the instances
	set       *upstream.Set
	instances []*instance // in the order of the config, the configured primary first
	keeper    *keeper     // knows their roles
	turn      uint64      // later generations have higher ones
	limits    backend.Limits
	shared    bool          // sessions share connections
	statement time.Duration // see config.DatabaseTimeouts
	series    *observe.SQLSeries

	// As in config.Database.
	readFrom     readFrom
	consistency  consistency
	maxLag       time.Duration
	failoverWait time.Duration
	queue        int           // failover_queue
	interval     time.Duration // check_interval
}

type readFrom = config.ReadFrom

const (
	readPrimary  = config.ReadPrimary
	readReplicas = config.ReadReplicas
	readNearest  = config.ReadNearest
)

type consistency = config.Consistency

// site is a mysql listener's settings.
type site struct {
	defaultDatabase string
	timeouts        config.ListenerTimeouts
	limits          config.ListenerLimits
	rules           listener.Rules
	netpoll         bool // sessions are on the runtime's poller
}

// open puts a session's connection on the listener's poller.
func (l *site) open(c net.Conn) *poll.Conn {
	if l.netpoll {
		return poll.New(c)
	}
	return poll.Adopt(c)
}

// Compile makes the tables of a configuration, with one upstream set for each database ("databases.NAME"). Problems of
// consumers are not among the problems: whoever compiles the whole config asks package identity itself.
func Compile(c *config.Config, g *upstream.Generation, m *observe.Metrics) (*Tables, config.Problems) {
	t := &Tables{
		databases: make(map[string]*database, len(c.Databases)),
		listeners: make(map[string]*site),
		names:     slices.Sorted(maps.Keys(c.Databases)),
		outside:   m.SQLDatabase(""),

		config: c, digestsMax: c.Digests.Max, slow: slowSettingsOf(c.SlowLog),
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
			t.listeners[name] = &site{
				defaultDatabase: l.DefaultDatabase,
				timeouts:        l.Timeouts,
				limits:          l.Limits,
				rules:           listener.RulesOf(name, l, m),
				netpoll:         l.IO == config.IONetpoll,
			}
		}
	}
	return t, problems
}

// Published is to be called when the generation is in service: those who wait for a connection learn of a raised bound.
func (t *Tables) Published() {
	for _, d := range t.databases {
		for _, in := range d.instances {
			in.pool.SetLimits(d.limits)
		}
	}
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
	d := &database{
		name:      name,
		schema:    shard.Schema,
		statement: time.Duration(from.Timeouts.Statement),
		series:    m.SQLDatabase(name),
		shared:    from.Pool.Share != "session",
		limits: backend.Limits{
			Connections: from.Pool.MaxConnections,
			Lifetime:    time.Duration(from.Pool.MaxLifetime),
			Idle:        time.Duration(from.Pool.IdleTimeout),
			Queue:       time.Duration(from.Pool.QueueTimeout),
			MinIdle:     from.Pool.MinIdle,
		},
		readFrom:     from.ReadFrom,
		consistency:  from.Consistency,
		maxLag:       time.Duration(from.MaxLag),
		failoverWait: time.Duration(from.FailoverWait),
		queue:        from.FailoverQueue,
		interval:     time.Duration(from.CheckInterval),
	}
	if d.schema == "" {
		d.schema = name
	}
	identity := settingsIdentity(from)
	base, bad := tlsconfig.Client(from.TLS)
	for _, b := range bad {
		problem(".tls."+b.Field, "%s", b.Message)
	}
	spec := upstream.Spec{
		Name:    path,
		Balance: balance.Algorithm(from.Balance),
		// A check that takes longer than an interval is no check: the next one would come late. But a busy instance is no dead one.
		Health:   health.Settings{Interval: d.interval, Timeout: max(d.interval, time.Second), Rise: 1, Fall: 3},
		Identity: identity,
		NewPool:  func(*upstream.Endpoint) io.Closer { return new(holding) },
		Probe:    d.check,
	}
	if d.readFrom == readNearest {
		spec.Balance = balance.LeastLatency
	}
	for _, address := range append([]string{shard.Primary}, shard.Replicas...) {
		spec.Endpoints = append(spec.Endpoints, upstream.EndpointSpec{Address: address, Weight: 1})
		settings := &backend.Settings{
			User:     from.Login.User,
			Password: string(from.Login.Password),
			Connect:  time.Duration(from.Timeouts.Connect),
			Proxy:    proxyproto.ParseVersion(string(from.ProxyProtocol)),

			Compression: mysql.ParseCompression(from.Compression),
		}
		if base != nil {
			settings.TLS = tlsconfig.ForAddress(base, address)
		}
		d.instances = append(d.instances, &instance{address: address, home: address + " " + identity, settings: settings})
	}
	d.set = g.Set(spec)
	d.keeper, _ = d.set.Shared(newKeeper).(*keeper)
	d.turn = d.keeper.turns.Add(1)
	// Endpoints, and with them what is known about their instances, may be older than this generation. Checks begin when the
	// generation is committed, after this.
	for i, e := range d.set.Endpoints() {
		d.instances[i].endpoint, d.instances[i].keeper = e, d.keeper
		h, _ := e.Pool.(*holding)
		d.instances[i].pool, d.instances[i].observer = &h.Pool, &h.observer
	}
	return d, problems
}

// settingsIdentity stands for all that a connection's sign-in depends on, without showing the password.
func settingsIdentity(d *config.Database) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q", d.Login.User, string(d.Login.Password), d.ProxyProtocol, d.Compression)
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
func (t *Tables) greeting(l *site) (version string, offered mysql.Capability) {
	version, offered = defaultVersion, mysql.Offered
	first := l.defaultDatabase
	if t.databases[first] == nil && len(t.names) > 0 {
		first = t.names[0]
	}
	for _, name := range t.names {
		d := t.databases[name]
		known := false
		for _, in := range d.instances {
			v, c, ok := in.pool.Known()
			if !ok {
				continue // one of a group that was never reached must not speak for the others
			}
			offered &^= mysql.Framing &^ c
			if name == first && (!known || d.still(in, classPrimary)) {
				version = v
			}
			known = true
		}
		if !known {
			offered &^= mysql.Framing
		}
	}
	return version, offered
}
