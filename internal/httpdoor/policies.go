package httpdoor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/apikey"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/cors"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/headers"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/ratelimit"
)

// kinds is the list of all policies. The stage decides when one runs; within a stage, the order of this list does.
// Deleting a line and the package removes the feature.
var kinds = []struct {
	stage policy.Stage
	kind  policy.Kind
}{
	{policy.Preflight, cors.Kind},  // a preflight has no credentials, and a page may read refusals only with CORS fields
	{policy.Identify, apikey.Kind}, // before everything that depends on who it is
	{policy.Meter, ratelimit.Kind}, // after identification: a limit may count by consumer
	{policy.Shape, headers.Kind},   // last: its values may name the consumer, and what it says of a response stands
}

// PolicyKinds gives the kinds of policies for the JSON Schema.
func PolicyKinds() []config.PolicyKind {
	all := make([]config.PolicyKind, len(kinds))
	for i, k := range kinds {
		all[i] = config.PolicyKind{Name: k.kind.Name, Settings: k.kind.Settings}
	}
	return all
}

func kindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.kind.Name
	}
	slices.Sort(names)
	return names
}

// chain is the compiled policies of one route on one listener, in their order.
type chain struct {
	links     []link // for explanations; policies[i] is links[i].policy
	policies  []policy.Policy
	early     int  // that many belong to Screen and Preflight
	preflight bool // one of them belongs to Preflight
}

// link is a policy in a chain, and where it comes from.
type link struct {
	at     int // in kinds
	policy policy.Policy
	owner  string // "listener web" or "route users"
	list   string // the named list that it stands in; "" in place
	place  string // of where it is written: listeners.web, policies.edge
	entry  config.Policy
	over   []string // what it took the place of
}

func (l *link) origin() string {
	if l.list != "" {
		return "list " + l.list + " on " + l.owner
	}
	return l.owner
}

// newChain puts links in the order of their stages; nil when there are none.
func newChain(links []link) *chain {
	if len(links) == 0 {
		return nil
	}
	slices.SortStableFunc(links, func(a, b link) int { return a.at - b.at }) // kinds is in the order of the stages
	c := &chain{links: links, policies: make([]policy.Policy, len(links))}
	for i, l := range links {
		c.policies[i] = l.policy
		if stage := kinds[l.at].stage; stage <= policy.Preflight {
			c.early = i + 1
			c.preflight = c.preflight || stage == policy.Preflight
		}
	}
	return c
}

// over gives a listener's links and a route's together. Of a kind that may stand once, the route's one replaces the listener's.
func over(listener, own []link) []link {
	joined := make([]link, 0, len(listener)+len(own))
	own = slices.Clone(own)
	for _, l := range listener {
		replaced := slices.IndexFunc(own, func(o link) bool { return o.at == l.at })
		if kinds[l.at].kind.Several || replaced < 0 {
			joined = append(joined, l)
			continue
		}
		o := &own[replaced]
		o.over = append(slices.Clone(o.over), l.origin()+" ("+l.entry.Settings.Position()+")")
	}
	return append(joined, own...)
}

// namedLists reports what can be said of the named lists by themselves, so that a mistake in one that nobody uses is found.
func (b *compiler) namedLists() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Policies)) {
		for _, p := range b.config.Policies[name] {
			if at := b.kindOf(p); at >= 0 {
				b.report(kinds[at].kind.Check(p.Settings))
			}
		}
	}
}

// report adds problems, each once: a list that many routes use is compiled for each of them.
func (b *compiler) report(problems config.Problems) {
	for _, p := range problems {
		if key := p.String(); !b.reported[key] {
			b.reported[key] = true
			b.problems = append(b.problems, p)
		}
	}
}

// kindOf finds the kind of an entry; -1, and a problem, when there is none.
func (b *compiler) kindOf(p config.Policy) int {
	if p.Settings == nil { // a name, or built by code
		return -1
	}
	for i, k := range kinds {
		if k.kind.Name == p.Kind {
			return i
		}
	}
	message := fmt.Sprintf("no kind of policy is named %q", p.Kind)
	if near := config.Nearest(p.Kind, kindNames()); near != "" {
		b.report(config.Problems{p.Settings.KeyProblem("%s (accepted: %s; nearest: %s)", message, strings.Join(kindNames(), ", "), near)})
	} else {
		b.report(config.Problems{p.Settings.KeyProblem("%s (accepted: %s)", message, strings.Join(kindNames(), ", "))})
	}
	return -1
}

// linksOf compiles the policies of a listener or a route. captures are the route's; nil for a listener.
func (b *compiler) linksOf(owner, path string, list []config.Policy, captures []string) []link {
	var links []link
	for i, p := range list {
		if p.List == "" {
			if l := b.link(owner, "", path, p, captures, &links); l != nil {
				links = append(links, *l)
			}
			continue
		}
		if slices.ContainsFunc(list[:i], func(q config.Policy) bool { return q.List == p.List }) {
			b.problem(fmt.Sprintf("%s.policies[%d]", path, i), "the list %q is there twice (accepted: once)", p.List)
			continue
		}
		for _, inner := range b.config.Policies[p.List] { // a dangling name is a problem that config.Parse has reported
			if l := b.link(owner, p.List, "policies."+p.List, inner, captures, &links); l != nil {
				links = append(links, *l)
			}
		}
	}
	return links
}

// link compiles one policy; nil when there is a problem, or when another one takes its place. It may take the place of one
// in links.
func (b *compiler) link(owner, list, place string, p config.Policy, captures []string, links *[]link) *link {
	at := b.kindOf(p)
	if at < 0 {
		return nil
	}
	l := &link{at: at, owner: owner, list: list, place: place, entry: p}
	same := 1
	for i, other := range *links {
		switch {
		case other.at != at:
		case kinds[at].kind.Several:
			if other.place == place {
				same++
			}
		case (other.list == "") == (list == ""):
			b.report(config.Problems{p.Settings.KeyProblem("%s applies once, and is there already at %s (accepted: one on a listener or a route; one in place goes before one in a named list)",
				p.Kind, other.entry.Settings.Position())})
			return nil
		case list != "": // the one in place stands
			(*links)[i].over = append((*links)[i].over, l.origin()+" ("+p.Settings.Position()+")")
			return nil
		default:
			l.over = append(l.over, other.origin()+" ("+other.entry.Settings.Position()+")")
			*links = slices.Delete(*links, i, i+1)
		}
		if l.over != nil {
			break
		}
	}
	if same > 1 {
		place = fmt.Sprintf("%s#%d", place, same)
	}
	key := compiledPolicy{p.Settings, place}
	if done, known := b.compiled[key]; known { // a named list on many routes is compiled once
		l.policy = done
		return l
	}
	e := policy.Env{Config: b.config, Consumers: b.consumers, States: b.states, Place: place, Captures: captures}
	l.policy = kinds[at].kind.New(p.Settings, &e)
	b.report(e.Problems)
	if list != "" && !e.PerRoute {
		b.compiled[key] = l.policy
	}
	return l
}

// compiledPolicy is what makes a policy of a named list the same for all who use it.
type compiledPolicy struct {
	settings *config.Node
	place    string
}

// chains compiles the policies of a listener, and those of its routes over them.
func (b *compiler) chains(name string, l *config.Listener, s *site) {
	listener := b.linksOf("listener "+name, join("listeners", name), l.Policies, nil)
	s.chain = newChain(slices.Clone(listener))
	s.policed = s.chain != nil
	chains := make([]*chain, len(s.bound))
	for i, r := range s.bound {
		chains[i] = s.chain
		if own := b.links[r.name]; len(own) > 0 {
			chains[i] = newChain(over(listener, own))
			s.policed = true
		}
	}
	if s.policed {
		s.chains = chains
	}
}

// police asks the policies of the route that was matched (rule), or, without one, the first stages of the listener's. done says
// that the request is answered, or refused with f.
func (x *exchange) police(rule int) (done bool, f *fault.Fault) {
	s := x.site
	if asked := policy.Preflighted(&x.request); asked != nil {
		if done, f = x.policePreflight(asked); done {
			return done, f
		}
	}
	if rule >= 0 {
		if c := s.chains[rule]; c != nil {
			x.beginPolicies()
			return x.askAll(c, len(c.policies))
		}
	} else if s.chain != nil {
		x.beginPolicies()
		if done, f = x.askAll(s.chain, s.chain.early); !done {
			x.respond(s.chain.policies[s.chain.early:])
		}
	}
	return done, f
}

// policePreflight answers a CORS preflight for the route that the request after it will take: OPTIONS itself may have no
// route at all. Without a policy there that answers preflights, the request is an ordinary OPTIONS.
func (x *exchange) policePreflight(asked []byte) (done bool, f *fault.Fault) {
	match := x.match
	x.match.Method = asked
	if verdict := x.site.routes.Match(&x.match, &x.captures); verdict.Rule >= 0 {
		if c := x.site.chains[verdict.Rule]; c != nil && c.preflight {
			before := x.route
			x.route = x.site.bound[verdict.Rule]
			x.beginPolicies()
			if done, f = x.askAll(c, c.early); done {
				return done, f
			}
			x.route = before
			x.policy.Reset()
			x.policing = false
		}
	}
	x.match = match
	x.site.routes.Match(&x.match, &x.captures) // for its captures
	return false, nil
}

// beginPolicies shows the request to policies.
func (x *exchange) beginPolicies() {
	p := &x.policy
	p.Reset()
	x.policing = true
	p.Head, p.Path, p.Captures = &x.request, x.path, &x.captures
	p.Client, p.RequestID, p.Listener = x.client, x.requestID, x.conn.Listener.Name
	p.Query, p.HasQuery = x.request.Query, x.request.HasQuery
	p.Now, p.Deadline = x.began, x.deadline
	if x.route != nil {
		p.Route = x.route.name
	}
	if x.conn.secure {
		p.TLS, _ = x.conn.net.(policy.Connection)
		if own := x.conn.tls.client(x.site); len(own) > 0 {
			p.Certificate = own[0]
		}
	}
}

// askAll asks the first n policies of a chain in their order, until one answers or refuses.
func (x *exchange) askAll(c *chain, n int) (done bool, f *fault.Fault) {
	p := &x.policy
	for i, one := range c.policies[:n] {
		switch one.Request(p) {
		case policy.Answered:
			x.respond(c.policies[i+1:])
			x.answer(p.Status, nil, p.Body)
			return true, nil
		case policy.Refused:
			x.respond(c.policies[i+1:])
			return true, p.Fault
		}
	}
	if p.Waited() {
		x.tick()
	}
	return false, nil
}

// respond lets policies that were not asked say what they have to say of every response.
func (x *exchange) respond(rest []policy.Policy) {
	for _, one := range rest {
		if r, ok := one.(policy.Responder); ok {
			r.Response(&x.policy)
		}
	}
}

// query is the query as policies leave it: one may take a credential out of it.
func (x *exchange) query() (query []byte, has bool) {
	if x.policing {
		return x.policy.Query, x.policy.HasQuery
	}
	return x.request.Query, x.request.HasQuery
}

// trailers are those of the request's body, without what policies keep from the endpoint: X-Consumer-Name behind the body
// would be as much of a lie as before it.
func (x *exchange) trailers() []h1.Field {
	trailers := x.body.chunks.Trailers()
	if x.body.framing == bodyStream {
		trailers = x.conn.stream.Trailers()
	}
	if x.policing && !x.policy.ToEndpoint.Empty() {
		trailers = slices.DeleteFunc(trailers, x.policy.ToEndpoint.Removes)
	}
	return trailers
}

// consumer is the name of who signed in, for the access record.
func (x *exchange) consumer() string {
	if x.policing && x.policy.Consumer != nil {
		return x.policy.Consumer.Name
	}
	return ""
}

// appendFields appends ready lines of a response of the gateway's own, with what policies leave for the client.
func (x *exchange) appendFields(dst, fields []byte) []byte {
	switch {
	case !x.policing || x.policy.ToClient.Empty():
		return append(dst, fields...)
	case x.fault != nil:
		return x.policy.ToClient.AppendToError(dst, fields)
	}
	return x.policy.ToClient.AppendTo(dst, fields)
}
