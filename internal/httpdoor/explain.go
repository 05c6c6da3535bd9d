package httpdoor

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Question is a request that Explain is asked about.
type Question struct {
	Listener string // "" chooses the first that has the Port and serves http (or https, when Secure)
	Secure   bool
	Port     string // of the URL; "" is any
	Method   string
	Host     string
	Path     string // as a client would send it
	Query    string
	HasQuery bool
	Headers  [][2]string
}

// Explanation is what would happen to a request, for people.
type Explanation struct {
	Listener  string              `json:"listener"`
	Route     string              `json:"route"` // "" when none matches
	Target    string              `json:"target,omitempty"`
	Forwarded string              `json:"forwarded,omitempty"` // path and query as the endpoint would see them
	Policies  []ExplainedPolicy   `json:"policies,omitempty"`  // in the order in which they are asked
	Preflight bool                `json:"preflight,omitempty"` // a CORS preflight, answered for the route of the method it asks for
	Services  []ExplainedService  `json:"services,omitempty"`
	Allow     string              `json:"allow,omitempty"` // for 405
	Problem   string              `json:"problem,omitempty"`
	Captures  map[string]string   `json:"captures,omitempty"`
	Choice    route.Explanation   `json:"-"`
	Why       []ExplainedDecision `json:"candidates"`
}

// ExplainedService is a service that may get the request.
type ExplainedService struct {
	Name      string   `json:"name"`
	Share     float64  `json:"share"` // of 1
	Balance   string   `json:"balance"`
	Endpoints []string `json:"endpoints"`
	Endpoint  string   `json:"endpoint,omitempty"` // the one that a gateway without any load or failure would choose first
}

// ExplainedPolicy is one policy of the chain.
type ExplainedPolicy struct {
	Kind      string   `json:"kind"`
	Stage     string   `json:"stage"`
	Origin    string   `json:"origin"` // "listener web", "route users", "list edge on route users"
	At        string   `json:"at"`     // file:line
	Settings  string   `json:"settings"`
	InsteadOf []string `json:"instead_of,omitempty"` // policies of the same kind that it takes the place of
}

func explainPolicies(links []link) []ExplainedPolicy {
	var all []ExplainedPolicy
	for _, l := range links {
		all = append(all, ExplainedPolicy{Kind: kinds[l.at].kind.Name, Stage: kinds[l.at].stage.String(), Origin: l.origin(),
			At: l.entry.Settings.Position(), Settings: l.entry.Settings.String(), InsteadOf: l.over})
	}
	return all
}

// ExplainedDecision is one candidate and why it won or lost.
type ExplainedDecision struct {
	Route   string `json:"route"`
	Pattern string `json:"pattern"`
	Won     bool   `json:"won"`
	Why     string `json:"why"`
}

// Explain tells what a gateway with these tables would do. It asks nobody and changes nothing.
func (t *Tables) Explain(q Question, c *config.Config) (*Explanation, error) {
	name, err := t.listener(q, c)
	if err != nil {
		return nil, err
	}
	s := t.sites[name]
	var x exchange
	x.site = s
	x.conn = &conn{secure: q.Secure}
	head := fmt.Appendf(nil, "%s %s", q.Method, q.Path)
	if q.HasQuery {
		head = fmt.Appendf(head, "?%s", q.Query)
	}
	head = fmt.Appendf(head, " HTTP/1.1\r\nHost: %s\r\n", q.Host)
	for _, h := range q.Headers {
		head = fmt.Appendf(head, "%s: %s\r\n", h[0], h[1])
	}
	head = append(head, "\r\n"...)
	e := &Explanation{Listener: name, Why: []ExplainedDecision{}}
	n, err := x.request.Parse(head, s.limits)
	switch {
	case err != nil:
		e.Problem = fmt.Sprintf("the request would be refused with %d: %v", statusOf(headFault(err).Kind), err)
		return e, nil
	case n != len(head):
		e.Problem = "the request would be refused with 400: the head ends early"
		return e, nil
	}
	if x.path, _, err = route.Normalize(nil, x.request.Path); err != nil {
		e.Problem = fmt.Sprintf("the request would be refused with 400: %v", err)
		return e, nil
	}
	match := route.Request{Method: x.request.Method, Host: x.request.Host, Path: x.path, Query: x.request.Query, Header: &x.request}
	verdict := s.routes.Match(&match, &x.captures)
	e.Choice = s.routes.Explain(&match)
	e.Captures = e.Choice.Captures
	for _, candidate := range e.Choice.Candidates {
		e.Why = append(e.Why, ExplainedDecision{candidate.Name, candidate.Pattern, candidate.Won, candidate.Why})
	}
	if asked := policy.Preflighted(&x.request); asked != nil && s.policed {
		x.match = match
		x.match.Method = asked
		if v := s.routes.Match(&x.match, &x.captures); v.Rule >= 0 && s.chains[v.Rule] != nil && s.chains[v.Rule].preflight {
			c := s.chains[v.Rule]
			e.Route, e.Preflight = s.bound[v.Rule].name, true
			e.Target, e.Policies = "the preflight is answered by the gateway", explainPolicies(c.links[:c.early])
			return e, nil
		}
		s.routes.Match(&match, &x.captures)
	}
	if all := route.Readings(x.path); all != 0 && verdict.Rule >= 0 && len(s.bound[verdict.Rule].shares) > 0 {
		switch other, read := s.readElsewhere(match, verdict.Rule, all); {
		case other < 0:
		case read == nil:
			e.Problem = "the request would be refused with 400: a server that decodes its path or drops parameters finds a dot segment there"
			return e, nil
		default:
			e.Problem = fmt.Sprintf("the request would be refused with 400: a server that reads its path as %s would be where route %s leads, not route %s", read, s.bound[other].name, s.bound[verdict.Rule].name)
			return e, nil
		}
	}
	if verdict.Rule < 0 {
		if s.chain != nil {
			e.Policies = explainPolicies(s.chain.links[:s.chain.early])
		}
		e.Problem, e.Allow = "no route matches: 404", verdict.Allow
		if verdict.NotAllowed {
			e.Problem = "a route matches, but not with this method: 405"
		}
		return e, nil
	}
	x.route = s.bound[verdict.Rule]
	e.Route, e.Target = x.route.name, x.route.target()
	if s.policed && s.chains[verdict.Rule] != nil {
		e.Policies = explainPolicies(s.chains[verdict.Rule].links)
	}
	if len(x.route.shares) > 0 {
		if f := x.appendTarget(); f != nil {
			e.Problem = "the request would be refused with 400: " + f.Public
			return e, nil
		}
		e.Forwarded = string(x.target)
	} else if r := x.route.redirect; r != nil {
		to, f := x.appendLocation(nil, r)
		if f != nil {
			e.Problem = "the request would be refused with 400: " + f.Public
			return e, nil
		}
		e.Target += " to " + string(to)
	}
	before := 0.0
	for i := range x.route.shares {
		share := &x.route.shares[i]
		service := ExplainedService{Name: share.target.Name, Share: (share.upTo - before) / x.route.weight}
		before = share.upTo
		if from := c.Services[service.Name]; from != nil {
			service.Balance = string(from.Balance.Algorithm)
			for _, endpoint := range from.Endpoints {
				service.Endpoints = append(service.Endpoints, endpoint.Address)
			}
		}
		pick := upstream.Request{}
		if share.target.HashKey != "" {
			pick.Hash, pick.Hashed = x.hash(share.target.Key), true
		}
		if lease, err := share.target.Set.Pick(pick); err == nil {
			service.Endpoint = lease.Endpoint.Address
			lease.Done(upstream.Outcome{Ignored: true})
		}
		e.Services = append(e.Services, service)
	}
	return e, nil
}

// listener chooses the listener that a question is about.
func (t *Tables) listener(q Question, c *config.Config) (string, error) {
	names := slices.Sorted(maps.Keys(t.sites))
	there := make([]string, len(names))
	for i, name := range names {
		there[i] = fmt.Sprintf("%s at %s (%s)", name, c.Listeners[name].Address, t.scheme(name))
	}
	if len(names) == 0 {
		return "", fmt.Errorf("the configuration has no http listener")
	}
	if q.Listener != "" {
		if t.sites[q.Listener] == nil {
			return "", fmt.Errorf("no http listener is named %q (there are: %s)", q.Listener, strings.Join(there, ", "))
		}
		return q.Listener, nil
	}
	other := ""
	for _, name := range names {
		if _, port, _ := net.SplitHostPort(c.Listeners[name].Address); q.Port != "" && port != q.Port {
			continue
		}
		if (t.sites[name].tls != nil) == q.Secure {
			return name, nil
		}
		other = name
	}
	switch {
	case other == "":
		return "", fmt.Errorf("no http listener has port %s (there are: %s); ask for one of these, or name one with --listener", q.Port, strings.Join(there, ", "))
	case q.Port != "":
		return "", fmt.Errorf("listener %s at port %s serves %s (there are: %s)", other, q.Port, t.scheme(other), strings.Join(there, ", "))
	}
	return names[0], nil // a load balancer may end TLS before the gateway
}

// scheme is that of a listener's URLs.
func (t *Tables) scheme(listener string) string {
	if t.sites[listener].tls != nil {
		return "https"
	}
	return "http"
}

// String gives the explanation as lines of text.
func (e *Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listener   %s\n", e.Listener)
	switch {
	case e.Route != "":
		fmt.Fprintf(&b, "route      %s\n", e.Route)
	case e.Allow != "":
		fmt.Fprintf(&b, "route      none: %s (Allow: %s)\n", e.Problem, e.Allow)
	default:
		fmt.Fprintf(&b, "route      none: %s\n", e.Problem)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Captures)) {
		fmt.Fprintf(&b, "capture    {%s} = %s\n", name, e.Captures[name])
	}
	for _, p := range e.Policies {
		fmt.Fprintf(&b, "policy     %-9s %-12s %s (%s): %s\n", p.Stage, p.Kind, p.Origin, p.At, p.Settings)
		for _, other := range p.InsteadOf {
			fmt.Fprintf(&b, "           %-9s %-12s goes before the one of %s\n", "", "", other)
		}
	}
	if e.Target != "" {
		fmt.Fprintf(&b, "target     %s\n", e.Target)
	}
	if e.Forwarded != "" {
		fmt.Fprintf(&b, "forwarded  %s\n", e.Forwarded)
	}
	for _, s := range e.Services {
		fmt.Fprintf(&b, "service    %s (%.4g%%, %s)\n", s.Name, 100*s.Share, s.Balance)
		for _, address := range s.Endpoints {
			mark := ""
			if address == s.Endpoint {
				mark = "  <- first choice of an idle, healthy gateway"
			}
			fmt.Fprintf(&b, "endpoint   %s%s\n", address, mark)
		}
	}
	if len(e.Why) > 0 {
		b.WriteString("\nwhy, in the order of precedence:\n")
	}
	for _, d := range e.Why {
		mark := " "
		if d.Won {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-20s %-40s %s\n", mark, d.Route, d.Pattern, d.Why)
	}
	if len(e.Why) == 0 {
		for _, other := range e.Choice.Elsewhere {
			fmt.Fprintf(&b, "  %-20s %-40s %s\n", other.Name, other.Pattern, other.Why)
		}
	}
	return b.String()
}
