package route

import (
	"fmt"
	"strings"
)

// Explanation is how Match decides about one request, for people.
type Explanation struct {
	Verdict    Verdict
	Method     string
	Host       string // as it is matched: without port, in lower case
	Path       string
	Captures   map[string]string // of the winner; "*" is the star
	Candidates []Candidate       // every rule whose host and path match, in order of precedence
	Elsewhere  []Candidate       // when no host and path match: rules that have the path, but on other hosts; elsewhereMax at most
}

// elsewhereMax bounds the hints for a request that matches nothing.
const elsewhereMax = 10

// Candidate is one rule on one host and path pattern.
type Candidate struct {
	Rule    int
	Name    string
	Pattern string // methods, host and path, as in the short form of a match
	Won     bool
	Why     string
}

// Explain tells how Match decides about r. It walks all rules of a host, and is for commands, not for traffic.
func (t *Table) Explain(r *Request) Explanation {
	var c Captures
	x := Explanation{Verdict: t.Match(r, &c), Method: string(r.Method), Path: string(r.Path)}
	var buf [hostMax]byte
	host := canonicalHost(buf[:], r.Host)
	x.Host = string(host)
	return x
}

// String gives the explanation as lines of text.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s\n", x.Method, x.Host, x.Path)
	return b.String()
}
