// Package cors lets pages of other sites read what is behind the gateway (Fetch standard, 3.2): it answers preflight
// requests itself, and tells browsers with every other response whether the asking page may read it.
//
// It refuses to protect: a request whose origin is not on the list is forwarded like any other, only its answer says
// nothing to the browser. Who must not write has to be kept out by authorisation.
package cors

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
)

// Kind is the policy cors.
var Kind = policy.Define("cors", compile)

// Settings of the policy. The short form is one origin.
type Settings struct {
	Origins        []string        `yaml:"origins" short:"true" required:"true" doc:"Who may ask: https://shop.example.com, ~regular expression (of the whole origin), null, or * for everybody."`
	Methods        []string        `yaml:"methods" form:"method" doc:"Methods that may be used. Empty means any that the routes have."`
	Headers        []string        `yaml:"headers" form:"header" doc:"Request headers that may be sent. Empty means any."`
	Expose         []string        `yaml:"expose" form:"header" doc:"Response headers that the page may read, beside the simple ones."`
	Credentials    bool            `yaml:"credentials" default:"false" doc:"Cookies and other credentials may be sent. Not together with origins: *."`
	MaxAge         config.Duration `yaml:"max_age" default:"10m" doc:"How long a browser may remember the answer to a preflight. 0 means not at all."`
	PrivateNetwork bool            `yaml:"private_network" default:"false" doc:"Pages of public sites may ask although the gateway has a private address."`
}

const originBytesMax = 256 // a host name has at most 253 bytes; longer origins match nothing

type cors struct {
	any      bool
	exact    map[string]bool
	patterns []*regexp.Regexp

	methods, headers string // joined; "" is any
	private          bool

	actual string // lines that follow Access-Control-Allow-Origin in an ordinary response
	asked  string // and in one to a preflight
}

// What an endpoint says of CORS is removed: two answers to one question are none, for browsers.
var (
	upstreams = policy.NewNames("Access-Control-*")
	vary      = "Vary: Origin\r\n"
	varyAsked = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
)

func compile(s *Settings, e *policy.Env) policy.Policy {
	c := &cors{exact: map[string]bool{}, methods: strings.Join(s.Methods, ", "), headers: strings.Join(s.Headers, ", "), private: s.PrivateNetwork}
	for i, text := range s.Origins {
		c.origin(text, e, "origins["+strconv.Itoa(i)+"]")
	}
	switch {
	case c.any && s.Credentials:
		e.Problem("credentials", "with origins: * any site could act as the signed-in user (accepted: origins by name, or no credentials)")
	case c.any && len(s.Origins) > 1:
		e.Problem("origins", "has * beside other origins (accepted: * alone, or origins by name)")
	}
	if s.Credentials {
		c.actual = "Access-Control-Allow-Credentials: true\r\n"
	}
	c.asked = c.actual
	if len(s.Expose) > 0 {
		c.actual += "Access-Control-Expose-Headers: " + strings.Join(s.Expose, ", ") + "\r\n"
	}
	c.asked += "Access-Control-Max-Age: " + strconv.Itoa(int(time.Duration(s.MaxAge)/time.Second)) + "\r\n"
	if c.methods != "" {
		c.asked += "Access-Control-Allow-Methods: " + c.methods + "\r\n"
	}
	if c.headers != "" {
		c.asked += "Access-Control-Allow-Headers: " + c.headers + "\r\n"
	}
	return c
}

// origin takes one entry of the list.
func (c *cors) origin(text string, e *policy.Env, field string) {
	const accepted = "accepted: https://host[:port], ~regular expression, null, or *"
	switch expression, pattern := strings.CutPrefix(text, "~"); {
	case text == "*":
		c.any = true
	case text == "null":
		c.exact[text] = true
	case pattern:
		re, err := regexp.Compile("^(?i:" + expression + ")$") // of the whole: ~^https://a[.]example would let in a.example.evil
		if err != nil || expression == "" || len(expression) > 4096 {
			e.Problem(field, "%q is no regular expression (%s)", text, accepted)
			return
		}
		c.patterns = append(c.patterns, re)
	default:
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" || !strings.EqualFold(u.Scheme+"://"+u.Host, text) || u.User != nil || strings.ContainsAny(u.Host, "*") {
			e.Problem(field, "%q is no origin (%s)", text, accepted)
			return
		}
		origin := strings.ToLower(text)
		switch { // browsers leave the scheme's own port out
		case u.Scheme == "https":
			origin = strings.TrimSuffix(origin, ":443")
		case u.Scheme == "http":
			origin = strings.TrimSuffix(origin, ":80")
		}
		c.exact[origin] = true
	}
}

// allows says whether a page of this origin may read.
func (c *cors) allows(origin []byte) bool {
	if c.any {
		return true
	}
	if len(origin) > originBytesMax {
		return false
	}
	var lower [originBytesMax]byte
	for i, b := range origin {
		if b >= 0x80 { // no browser sends that, and regular expressions fold some of it to ASCII
			return false
		}
		if 'A' <= b && b <= 'Z' {
			b |= 0x20
		}
		lower[i] = b
	}
	if c.exact[string(lower[:len(origin)])] {
		return true
	}
	for _, re := range c.patterns {
		if re.Match(origin) {
			return true
		}
	}
	return false
}

// Request answers a preflight, and leaves the fields for any other response.
func (c *cors) Request(x *policy.Exchange) policy.Outcome {
	origin := x.Head.Get(h1.KnownOrigin)
	out := &x.ToClient
	if x.Preflight() {
		c.preflight(x, origin)
		return x.Answer(204, nil)
	}
	if c.any { // the answer is the same for everybody, so caches need not tell origins apart
		out.Remove(upstreams)
		out.AddLines("Access-Control-Allow-Origin: *\r\n")
		out.AddLines(c.actual)
		return policy.Continue
	}
	// Also without an origin: a cache must not give that answer to a page of another site.
	out.AddLines(vary)
	if len(origin) == 0 {
		return policy.Continue
	}
	out.Remove(upstreams)
	if c.allows(origin) {
		out.AddBytes("Access-Control-Allow-Origin", origin)
		out.AddLines(c.actual)
	}
	return policy.Continue
}

func (c *cors) preflight(x *policy.Exchange, origin []byte) {
	out := &x.ToClient
	out.AddLines(varyAsked)
	if !c.allows(origin) {
		return // without fields the browser does not send the request
	}
	if c.any {
		out.AddLines("Access-Control-Allow-Origin: *\r\n")
	} else {
		out.AddBytes("Access-Control-Allow-Origin", origin)
	}
	out.AddLines(c.asked)
	if c.methods == "" {
		method, _ := x.Head.Lookup("Access-Control-Request-Method")
		out.AddBytes("Access-Control-Allow-Methods", method)
	}
	if asked, found := x.Head.Lookup("Access-Control-Request-Headers"); found && c.headers == "" {
		out.AddBytes("Access-Control-Allow-Headers", asked)
	}
	if private, _ := x.Head.Lookup("Access-Control-Request-Private-Network"); c.private && string(private) == "true" {
		out.AddLines("Access-Control-Allow-Private-Network: true\r\n")
	}
}
