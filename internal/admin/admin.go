// Package admin is the admin API: liveness, readiness, metrics, status, and the configuration read and replaced over
// HTTP. It is a plain http.Handler on net/http, because it is not the data path; app gives it a listener of its own.
//
// New makes the handler from a Gateway, which is what it needs from app. Every answer is JSON (problems are RFC 9457
// documents), but for the metrics, profiles, the index at / and a configuration asked for as YAML.
//
// It holds no state and starts no goroutine. It authenticates nobody: who reaches its address may do everything it
// offers, so the address belongs on loopback or a management network. It does refuse requests that a web page of
// somebody else's made a browser send (see guard).
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Gateway is what the API needs from the rest of Menshen. All methods may be called by many goroutines.
type Gateway interface {
	// Current describes the generation in service.
	Current() Current
	// Upstreams is the state of all services and databases, sorted by name.
	Upstreams() []upstream.SetStatus
	// Databases is the state of the SQL door.
	Databases() SQL
	// Ready says whether every listener is open and a configuration is in service, and if not, why.
	Ready() (ready bool, reasons []string)
	// Apply puts the configuration in the YAML text into service, or with dryRun does everything short of that. It
	// gives what is then in service; after a dry run Config is the one that would be. The error is (or wraps)
	// config.Problems when the text is to blame; whatever the error, the old generation goes on serving.
	Apply(ctx context.Context, yaml []byte, dryRun bool) (Current, error)
	// Reload does the same with the configuration's own source, as a change of the file or SIGHUP would.
	Reload(ctx context.Context) (Current, error)
}

// Current is a generation in service.
type Current struct {
	Generation uint64
	Config     *config.Config // never nil: the admin address itself comes from one
	LoadedAt   time.Time
	Source     string // where the configuration came from: a path, or "admin API"
	LastReload Reload // the last attempt to replace it, or the first load
}

// Reload is an attempt to put a configuration into service.
type Reload struct {
	At  time.Time // zero: there was none
	Err error     // nil: it succeeded
}

// Options are what New needs.
type Options struct {
	Gateway Gateway
	Metrics http.Handler // serves GET /metrics; nil: 404
	Log     *slog.Logger // nil: slog.Default
}

// The bounds of the API.
const (
	bodyBytesMax = 16 << 20 // a configuration; config.Parse has a bound of its own
	changesMax   = 4        // POST requests at a time, because each holds a body and a compile; further ones get 503
)

// api is the handler.
type api struct {
	gateway   Gateway
	log       *slog.Logger
	endpoints []endpoint
	crossSite *http.CrossOriginProtection
	changes   chan struct{}
}

// endpoint is one path of the API.
type endpoint struct {
	path string
	help string // for the index; "" is not listed
	get  http.HandlerFunc
	post http.HandlerFunc
}

// New makes the handler of the admin API.
func New(o Options) http.Handler {
	a := &api{gateway: o.Gateway, log: o.Log, crossSite: http.NewCrossOriginProtection(), changes: make(chan struct{}, changesMax)}
	if a.log == nil {
		a.log = slog.Default()
	}
	a.endpoints = []endpoint{
		{path: "/", get: a.index},
		{path: "/healthz", help: "alive", get: a.healthz},
		{path: "/readyz", help: "every listener open, configuration in service", get: a.readyz},
		{path: "/api/v1/config", help: "the configuration in service; POST replaces it (?dry_run=1 only checks)", get: a.config, post: a.apply},
		{path: "/api/v1/reload", help: "POST reads the configuration's source again", post: a.reload},
		{path: "/api/v1/services", help: "services, their endpoints, their health and the reason for it", get: a.services},
		{path: "/api/v1/routes", help: "routes", get: a.routes},
		{path: "/api/v1/databases", help: "databases, their instances, health, pools and pins", get: a.databases},
		{path: "/api/v1/databases/{name}/digests", help: "what became of a database's statements (?limit=100)", get: a.digests},
		{path: "/api/v1/digests/reset", help: "POST forgets what became of all statements", post: a.resetDigests},
		{path: "/api/v1/sessions", help: "sessions of SQL clients (?limit=1000)", get: a.sessions},
		{path: "/api/v1/profile", help: "for go tool pprof (?kind=cpu, heap, goroutine; ?seconds=10)", get: a.profile},
	}
	if o.Metrics != nil {
		a.endpoints = append(a.endpoints, endpoint{path: "/metrics", help: "for Prometheus", get: o.Metrics.ServeHTTP})
	}
	return a
}

// ServeHTTP finds the endpoint and guards it.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	i := slices.IndexFunc(a.endpoints, func(e endpoint) bool { return e.matches(r) })
	if i < 0 {
		refuse(w, http.StatusNotFound, fmt.Sprintf("nothing is at %q (GET / lists what is)", r.URL.Path))
		return
	}
	e := a.endpoints[i]
	switch {
	case e.get != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		e.get(w, r)
	case e.post != nil && r.Method == http.MethodPost:
		a.change(w, r, e.post)
	default:
		w.Header().Set("Allow", e.allow())
		refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s", e.path, e.allow()))
	}
}

// matches compares paths, and keeps what stood for {name}.
func (e endpoint) matches(r *http.Request) bool {
	before, after, pattern := strings.Cut(e.path, "{name}")
	if !pattern {
		return e.path == r.URL.Path
	}
	name, is := strings.CutPrefix(r.URL.Path, before)
	if is {
		name, is = strings.CutSuffix(name, after)
	}
	if !is || name == "" || strings.Contains(name, "/") {
		return false
	}
	r.SetPathValue("name", name)
	return true
}

func (e endpoint) allow() string {
	switch {
	case e.get == nil:
		return "POST"
	case e.post == nil:
		return "GET, HEAD"
	}
	return "GET, HEAD, POST"
}

// change runs a request that changes something, if its sender is not somebody else's web page.
func (a *api) change(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	if err := a.guard(r); err != nil {
		a.log.Warn("admin: cross-site request refused", "path", r.URL.Path, "from", r.RemoteAddr, "origin", r.Header.Get("Origin"), "host", r.Host)
		refuse(w, http.StatusForbidden, err.Error())
		return
	}
	select {
	case a.changes <- struct{}{}:
		defer func() { <-a.changes }()
	default:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "too many changes at the same time")
		return
	}
	next(w, r)
}

// guard refuses what a browser sends on behalf of another site: by Sec-Fetch-Site, or an Origin that is not the Host.
// A site whose name was rebound to 127.0.0.1 passes that test, its Host being its own; so a browser that comes over
// loopback must also call us by a loopback name or an address. Programs that are no browsers send neither header.
func (a *api) guard(r *http.Request) error {
	if err := a.crossSite.Check(r); err != nil {
		return fmt.Errorf("the request comes from another site's page (%w)", err)
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if r.Header.Get("Origin") == "" || local == nil {
		return nil
	}
	if at, err := netip.ParseAddrPort(local.String()); err != nil || !at.Addr().Unmap().IsLoopback() {
		return nil
	}
	host := strings.TrimSuffix(strings.ToLower((&url.URL{Host: r.Host}).Hostname()), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil
	}
	return fmt.Errorf("a page called %s asks for a change over loopback (use localhost or an address)", host)
}

// index lists the endpoints.
func (a *api) index(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.WriteString("Menshen admin API\n\n")
	for _, e := range a.endpoints {
		if e.help != "" {
			fmt.Fprintf(&b, "%-16s %-33s %s\n", e.allow(), e.path, e.help)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	write(w, http.StatusOK, []byte(b.String()))
}

func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (a *api) readyz(w http.ResponseWriter, _ *http.Request) {
	ready, reasons := a.gateway.Ready()
	if !ready {
		answer(w, http.StatusServiceUnavailable, notReady{Status: "not ready", Reasons: list(reasons)})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ready"})
}

type notReady struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons"`
}
