// Package headers sets, adds and removes header fields: of the request on its way to the endpoint, and of the response on
// its way to the client. Values may name a part of the request: {path.id}, {consumer.name}, {request.id}, {client.address}.
//
// Responses that the gateway makes itself get the fields as well, errors included; but an error document keeps its own
// Cache-Control, Content-Type and the like. A value that comes out empty leaves its field out, and a client's copy does
// not stand in for it.
//
// It refuses to touch what frames a message and what the gateway writes itself (X-Forwarded-For, X-Request-Id, Date, ...).
package headers

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
)

// Kind is the policy headers. Several may apply: a listener's, then the route's, whose word is the last.
var Kind = policy.Define("headers", compile).Multiple()

// Settings of the policy.
type Settings struct {
	Request  Edit `yaml:"request" doc:"Changes to the request, before it is forwarded."`
	Response Edit `yaml:"response" doc:"Changes to the response, whoever made it."`
}

// Edit is what happens to one head: fields are removed, then set, then added.
type Edit struct {
	Set    map[string]string `yaml:"set" keys:"header" form:"header_value" doc:"Fields in place of all others of their names."`
	Add    map[string]string `yaml:"add" keys:"header" form:"header_value" doc:"Fields beside others of their names."`
	Remove []string          `yaml:"remove" doc:"Names of fields to take away; X-Internal-* takes all that begin so."`
}

type headers struct{ request, response edit }

type edit struct {
	removed *policy.Names // also the names that are set; nil: none
	ready   string        // lines without anything to fill in
	filled  []line
}

// line is a field whose value is filled in for each request.
type line struct {
	begin string // "X-User: "
	value route.Template
}

func compile(s *Settings, e *policy.Env) policy.Policy {
	h := &headers{
		request:  compileEdit(&s.Request, e, "request", true),
		response: compileEdit(&s.Response, e, "response", false),
	}
	if len(s.Request.Set)+len(s.Request.Add)+len(s.Request.Remove)+len(s.Response.Set)+len(s.Response.Add)+len(s.Response.Remove) == 0 {
		e.Problem("", "changes nothing (accepted: request or response with set, add or remove)")
	}
	return h
}

func compileEdit(s *Edit, e *policy.Env, side string, toEndpoint bool) edit {
	var out edit
	check := func(field, name string) {
		problem := policy.Writable(name, toEndpoint)
		if stem, star := strings.CutSuffix(name, "*"); star && (stem == "" || !strings.HasPrefix(field, "remove")) {
			problem = "is no header name"
		}
		if problem != "" {
			e.Problem(side+"."+field, "%q %s", name, problem)
		}
	}
	removed := slices.Clone(s.Remove)
	for i, name := range s.Remove {
		check("remove["+strconv.Itoa(i)+"]", name) // a star is a token character, so X-* passes as a name
	}
	fields := func(key string, values map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			at := key + "." + name
			check(at, name)
			t := e.Template(side+"."+at, values[name])
			if text, static := t.Static(); static {
				out.ready += string(h1.AppendField(nil, name, text))
				continue
			}
			out.filled = append(out.filled, line{name + ": ", t})
		}
	}
	for name := range s.Set {
		removed = append(removed, name)
	}
	fields("set", s.Set)
	fields("add", s.Add)
	if len(removed) > 0 {
		out.removed = policy.NewNames(removed...)
	}
	return out
}

// Request leaves the edits.
func (h *headers) Request(x *policy.Exchange) policy.Outcome {
	h.request.apply(x, &x.ToEndpoint)
	h.response.apply(x, &x.ToClient)
	return policy.Continue
}

// Response leaves the edits for a response that others make.
func (h *headers) Response(x *policy.Exchange) { h.response.apply(x, &x.ToClient) }

var _ policy.Responder = (*headers)(nil)

func (e *edit) apply(x *policy.Exchange, to *policy.Edits) {
	if e.removed != nil {
		to.Remove(e.removed)
	}
	if e.ready != "" {
		to.AddLines(e.ready)
	}
	for i := range e.filled {
		l := &e.filled[i]
		to.Build(l.begin, func(dst []byte) []byte { return l.value.Append(dst, x.Value) })
	}
}
