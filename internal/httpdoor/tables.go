package httpdoor

import (
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/pause"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
)

// Tables is the HTTP part of one generation: what each listener serves. It is immutable.
type Tables struct {
	Generation uint64

	sites   map[string]*site
	targets map[string]*forward.Target
}

// site is what one listener serves.
type site struct {
	generation uint64
	policed    bool     // some policy stands on the listener or on one of its routes
	chain      *chain   // of the listener, for requests without a route; nil: none
	chains     []*chain // by the table's rule index, when policed; nil: none
	routes     *route.Table
	bound      []*boundRoute // by the table's rule index
	tls        *tls.Config   // nil: plain text
	trusted    []netip.Prefix
	add        config.ForwardHeaders

	certificates    certificateNames          // nil: there is only one
	open            func(net.Conn) *poll.Conn // on the poller of the listener's choice
	limits          h1.Limits
	http2           h2.Limits // Streams 0: HTTP/2 is off
	bodyBytes       int64
	requestsMax     int
	finishes        bool // a request whose client has left
	timeoutHead     time.Duration
	timeoutBody     time.Duration
	timeoutWrite    time.Duration
	timeoutIdle     time.Duration
	seriesUnmatched *observe.HTTPSeries
	rules           listener.Rules
}

// boundRoute is a route with its target.
type boundRoute struct {
	name     string
	shares   []share // service and split: at least one
	weight   float64 // of all shares
	respond  *respond
	redirect *redirect
	rewrite  *rewrite
	timeout  time.Duration
	series   *observe.HTTPSeries // of answers that no service gave
}

// share is one service of a split, or the only one.
type share struct {
	target  *forward.Target
	upTo    float64 // cumulative weight
	retries int
	series  *observe.HTTPSeries
}

// respond is a fixed answer, its fields ready to be sent.
type respond struct {
	status int
	fields []byte
	body   []byte
}

type redirect struct {
	status    int
	to        route.Template
	path      bool // to begins with a path
	keepQuery bool
}

type rewrite struct {
	path        *route.Template
	query       bool // path has a query of its own
	host        string
	stripPrefix string
}

// Source is what Tables are compiled from. All fields must be set.
type Source struct {
	Config     *config.Config
	Generation uint64
	Services   map[string]*services.Service
	Consumers  *identity.Directory
	Policies   *policy.Generation // what policies remember across reloads
	Metrics    *observe.Metrics
}

// Compile makes the Tables of a config whose services are compiled. The tables are only to be used when there are no
// problems.
func Compile(from Source) (*Tables, config.Problems) {
	c := from.Config
	b := &compiler{config: c, tables: &Tables{Generation: from.Generation, sites: map[string]*site{}, targets: map[string]*forward.Target{}}, metrics: from.Metrics, reported: map[string]bool{},
		consumers: from.Consumers, states: from.Policies, compiled: map[compiledPolicy]policy.Policy{}, links: map[string][]link{}}
	b.namedLists()
	for name, s := range from.Services {
		b.tables.targets[name] = forward.NewTarget(s)
	}
	b.names = pause.Names(c.Routes)
	bound := make(map[string]*boundRoute, len(b.names))
	for _, name := range b.names {
		pause.Moment()
		bound[name] = b.route(name, c.Routes[name])
		if r := c.Routes[name]; len(r.Policies) > 0 {
			b.links[name] = b.linksOf("route "+name, join("routes", name), r.Policies, rule(name, r).Captures())
		}
	}
	tables := map[string]*route.Table{} // listeners with the same routes share one table
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		if l := c.Listeners[name]; l.Protocol == config.ProtocolHTTP {
			b.site(name, l, bound, tables)
		}
	}
	return b.tables, b.problems
}

type compiler struct {
	config   *config.Config
	names    []string // of all routes, in order
	tables   *Tables
	metrics  *observe.Metrics
	problems config.Problems
	reported map[string]bool // problems that several may have

	consumers *identity.Directory
	states    *policy.Generation
	compiled  map[compiledPolicy]policy.Policy
	links     map[string][]link // of routes with policies of their own, by name
}

func (b *compiler) problem(path, format string, args ...any) {
	b.problems = append(b.problems, b.config.Problem(path, format, args...))
}

func join(parts ...string) string {
	return strings.Trim(strings.Join(parts, "."), ".")
}

func (b *compiler) site(name string, l *config.Listener, bound map[string]*boundRoute, tables map[string]*route.Table) {
	names := b.names
	if len(l.Routes) > 0 {
		names = slices.Sorted(slices.Values(l.Routes))
	}
	s := &site{
		generation: b.tables.Generation,
		trusted:    b.config.TrustedProxies,
		add:        l.Forward,
		limits:     h1.Limits{HeadBytes: int(l.Limits.HeaderBytes), Fields: l.Limits.Headers, Underscores: underscores[l.Forward.Underscores]},
		bodyBytes:  int64(l.Limits.BodyBytes), requestsMax: l.Limits.RequestsPerConnection, finishes: l.ClientGone == config.GoneFinish,
		timeoutHead: time.Duration(l.Timeouts.RequestHeader), timeoutBody: time.Duration(l.Timeouts.RequestBody),
		timeoutWrite: time.Duration(l.Timeouts.Write), timeoutIdle: time.Duration(l.Timeouts.Idle),
		seriesUnmatched: b.metrics.HTTPRoute(observe.None, observe.None),
		rules:           listener.RulesOf(name, l, b.metrics),
	}
	if s.open = poll.Adopt; l.IO == config.IONetpoll {
		s.open = poll.New
	}
	protocols := []string{"h2", "http/1.1"}
	if s.http2 = http2Limits(l); s.http2.Streams == 0 {
		protocols = protocols[1:]
	}
	serverTLS, problems := tlsconfig.Server(l.TLS, protocols...)
	for _, p := range problems {
		b.problem(join("listeners", name, "tls", p.Field), "%s", p.Message)
	}
	s.tls, s.certificates = serverTLS, namesOf(serverTLS)
	key := strings.Join(names, "\x00")
	rules := make([]route.Rule, 0, len(names))
	for _, n := range names {
		pause.Moment()
		if r := b.config.Routes[n]; r != nil { // a dangling name is a problem that config.Parse has reported
			rules = append(rules, rule(n, r))
			s.bound = append(s.bound, bound[n])
		}
	}
	table := tables[key]
	if table == nil {
		var problems []route.Problem
		table, problems = route.Compile(rules)
		for _, p := range problems {
			path := join("routes", p.Rule, "match", p.Field)
			if !b.reported[path+p.Message] { // two listeners may both have an ambiguous pair
				b.problem(path, "%s", p.Message)
				b.reported[path+p.Message] = true
			}
		}
		tables[key] = table
	}
	s.routes = table
	b.chains(name, l, s)
	b.tables.sites[name] = s
}

var underscores = map[string]h1.Underscores{"drop": h1.UnderscoresDrop, "refuse": h1.UnderscoresRefuse, "allow": h1.UnderscoresAllow} // else safe

func rule(name string, r *config.Route) route.Rule {
	return route.Rule{Name: name, Hosts: r.Match.Hosts, Paths: r.Match.Paths, Methods: r.Match.Methods, Headers: r.Match.Headers, Query: r.Match.Query}
}

func (b *compiler) route(name string, r *config.Route) *boundRoute {
	bound := &boundRoute{name: name, timeout: time.Duration(r.Timeout), series: b.metrics.HTTPRoute(name, observe.None)}
	add := func(service string, weight float64) {
		target := b.tables.targets[service]
		if target == nil || weight <= 0 {
			return
		}
		bound.weight += weight
		s := share{target: target, upTo: bound.weight, retries: target.Retries, series: b.metrics.HTTPRoute(name, service)}
		if r.Retry != nil {
			s.retries = r.Retry.Attempts
		}
		bound.shares = append(bound.shares, s)
	}
	switch {
	case r.Service.Name != "":
		add(r.Service.Name, 1)
	case len(r.Split) > 0:
		for _, service := range slices.Sorted(maps.Keys(r.Split)) {
			add(service, r.Split[service].Value)
		}
	case r.Redirect != nil:
		to, err := route.ParseTemplate(r.Redirect.To, append(rule(name, r).Captures(), "host", "path", "query", "scheme"))
		if err != nil {
			b.problem(join("routes", name, "redirect", "to"), "%v", err)
		}
		bound.redirect = &redirect{status: r.Redirect.Status, to: to, keepQuery: !strings.Contains(r.Redirect.To, "?")}
		if bound.redirect.path = strings.HasPrefix(r.Redirect.To, "/") && !strings.HasPrefix(r.Redirect.To, "//"); bound.redirect.path {
			b.settles(join("routes", name, "redirect", "to"), r.Redirect.To, to)
		}
	case r.Respond != nil:
		bound.respond = b.respond(name, r.Respond)
	}
	if w := r.Rewrite; w != nil {
		bound.rewrite = &rewrite{host: w.Host}
		if w.StripPrefix != "" { // in the form that it is compared in
			prefix, _, err := route.Normalize(nil, []byte(w.StripPrefix))
			if err != nil {
				b.problem(join("routes", name, "rewrite", "strip_prefix"), "%v", err)
			}
			bound.rewrite.stripPrefix = strings.TrimSuffix(string(prefix), "/")
		}
		if w.Path != "" {
			path, err := route.ParseTemplate(w.Path, append(rule(name, r).Captures(), "host", "path", "query"))
			if err != nil {
				b.problem(join("routes", name, "rewrite", "path"), "%v", err)
			}
			if strings.Contains(w.Path, "#") {
				b.problem(join("routes", name, "rewrite", "path"), "%q has a fragment, which no server is sent (accepted: a path, with a query or without)", w.Path)
			}
			b.settles(join("routes", name, "rewrite", "path"), w.Path, path)
			bound.rewrite.path, bound.rewrite.query = &path, strings.Contains(w.Path, "?")
		}
	}
	return bound
}

// settles reports a template of a path that no capture can make one of.
func (b *compiler) settles(at, text string, t route.Template) {
	if _, f := settlePath(t.Append(nil, func(string) []byte { return []byte("x") })); f != nil {
		b.problem(at, "%q: %v (accepted: a path, with a query or without)", text, f.Cause)
	}
}

func (b *compiler) respond(name string, r *config.Respond) *respond {
	out := &respond{status: r.Status, body: []byte(r.Body)}
	typed := false
	for _, field := range slices.Sorted(maps.Keys(r.Headers)) {
		if !h1.ValidName(field) || !h1.ValidValue(r.Headers[field]) {
			b.problem(join("routes", name, "respond", "headers", field), "not a header field that can be sent")
		}
		out.fields = h1.AppendField(out.fields, field, r.Headers[field])
		typed = typed || strings.EqualFold(field, "Content-Type")
	}
	if !typed && len(out.body) > 0 {
		out.fields = append(out.fields, "Content-Type: text/plain; charset=utf-8\r\n"...)
	}
	return out
}

// choose picks a service by weight.
func (r *boundRoute) choose() *share {
	if len(r.shares) == 1 {
		return &r.shares[0]
	}
	at := rand.Float64() * r.weight
	for i := range r.shares {
		if at < r.shares[i].upTo {
			return &r.shares[i]
		}
	}
	return &r.shares[len(r.shares)-1]
}

// target says in words where a route leads, for status pages and explanations.
func (r *boundRoute) target() string {
	switch {
	case r.respond != nil:
		return "respond " + strconv.Itoa(r.respond.status)
	case r.redirect != nil:
		return "redirect " + strconv.Itoa(r.redirect.status)
	case len(r.shares) == 1:
		return "service " + r.shares[0].target.Name
	}
	var parts []string
	before := 0.0
	for _, s := range r.shares {
		parts = append(parts, fmt.Sprintf("%s %.4g%%", s.target.Name, 100*(s.upTo-before)/r.weight))
		before = s.upTo
	}
	return "split " + strings.Join(parts, ", ")
}

// TLS gives the TLS configuration of a listener, nil for plain text.
func (t *Tables) TLS(listener string) *tls.Config {
	if s := t.sites[listener]; s != nil {
		return s.tls
	}
	return nil
}
