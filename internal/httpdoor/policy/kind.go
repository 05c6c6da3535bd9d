package policy

import (
	"strings"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/identity"
)

// Kind is a kind of policy: what stands in a list of policies under Name. Define makes one.
type Kind struct {
	Name     string
	Settings any // a zero value of the settings, for the JSON Schema
	// Several says that more than one may apply to a request: all that are written on the listener, in named lists and on the
	// route. Otherwise the nearest one does: in place before a named list, the route's before the listener's.
	Several bool

	compile func(settings *config.Node, e *Env) Policy
	check   func(settings *config.Node) config.Problems
}

// Define makes a Kind whose settings are a struct S, with the tags that package config reads. make compiles settings that
// were decoded without a problem; what it has against them it tells e.Problem, all of it, and its result is dropped then.
func Define[S any](name string, make func(s *S, e *Env) Policy) Kind {
	var zero S
	return Kind{
		Name: name, Settings: zero,
		check: func(n *config.Node) config.Problems { return n.Decode(new(S)) },
		compile: func(n *config.Node, e *Env) Policy {
			s := new(S)
			if problems := n.Decode(s); len(problems) > 0 {
				e.Problems = append(e.Problems, problems...)
				return nil
			}
			return make(s, e)
		},
	}
}

// Check gives the problems of settings as far as they can be seen without compiling: for a list that nobody uses.
func (k Kind) Check(settings *config.Node) config.Problems { return k.check(settings) }

// Multiple is k with Several.
func (k Kind) Multiple() Kind {
	k.Several = true
	return k
}

// New compiles a policy from its settings as they were written. It is nil when there are problems, which are in e then.
func (k Kind) New(settings *config.Node, e *Env) Policy {
	before := len(e.Problems)
	e.kind, e.settings = k.Name, settings
	p := k.compile(settings, e)
	if len(e.Problems) > before {
		return nil
	}
	return p
}

// Env is what a policy is compiled in.
type Env struct {
	Config    *config.Config
	Consumers *identity.Directory
	States    *Generation
	// Place is where the policy is written: "listeners.web", "routes.users", "policies.edge"; with "#2" for the second of its
	// kind there. It stays the same when other policies come and go, so it serves as the key of a state.
	Place    string
	Captures []string // of the route's paths; nil on a listener. Read by Template
	Problems config.Problems
	// PerRoute is set when something was compiled that depends on Captures, so that another route needs its own.
	PerRoute bool

	kind     string
	settings *config.Node
}

// Problem reports what is wrong with a setting, at its place in the configuration. field is the setting's path within the
// settings (origins[1], request.set.X-A); "" is the policy as a whole.
func (e *Env) Problem(field, format string, args ...any) {
	path := e.settings.Path()
	if field != "" {
		path += "." + field
	}
	e.Problems = append(e.Problems, e.Config.Problem(path, format, args...))
}

// Template parses a text with places to fill in from a request: {client.address}, {consumer.name}, {request.id},
// {client.certificate.subject} and its like (certificateNames), and {path.NAME} for what the route captures. A mistake is reported at field.
func (e *Env) Template(field, text string) route.Template {
	known := append([]string{"client.address", "consumer.name", "request.id"}, certificateNames...)
	for _, name := range e.Captures {
		known = append(known, "path."+name)
	}
	t, err := route.ParseTemplate(text, known)
	if err != nil {
		e.Problem(field, "%v", err)
	}
	for _, name := range t.Names() {
		e.PerRoute = e.PerRoute || strings.HasPrefix(name, "path.")
	}
	e.PerRoute = e.PerRoute || err != nil
	return t
}
