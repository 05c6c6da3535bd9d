package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// checker judges what one value alone cannot tell: names that refer to each other, keys that exclude each other.
type checker struct {
	c        *Config
	problems Problems
}

// check gives the problems of a decoded configuration. It runs on one that has problems already, so that all are told
// at once; what the decoder refused is absent or zero here and must not be reported a second time.
func (c *Config) check() Problems {
	k := &checker{c: c}
	k.listeners()
	for _, name := range sorted(c.Services) {
		pause.Moment()
		k.service(join("services", name), c.Services[name])
	}
	for _, name := range sorted(c.Routes) {
		pause.Moment()
		k.route(join("routes", name), c.Routes[name])
	}
	for _, name := range sorted(c.Policies) {
		k.policies(join("policies", name), c.Policies[name], true)
	}
	for _, name := range sorted(c.Databases) {
		k.database(join("databases", name), c.Databases[name])
	}
	return k.problems
}

func (k *checker) problem(path, format string, args ...any) {
	k.problems = append(k.problems, k.c.Problem(path, format, args...))
}

// node gives what was written at exactly this path; nil when nothing was.
func (c *Config) node(path string) *Node {
	if c.source == nil || c.source.root == nil {
		return nil
	}
	if n, beyond := c.source.root.descend(path); beyond == 0 {
		return n
	}
	return nil
}

// written tells whether something stands at path.
func (k *checker) written(path string) bool { return k.c.node(path) != nil }

func sorted[V any](m map[string]V) []string { return pause.Names(m) }

func (k *checker) listeners() {
	c := k.c
	if c.source != nil && len(c.source.root.items) == 0 {
		k.problem("", "is empty (%s)", minimal)
	}
	type place struct{ path, host, port string }
	var taken []place
	claim := func(path, address string) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "0" || address == "" {
			return
		}
		if a, err := netip.ParseAddr(host); err == nil {
			host = a.Unmap().String()
			if a.IsUnspecified() {
				host = ""
			}
		}
		for _, t := range taken {
			if t.port == port && (t.host == host || t.host == "" || host == "") {
				k.problem(path, "%s is taken by %s (accepted: an address of its own)", address, t.path)
				return
			}
		}
		taken = append(taken, place{path, host, port})
	}
	if c.Admin != nil {
		claim("admin.address", c.Admin.Address)
	}
	for _, name := range sorted(c.Listeners) {
		l, path := c.Listeners[name], join("listeners", name)
		claim(join(path, "address"), l.Address)
		k.listener(path, l)
	}
}

func (k *checker) listener(path string, l *Listener) {
	c := k.c
	if n := c.node(path); n == nil && c.source != nil || n != nil && n.kind != kindMapping {
		return // of the wrong type, and reported
	}
	k.belongs(path, l.Protocol, ProtocolTCP, "service", l.Service.Name != "")
	k.belongs(path, l.Protocol, ProtocolHTTP, "routes", l.Routes != nil)
	k.belongs(path, l.Protocol, ProtocolHTTP, "client_gone", l.ClientGone != GoneFinish && l.ClientGone != "")
	k.belongs(path, l.Protocol, ProtocolHTTP, "headers", l.Forward != shapeOf(reflect.TypeFor[ForwardHeaders]()).initial.Interface().(ForwardHeaders))
	k.belongs(path, l.Protocol, ProtocolHTTP, "policies", l.Policies != nil)
	k.policies(join(path, "policies"), l.Policies, false)
	k.belongs(path, l.Protocol, ProtocolMySQL, "default_database", k.written(join(path, "default_database")))
	failures := l.Limits.SignInFailures
	k.belongs(join(path, "limits"), l.Protocol, ProtocolMySQL, "sign_in_failures", (failures != RateOrNone{} || k.written(join(path, "limits.sign_in_failures"))) && failures != shapeOf(reflect.TypeFor[ListenerLimits]()).initial.Interface().(ListenerLimits).SignInFailures)
	switch l.Protocol {
	case ProtocolTCP:
		switch {
		case l.Service.Name != "":
			k.serviceName(join(path, "service"), l.Service)
		case !k.written(join(path, "service")):
			k.problem(join(path, "service"), "is missing (accepted: the service that connections are relayed to, by name or in place)")
		}
	case ProtocolHTTP:
		if l.Routes != nil && len(l.Routes) == 0 {
			k.problem(join(path, "routes"), "is empty (accepted: names of routes; without the key, all routes)")
		}
		for i, name := range l.Routes {
			if name != "" && c.Routes[name] == nil {
				at := fmt.Sprintf("%s.routes[%d]", path, i)
				k.problem(at, "no route is named %q (%s)", name, acceptedOf("routes", name, sorted(c.Routes)))
			}
		}
	case ProtocolMySQL:
		if name := l.DefaultDatabase; name != "" && c.Databases[name] == nil {
			k.problem(join(path, "default_database"), "no database is named %q (%s)", name, acceptedOf("databases", name, sorted(c.Databases)))
		}
	}
	if t := l.TLS; t != nil {
		at := join(path, "tls")
		k.pair(at, t.Cert, t.Key)
		if !k.written(at) || !k.written(join(at, "cert")) && !k.written(join(at, "key")) && len(t.Certificates) == 0 && c.node(at).kind == kindMapping {
			k.problem(at, "has no certificate (accepted: cert and key, or certificates)")
		}
	}
	if l.Limits.HeaderBytes < 1<<10 || l.Limits.HeaderBytes > 16<<20 {
		k.problem(join(path, "limits.header_bytes"), "%s is out of range (accepted: from 1KiB to 16MiB)", l.Limits.HeaderBytes)
	}
	k.http2(join(path, "limits.http2"), l)
}

// http2 checks the bounds of HTTP/2. The least windows are those that a client may use before it has seen ours (RFC 9113, 6.9.2).
func (k *checker) http2(path string, l *Listener) {
	h := l.Limits.HTTP2
	k.belongs(strings.TrimSuffix(path, ".http2"), l.Protocol, ProtocolHTTP, "http2", h != shapeOf(reflect.TypeFor[HTTP2Limits]()).initial.Interface().(HTTP2Limits))
	const least, most = 64 << 10, 1 << 30
	if h.Window < least || h.Window > most {
		k.problem(join(path, "window"), "%s is out of range (accepted: from 64KiB to 1GiB)", h.Window)
	}
	if h.ConnectionWindow < h.Window || h.ConnectionWindow > most {
		k.problem(join(path, "connection_window"), "%s is out of range (accepted: from window, %s, to 1GiB)", h.ConnectionWindow, h.Window)
	}
}

// belongs refuses a key of a listener that another protocol reads, when it says more than its default does: an export
// with all defaults must be readable.
func (k *checker) belongs(path string, protocol, to Protocol, key string, set bool) {
	if protocol == to || protocol == "" || !set {
		return
	}
	k.misplaced(join(path, key), fmt.Sprintf("does not belong to protocol %s (accepted: with protocol %s)", protocol, to))
}

// misplaced reports a key that has no business where it stands, at the key.
func (k *checker) misplaced(path, message string) {
	p := k.c.Problem(path, "%s", message)
	if n := k.c.node(path); n != nil {
		p = n.problemAtKey("%s", message)
	}
	k.problems = append(k.problems, p)
}

// acceptedOf says which names there are in a section, and which is nearest.
func acceptedOf(section, word string, names []string) string {
	if len(names) == 0 {
		return "there are no " + section
	}
	return acceptedNames(word, names)
}

// serviceName checks that a reference to a service resolves. Services written in place always do.
func (k *checker) serviceName(path string, ref ServiceRef) {
	if ref.Inline || ref.Name == "" || k.c.Services[ref.Name] != nil {
		return
	}
	hint := ""
	if checkAddress(ref.Name, false) == "" {
		hint = fmt.Sprintf("; for an endpoint in place write {endpoints: [%s]}", ref.Name)
	}
	k.problem(path, "no service is named %q (%s%s)", ref.Name, acceptedOf("services", ref.Name, k.c.serviceNames()), hint)
}

// serviceNames gives the names that the user gave, without those of services written in place.
func (c *Config) serviceNames() []string {
	return slices.DeleteFunc(sorted(c.Services), func(name string) bool { return c.source != nil && c.source.lifted[name] != nil })
}

// pair checks that a certificate has its key and a key its certificate.
func (k *checker) pair(path, cert, key string) {
	hasCert, hasKey := cert != "" || k.written(join(path, "cert")), key != "" || k.written(join(path, "key"))
	if hasCert && !hasKey {
		k.problem(join(path, "key"), "is missing (accepted: the PEM file with the key of cert)")
	}
	if hasKey && !hasCert {
		k.problem(join(path, "cert"), "is missing (accepted: the PEM file with the certificate of key)")
	}
}

func (k *checker) clientTLS(path string, t *ClientTLS) {
	if t != nil {
		k.pair(path, t.Cert, t.Key)
	}
}

func (k *checker) service(path string, s *Service) {
	real := k.c.Problem(path, "").Path // without the prefix, when it was written in place
	k.endpoints(real, s)
	if at := join(real, "balance.key"); s.Balance.Key != "client_address" && s.Balance.Key != "" && s.Balance.Algorithm != Hash && s.Balance.Algorithm != "" {
		k.problem(at, "does not belong to algorithm %s (accepted: with algorithm hash)", s.Balance.Algorithm)
	}
	if h := s.HealthCheck; h != nil {
		at := join(real, "health_check")
		k.atLeast(join(at, "interval"), h.Interval, 10*time.Millisecond)
		k.atLeast(join(at, "timeout"), h.Timeout, time.Millisecond)
		if h.Path == "" {
			for key, set := range map[string]bool{"host": h.Host != "", "status": h.Status != "200-399"} {
				if set && !k.written(join(at, "path")) && k.c.node(at) != nil && k.c.node(at).kind == kindMapping {
					k.misplaced(join(at, key), "does not belong to a check without a path (accepted: with path)")
				}
			}
		}
	}
	if o := s.Outlier; o.EjectionMax < o.Ejection {
		at := join(real, "outlier.ejection_max")
		if !k.written(at) {
			at = join(real, "outlier.ejection")
		}
		k.problem(at, "the longest ejection %s is shorter than the first, %s (accepted: ejection_max of at least ejection)", o.EjectionMax, o.Ejection)
	}
	k.clientTLS(join(real, "tls"), s.TLS)
	if s.Protocol == ServiceH2C && s.TLS != nil {
		k.misplaced(join(real, "tls"), "does not belong to protocol h2c, which is plain text (accepted: protocol h2 or grpc)")
	}
}

func (k *checker) endpoints(path string, s *Service) {
	seen := make(map[string]int, len(s.Endpoints))
	weights := 0
	for i, e := range s.Endpoints {
		weights += e.Weight
		if e.Address == "" {
			weights++ // refused already, so the weights say nothing
			continue
		}
		if first, found := seen[e.Address]; found {
			k.problem(fmt.Sprintf("%s.endpoints[%d]", path, i), "%s is there twice, first as endpoints[%d] (accepted: each address once, with a weight)", e.Address, first)
			continue
		}
		seen[e.Address] = i
	}
	if len(s.Endpoints) > 0 && weights == 0 {
		k.problem(join(path, "endpoints"), "all weights are 0, so nothing takes traffic (accepted: at least one weight of 1 or more)")
	}
}

func (k *checker) atLeast(path string, d Duration, least time.Duration) {
	if time.Duration(d) < least {
		k.problem(path, "%s is too short (accepted: at least %s)", d, least)
	}
}

func (k *checker) route(path string, r *Route) {
	if n := k.c.node(path); n != nil && n.kind != kindMapping {
		return // of the wrong type, and reported
	}
	var targets []string
	for _, t := range []struct {
		key string
		set bool
	}{{"service", r.Service.Name != ""}, {"split", r.Split != nil}, {"redirect", r.Redirect != nil}, {"respond", r.Respond != nil}} {
		if t.set || k.written(join(path, t.key)) {
			targets = append(targets, t.key)
		}
	}
	switch len(targets) {
	case 0:
		k.problem(path, "has no target (accepted: one of service, split, redirect, respond)")
	case 1:
	default:
		k.problem(path, "has the targets %s (accepted: exactly one of service, split, redirect, respond)", oneOf(targets))
	}
	if len(targets) == 1 && (targets[0] == "redirect" || targets[0] == "respond") {
		for key, set := range map[string]bool{"rewrite": r.Rewrite != nil, "retry": r.Retry != nil, "timeout": r.Timeout != 0} {
			if set {
				k.misplaced(join(path, key), fmt.Sprintf("does not belong to a route with %s (accepted: with service or split)", targets[0]))
			}
		}
	}
	k.serviceName(join(path, "service"), r.Service)
	k.unproxied(join(path, "service"), r.Service)
	k.split(join(path, "split"), r.Split)
	k.policies(join(path, "policies"), r.Policies, false)
	if r.Rewrite != nil && r.Rewrite.Path != "" && r.Rewrite.StripPrefix != "" {
		k.problem(join(path, "rewrite"), "has path and strip_prefix (accepted: one of them)")
	}
}

// unproxied refuses a route to a service whose connections each belong to one client.
func (k *checker) unproxied(path string, ref ServiceRef) {
	if s := k.c.Services[ref.Name]; s != nil && s.ProxyProtocol.On() {
		k.problem(path, "a connection of the service tells one client's address (proxy_protocol), but requests of many share it (accepted: a service without proxy_protocol; X-Forwarded-For tells the address)")
	}
}

func (k *checker) split(path string, split map[string]Weight) {
	if split == nil {
		return
	}
	if len(split) == 0 {
		k.problem(path, "is empty (accepted: a mapping from services to shares)")
		return
	}
	percents, parts, sum, sound := 0, 0, 0.0, true
	for _, name := range sorted(split) {
		at := join(path, name)
		k.serviceName(at, ServiceRef{Name: name})
		k.unproxied(at, ServiceRef{Name: name})
		w := split[name]
		sum += w.Value
		switch {
		case w.Percent:
			percents++
		case w.Value > 0:
			parts++
		default:
			sound = false
			// A share that was refused is 0 here as well.
			if n := k.c.node(at); n == nil || n.kind == kindScalar && strings.Trim(n.text, "0.") == "" {
				k.problem(at, "0 parts are no share (accepted: more than 0 parts, or a percentage)")
			}
		}
	}
	switch {
	case percents > 0 && parts > 0:
		k.problem(path, "mixes percentages and parts (accepted: all in percent, or all in parts)")
	case sound && percents > 0 && math.Abs(sum-100) > 1e-6:
		k.problem(path, "the percentages add up to %s (accepted: 100%%)", Percent(math.Round(sum*1e6)/1e6))
	}
}

func (k *checker) database(path string, d *Database) {
	if n := k.c.node(path); n != nil && n.kind != kindMapping {
		return // of the wrong type, and reported
	}
	if len(d.Shards) > 1 {
		k.problem(join(path, "shards"), "has %d shards (accepted: exactly one, which means that the database is not sharded)", len(d.Shards))
	}
	for _, name := range sorted(d.Shards) {
		k.group(join(join(path, "shards"), name), d.Shards[name])
	}
	k.atLeast(join(path, "check_interval"), d.CheckInterval, 10*time.Millisecond)
	k.clientTLS(join(path, "tls"), d.TLS)
	if p := &d.Pool; p.MaxConnections > 0 && p.MinIdle > p.MaxConnections {
		k.problem(join(path, "pool.min_idle"), "%d is more than max_connections, which is %d (accepted: at most as many)", p.MinIdle, p.MaxConnections)
	}
	if d.ProxyProtocol.On() && d.Pool.Share != "session" {
		k.problem(join(path, "proxy_protocol"), "a connection tells one client's address, but with pool.share: %s it serves many (accepted: with pool.share: session)", d.Pool.Share)
	}
	if d.ProxyProtocol.On() && d.Pool.MinIdle > 0 {
		k.problem(join(path, "pool.min_idle"), "a connection with proxy_protocol is one client's, and cannot be opened before it comes (accepted: 0)")
	}
}

// group judges the instances of a shard.
func (k *checker) group(path string, s *Shard) {
	if s == nil {
		return
	}
	for i, address := range s.Replicas {
		at := fmt.Sprintf("%s.replicas[%d]", path, i)
		switch first := slices.Index(s.Replicas, address); {
		case address == s.Primary:
			k.problem(at, "%s is the primary (accepted: the other instances of its group)", address)
		case first < i:
			k.problem(at, "%s is there twice, first as replicas[%d] (accepted: each instance once)", address, first)
		}
	}
}
