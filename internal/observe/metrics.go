package observe

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// The bounds on what has series of its own; further ones share the label value Other. A route with one service makes
// about 40 lines, so 2,000 of them are about 7 MB of text: what a scrape every 15 s can bear.
const (
	RoutesMax    = 2000
	ServicesMax  = 16 // of one route
	DatabasesMax = 500
	ListenersMax = 500
	EndpointsMax = 5000
)

// Metrics is the registry of everything that is counted. Make one with NewMetrics; a nil *Metrics hands out series that
// work and are shown nowhere. All methods are safe for any number of goroutines.
type Metrics struct {
	registry *prometheus.Registry

	mu        sync.Mutex                        // guards the maps, not the series in them
	routes    map[string]map[string]*HTTPSeries // by the labels route and service
	databases map[string]*SQLSeries
	listeners map[string]*ListenerSeries

	routesOther    HTTPSeries
	databasesOther SQLSeries
	listenersOther ListenerSeries

	upstreams  atomic.Pointer[func() []EndpointStatus]
	sql        atomic.Pointer[func() SQLStatus]
	accessLog  atomic.Pointer[AccessLog]
	reloadsOK  atomic.Uint64
	reloadsBad atomic.Uint64
	generation atomic.Uint64
	reloadedAt atomic.Int64 // Unix nanoseconds of the last success; 0 before it
	build      atomic.Pointer[[3]string]
}

// EndpointStatus is what metrics show of one endpoint of a service or database.
type EndpointStatus struct {
	Service, Endpoint string
	Healthy           bool
	Active            int64         // requests or sessions in progress
	Requests          uint64        // leases ever given
	Failures          uint64        // those that failed by the endpoint's fault
	Latency           time.Duration // moving average of the time to the first byte; 0 before the first answer
}

// SQLStatus is what metrics show of the SQL door as a whole.
type SQLStatus struct {
	Pins    map[string]int64 // sessions by the reason for which they keep their connection
	Pools   []SQLPool        // by database
	Splits  []SQLSplit       // of databases with replicas
	Groups  []SQLGroup       // of the same
	Digests int              // texts of statements that are counted apart
	Slow    AccessLogStatus  // of the slow log
}

// NewMetrics makes a registry with the Go runtime's and the process's own figures in it.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry:       prometheus.NewRegistry(),
		routes:         make(map[string]map[string]*HTTPSeries),
		databases:      make(map[string]*SQLSeries),
		listeners:      make(map[string]*ListenerSeries),
		routesOther:    HTTPSeries{route: Other, service: Other},
		databasesOther: SQLSeries{database: Other},
		listenersOther: ListenerSeries{name: Other},
	}
	m.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{m})
	return m
}

// Handler serves GET /metrics in Prometheus's text formats. Four scrapes at a time are answered, further ones get 503.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		EnableOpenMetrics:   true,
	})
}

// Registry is what Handler serves, for other exporters and tests.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }

// HTTPRoute gives the series of a route that sends to a service: the same one for the same names, for as long as Keep
// keeps it. "" is None: requests that no route matched are counted in HTTPRoute("", ""), and a route that redirects or
// responds has no service. Every compile asks for the series of all its routes, so that Keep knows which pairs are
// still in use. Past RoutesMax routes, or ServicesMax services of one route, it gives the one series called "(other)".
func (m *Metrics) HTTPRoute(route, service string) *HTTPSeries {
	if m == nil {
		return new(HTTPSeries)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	route, service = label(route), label(service)
	services := m.routes[route]
	if services == nil {
		if len(m.routes) >= RoutesMax && route != None || route == Other {
			return &m.routesOther
		}
		services = make(map[string]*HTTPSeries, 1)
		m.routes[route] = services
	}
	if services[service] == nil && len(services) >= ServicesMax {
		service = Other
	}
	s := services[service]
	if s == nil {
		s = &HTTPSeries{route: route, service: service}
		services[service] = s
	}
	s.wanted = true
	return s
}

// SQLDatabase gives the series of a database: the same one for the same name, for as long as Keep keeps it. "" is
// None: statements outside of any database. Past DatabasesMax it gives the one series called "(other)".
func (m *Metrics) SQLDatabase(database string) *SQLSeries {
	if m == nil {
		return new(SQLSeries)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	database = label(database)
	s := m.databases[database]
	if s == nil {
		if len(m.databases) >= DatabasesMax && database != None || database == Other {
			return &m.databasesOther
		}
		s = &SQLSeries{database: database}
		m.databases[database] = s
	}
	return s
}

// Listener gives the series of a listener: the same one for the same name, for as long as KeepListeners keeps it, and
// whatever the protocol, because a compile that is not published must not disturb what is in service. Past ListenersMax
// it gives the one series called "(other)".
func (m *Metrics) Listener(name, _ string) *ListenerSeries {
	if m == nil {
		return new(ListenerSeries)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name = label(name)
	s := m.listeners[name]
	if s == nil {
		if len(m.listeners) >= ListenersMax || name == Other {
			return &m.listenersOther
		}
		s = &ListenerSeries{name: name}
		m.listeners[name] = s
	}
	return s
}

// Keep drops the series of routes and databases that are not in the sets, and of route and service pairs that no
// compile has asked for since the last Keep. Call it once after each generation is published. Requests in progress go
// on counting in what was dropped; it is shown no more.
func (m *Metrics) Keep(routes, databases map[string]bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	routes, databases = labels(routes), labels(databases)
	for route, services := range m.routes {
		pause.Moment() // under a lock for which only those who scrape or load wait
		if route == None {
			continue
		}
		for service, s := range services {
			if !routes[route] || !s.wanted {
				delete(services, service)
			}
			s.wanted = false
		}
		if len(services) == 0 {
			delete(m.routes, route)
		}
	}
	for name := range m.databases {
		if !databases[name] {
			delete(m.databases, name)
		}
	}
}

// KeepListeners drops the series of listeners that are not in the set. Call it after they have drained: the open
// connections of a dropped listener are counted no more.
func (m *Metrics) KeepListeners(names map[string]bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	names = labels(names)
	for name := range m.listeners {
		if !names[name] {
			delete(m.listeners, name)
		}
	}
}

// Upstreams sets the function that a scrape asks for the state of all endpoints. It is called from the scrape's
// goroutine.
func (m *Metrics) Upstreams(f func() []EndpointStatus) {
	if m != nil {
		m.upstreams.Store(&f)
	}
}

// SQL sets the function that a scrape asks for the state of the SQL door. It is called from the scrape's goroutine.
func (m *Metrics) SQL(f func() SQLStatus) {
	if m != nil {
		m.sql.Store(&f)
	}
}

// AccessLog sets the access log whose records and drops are shown. nil shows none.
func (m *Metrics) AccessLog(l *AccessLog) {
	if m != nil {
		m.accessLog.Store(l)
	}
}

// Reload counts an attempt to put a configuration into service. generation is the one in service afterwards.
func (m *Metrics) Reload(ok bool, generation uint64) {
	if m == nil {
		return
	}
	m.generation.Store(generation)
	if !ok {
		m.reloadsBad.Add(1)
		return
	}
	m.reloadsOK.Add(1)
	m.reloadedAt.Store(time.Now().UnixNano())
}

// BuildInfo sets what menshen_build_info says. The revision is the one that the Go tool recorded, or "unknown".
func (m *Metrics) BuildInfo(version string) {
	if m == nil {
		return
	}
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	m.build.Store(&[3]string{label(version), runtime.Version(), revision})
}

// labels gives the label values of the names that are in a set, and None.
func labels(names map[string]bool) map[string]bool {
	set := make(map[string]bool, len(names)+1)
	set[None] = true
	for name, in := range names {
		pause.Moment()
		if in {
			set[label(name)] = true
		}
	}
	return set
}

// label makes a label value: valid UTF-8, and None for nothing.
func label(s string) string {
	if s == "" {
		return None
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
