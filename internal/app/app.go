// Package app is the composition root: it alone knows both doors, the core and the admin API, builds them from a config,
// and starts, reloads, drains and stops them.
//
// Start order: registries and doors (they wait for nothing), the first snapshot, sockets, the admin API, the watcher of
// files. Stop order is its mirror, with one exception: the admin API goes last, so that a load balancer can see readiness
// turn false while requests finish.
//
// Goroutines: one accept loop for each socket, the admin server, the watcher. All end before Run returns. Locks: App.mu
// serialises everything that changes the generation or the sockets; App.statusMu guards what the admin API shows and is
// never held while waiting.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/admin"
	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/pause"
	"github.com/menshen-gateway/menshen/internal/snapshot"
	"github.com/menshen-gateway/menshen/internal/sqldoor"
	"github.com/menshen-gateway/menshen/internal/tcpdoor"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// The exit codes of the command.
const (
	ExitInput       = 1 // the user's input is wrong
	ExitEnvironment = 2 // a port is taken, a file cannot be written
	ExitBug         = 3
)

// ExitError is an error that says with which code the command ends.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Options are what an App is made from. Exactly one of ConfigPath and Config must be set.
type Options struct {
	ConfigPath string         // file or directory; watched
	Config     *config.Config // used as it is; Reload loads the same again
	Log        io.Writer      // Menshen's own log; nil is standard error
	Version    string
	Ready      func(addresses map[string]string) // called once, when all listeners are open; may be nil
}

// App is a running gateway.
type App struct {
	options Options
	log     *slog.Logger
	level   *slog.LevelVar
	metrics *observe.Metrics
	access  *observe.AccessLog
	slow    *observe.SlowLog
	store   *snapshot.Store
	sql     *sqldoor.Door
	doors   map[config.Protocol]door

	mu        sync.Mutex
	sockets   map[string]*socket // by listener name; "admin" is the admin API's
	accepting sync.WaitGroup
	draining  sync.WaitGroup
	posted    []byte  // the text that is in service, when it came through the admin API
	read      digests // the files as they were when Reload last began to read them; nil once the watcher had others read for a.posted

	applied chan struct{} // tells the watcher that another config is in service; holds one

	stopping atomic.Bool

	statusMu   sync.Mutex
	lastReload admin.Reload
}

// door is a door as far as its listeners go: see package listener.
type door interface {
	Serve(ctx context.Context, ln net.Listener, name string) error
	Retire(name string) (wait func(context.Context) error)
}

// adminGrace is how long requests of the admin API may take when it closes.
const adminGrace = time.Second

// adminName is the admin API's place among the sockets. No listener can have it: names may not contain spaces.
const adminName = "admin API"

// New loads the config and opens its listeners. Nothing is accepted before Run. Errors are *ExitError.
func New(o Options) (*App, error) {
	c := o.Config
	if c == nil {
		var err error
		if c, err = load(o.ConfigPath); err != nil {
			return nil, err
		}
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	a := &App{options: o, metrics: observe.NewMetrics(), sockets: map[string]*socket{}, applied: make(chan struct{}, 1)}
	a.log, a.level = newLog(o.Log, c.Log)
	access, err := observe.OpenAccessLog(c.AccessLog.To)
	if err != nil {
		return nil, &ExitError{ExitEnvironment, err}
	}
	if a.slow, err = observe.OpenSlowLog(slowTo(c)); err != nil {
		_ = access.Close()
		return nil, &ExitError{ExitEnvironment, err}
	}
	a.slow.SetLog(a.log)
	access.SetLog(a.log)
	a.access = access
	a.metrics.AccessLog(access)
	a.metrics.BuildInfo(o.Version)
	a.store = snapshot.NewStore(a.log, a.metrics)
	a.sql = sqldoor.New(sqldoor.Options{
		Tables: func() *sqldoor.Tables { return a.store.Current().SQL }, Log: a.log, Access: access, Slow: a.slow, Metrics: a.metrics,
		TLS: func(listener string) *tls.Config { return a.store.Current().SQLTLS(listener) },
	})
	a.doors = map[config.Protocol]door{
		config.ProtocolHTTP:  httpdoor.New(httpdoor.Options{Tables: func() *httpdoor.Tables { return a.store.Current().HTTP }, Log: a.log, Access: access}),
		config.ProtocolTCP:   tcpdoor.New(tcpdoor.Options{Tables: func() *tcpdoor.Tables { return a.store.Current().TCP }, Log: a.log, Access: access}),
		config.ProtocolMySQL: a.sql,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.apply(c, a.source()); err != nil {
		a.store.Close()
		_ = errors.Join(access.Close(), a.slow.Close())
		return nil, err
	}
	return a, nil
}

func load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	var problems config.Problems
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &problems):
		return nil, &ExitError{ExitInput, problems.With(snapshot.Problems(config.LoadIntact(path)))}
	}
	return nil, &ExitError{ExitInput, err}
}

func (a *App) source() string {
	if a.options.ConfigPath != "" {
		return a.options.ConfigPath
	}
	return "built in"
}

func newLog(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c)
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), level
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), level
}

func setLevel(v *slog.LevelVar, c config.Log) {
	var l slog.Level
	if l.UnmarshalText([]byte(c.Level)) == nil {
		v.Set(l)
	}
}

// apply compiles a config and puts it into service: new sockets are open before the generation changes, old ones are closed
// after it. Any error leaves everything as it was. a.mu is held.
func (a *App) apply(c *config.Config, source string) error {
	before := a.store.Current()
	pending, err := a.store.Prepare(c, source)
	if err != nil {
		return &ExitError{ExitInput, err}
	}
	change, err := a.planSockets(c)
	if err != nil {
		pending.Abort()
		return &ExitError{ExitEnvironment, err}
	}
	pending.Publish()
	a.commitSockets(change, before)
	setLevel(a.level, c.Log)
	if before != nil && (before.Config.AccessLog != c.AccessLog || before.Config.Log.Format != c.Log.Format || slowTo(before.Config) != slowTo(c)) {
		a.log.Warn("access_log, slow_log.to and log.format take effect at the next start")
	}
	a.noteReload(nil)
	select {
	case a.applied <- struct{}{}:
	default:
	}
	return nil
}

func (a *App) noteReload(err error) {
	var generation uint64
	if now := a.store.Current(); now != nil {
		generation = now.Generation
	}
	a.metrics.Reload(err == nil, generation)
	a.statusMu.Lock()
	a.lastReload = admin.Reload{At: time.Now(), Err: err}
	a.statusMu.Unlock()
}

// Run serves until ctx ends, then drains and stops. The error is nil after an orderly stop.
func (a *App) Run(ctx context.Context) error {
	a.mu.Lock()
	for name, s := range a.sockets {
		a.serve(name, s)
	}
	started := a.store.Current()
	a.mu.Unlock()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers sync.WaitGroup
	if a.options.ConfigPath != "" { // before anybody is told that we are ready: a change from then on must be seen
		if w, err := a.newWatcher(); err == nil {
			watchers.Go(func() { w.run(watching) })
		} else {
			a.log.Error("cannot watch the config's files; SIGHUP still reloads", "error", err)
		}
	}
	a.log.Info("ready", "version", a.options.Version, "generation", started.Generation, "listeners", a.Addresses())
	if a.options.Ready != nil {
		a.options.Ready(a.Addresses())
	}
	<-ctx.Done()

	a.stopping.Store(true) // readiness turns false first
	a.log.Info("stopping")
	stopWatching()
	watchers.Wait()
	a.mu.Lock() // a change that is under way ends first; the next one sees that the gateway is stopping
	sockets, now := a.sockets, a.store.Current().Config
	a.mu.Unlock()
	var adminSocket *socket
	var drains sync.WaitGroup
	for name, s := range sockets {
		if name == adminName {
			adminSocket = s
			continue
		}
		s.close()
		wait := 30 * time.Second
		if l := now.Listeners[name]; l != nil {
			wait = time.Duration(l.DrainTimeout)
		}
		drain := a.doors[s.protocol].Retire(name)
		drains.Go(func() { a.drain(drain, name, wait) })
	}
	drains.Wait()
	a.draining.Wait() // listeners that left with an earlier reload
	if adminSocket != nil {
		adminSocket.close()
		adminSocket.finish()
	}
	a.accepting.Wait()
	a.store.Close()
	a.log.Info("stopped")
	return errors.Join(a.access.Close(), a.slow.Close())
}

// slowTo is where a config wants its slow statements.
func slowTo(c *config.Config) string {
	if c.SlowLog == nil {
		return "none"
	}
	return c.SlowLog.To
}

// drain ends the connections of a listener that was retired.
func (a *App) drain(drain func(context.Context) error, name string, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := drain(ctx); err != nil {
		a.log.Warn("connections were cut at the end of drain_timeout", "listener", name, "drain_timeout", wait.String())
	}
}

// Addresses gives the bound address of each listener by name, and the admin API's as "admin".
func (a *App) Addresses() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]string, len(a.sockets))
	for name, s := range a.sockets {
		if name == adminName {
			name = "admin"
		}
		all[name] = s.ln.Addr().String()
	}
	return all
}

// ReopenLogs opens the files of the access log and the slow log anew, after a log rotation has moved them away.
func (a *App) ReopenLogs() {
	if err := errors.Join(a.access.Reopen(), a.slow.Reopen()); err != nil {
		a.log.Error("cannot reopen a log", "error", err)
	}
}

// Current describes the generation in service.
func (a *App) Current() admin.Current {
	now := a.store.Current()
	a.statusMu.Lock()
	defer a.statusMu.Unlock()
	return admin.Current{Generation: now.Generation, Config: now.Config, LoadedAt: now.LoadedAt, Source: now.Source, LastReload: a.lastReload}
}

// Upstreams is the state of all services and databases.
func (a *App) Upstreams() []upstream.SetStatus { return a.store.Upstreams() }

// Databases is the state of the SQL door.
func (a *App) Databases() admin.SQL { return a.sql }

// Ready says whether every listener is open and a configuration is in service.
func (a *App) Ready() (ready bool, reasons []string) {
	if a.stopping.Load() {
		return false, []string{"stopping"}
	}
	return true, nil // New opens every listener before Run, and a reload opens the new ones before it publishes
}

// Apply puts the configuration in a YAML text into service, or with dryRun does everything short of that.
func (a *App) Apply(_ context.Context, yaml []byte, dryRun bool) (admin.Current, error) {
	defer pause.Begin()()
	// Relative paths in it are read from the config's own folder, as if it were a file there.
	text := config.File{Name: filepath.Join(a.folder(), "request"), Data: yaml}
	c, err := config.Parse(text)
	var problems config.Problems
	if errors.As(err, &problems) {
		err = problems.With(snapshot.Problems(config.Intact(text)))
	}
	if err != nil {
		if !dryRun {
			a.failed(err)
		}
		return a.Current(), err
	}
	if err := a.lock(); err != nil {
		return a.Current(), err
	}
	defer a.mu.Unlock()
	if dryRun {
		pending, err := a.store.Prepare(c, "admin API")
		now := a.Current()
		if err != nil {
			return now, err
		}
		pending.Abort()
		now.Config = c
		return now, nil
	}
	if err := a.apply(c, "admin API"); err != nil {
		a.failed(err)
		return a.Current(), err
	}
	a.posted = yaml
	a.log.Info("configuration applied", "source", "admin API", "generation", a.store.Current().Generation)
	return a.Current(), nil
}

// folder is where the config lives, "" when it is built in.
func (a *App) folder() string {
	path := a.options.ConfigPath
	if path == "" {
		return ""
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// lock takes a.mu for a change, unless the gateway is stopping.
func (a *App) lock() error {
	a.mu.Lock()
	if a.stopping.Load() {
		a.mu.Unlock()
		return errors.New("the gateway is stopping")
	}
	return nil
}

// Reload loads the configuration anew from its own source.
func (a *App) Reload(context.Context) (admin.Current, error) {
	if err := a.lock(); err != nil {
		return a.Current(), err
	}
	defer a.mu.Unlock()
	defer pause.Begin()()
	c, err := a.options.Config, error(nil)
	if c == nil {
		a.read = a.digests()
		c, err = load(a.options.ConfigPath)
	}
	if err == nil {
		err = a.apply(c, a.source())
	}
	if err != nil {
		a.failed(err)
		return a.Current(), err
	}
	a.posted = nil
	a.log.Info("configuration reloaded", "source", a.source(), "generation", a.store.Current().Generation)
	return a.Current(), nil
}

// failed makes a failed reload visible: in the log, in the metrics and in the admin API. The old generation serves on.
func (a *App) failed(err error) {
	a.noteReload(err)
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			a.log.Error("configuration refused, the old one stays in service", "problem", p.String())
		}
		return
	}
	a.log.Error("configuration refused, the old one stays in service", "error", err)
}

// socket is an open listening socket and what serves it.
type socket struct {
	protocol config.Protocol // "" for the admin API
	address  string          // as configured
	ln       net.Listener
	handle   *handle       // nil until it is served
	done     chan struct{} // closed when its accept loop has ended
	server   *http.Server  // the admin API's
}

// detach ends the accept loop and leaves the socket open.
func (s *socket) detach() {
	if s.handle == nil {
		return
	}
	s.handle.detach()
	<-s.done
}

// finish lets the requests of the admin API end, if it is one.
func (s *socket) finish() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close()
	}
}

// close ends the accept loop and the socket.
func (s *socket) close() {
	s.detach()
	_ = s.ln.Close()
}

// change is what a reload does to the sockets.
type change struct {
	next   map[string]*socket
	opened []*socket
	moved  map[string]*socket // sockets that change their listener: the old name
}

// planSockets opens the sockets that a config needs and that are not open yet. A socket whose address stays is kept even
// when its listener is renamed or changes its protocol, because a second one could not be bound.
func (a *App) planSockets(c *config.Config) (*change, error) {
	p := &change{next: map[string]*socket{}, moved: map[string]*socket{}}
	free := map[string]string{} // address -> name of a socket whose listener goes
	for name, s := range a.sockets {
		if protocol, address, ok := wanted(c, name); !ok || protocol != s.protocol || address != s.address {
			free[s.address] = name
		}
	}
	names := []string{}
	for name := range c.Listeners {
		names = append(names, name)
	}
	if c.Admin != nil {
		names = append(names, adminName)
	}
	slices.Sort(names)
	for _, name := range names {
		protocol, address, _ := wanted(c, name)
		if s := a.sockets[name]; s != nil && s.protocol == protocol && s.address == address {
			p.next[name] = s
			continue
		}
		if old, ok := free[address]; ok && !strings.HasSuffix(address, ":0") {
			delete(free, address)
			p.next[name] = &socket{protocol: protocol, address: address, ln: a.sockets[old].ln}
			p.moved[old] = p.next[name]
			continue
		}
		ln, err := net.Listen("tcp", address)
		if err != nil {
			for _, s := range p.opened {
				_ = s.ln.Close()
			}
			if name == adminName {
				return nil, listenFault("the admin address "+address, address, err)
			}
			return nil, listenFault(fmt.Sprintf("listener %s (%s)", name, address), address, err)
		}
		s := &socket{protocol: protocol, address: address, ln: ln}
		p.opened = append(p.opened, s)
		p.next[name] = s
	}
	return p, nil
}

// wanted gives what a config wants under a socket's name.
func wanted(c *config.Config, name string) (protocol config.Protocol, address string, ok bool) {
	if name == adminName {
		if c.Admin == nil {
			return "", "", false
		}
		return "", c.Admin.Address, true
	}
	l := c.Listeners[name]
	if l == nil {
		return "", "", false
	}
	return l.Protocol, l.Address, true
}

// commitSockets serves the new sockets and closes the old ones. before is the generation that had those; nil at the start,
// when Run is going to serve.
func (a *App) commitSockets(p *change, before *snapshot.Snapshot) {
	old := a.sockets
	a.sockets = p.next
	if before == nil {
		return
	}
	for name, s := range old {
		if p.next[name] == s {
			continue
		}
		if p.moved[name] != nil {
			s.detach() // its socket goes on under another name
		} else {
			s.close()
		}
		a.draining.Go(s.finish) // not here: the request that moves the admin API is one of those it waits for
		if l := before.Config.Listeners[name]; l != nil && (p.next[name] == nil || p.next[name].protocol != s.protocol) {
			drain := a.doors[s.protocol].Retire(name) // before the next one can begin to serve under its name
			a.draining.Go(func() { a.drain(drain, name, time.Duration(l.DrainTimeout)) })
		}
	}
	for name, s := range p.next {
		if old[name] != s {
			a.serve(name, s)
		}
	}
}

// serve starts the accept loop of a socket.
func (a *App) serve(name string, s *socket) {
	s.handle, s.done = newHandle(s.ln), make(chan struct{})
	if name == adminName {
		s.server = &http.Server{
			Handler:           admin.New(admin.Options{Gateway: a, Metrics: a.metrics.Handler(), Log: a.log}),
			ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
			ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		}
	}
	a.accepting.Go(func() { // ends when the socket is closed or detached
		defer close(s.done)
		var err error
		if s.server == nil {
			err = a.doors[s.protocol].Serve(context.Background(), s.handle, name)
		} else if err = s.server.Serve(s.handle); errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			err = nil
		}
		if err != nil {
			a.log.Error("a listener ended", "listener", name, "error", err)
		}
	})
}
