package route

import (
	"errors"
	"fmt"
	"strings"
)

// ParseShort reads the short form of a match, "[METHOD ][host]/path" or "[METHOD ]~^/regex$", into a rule without a name. It only takes the
// parts apart; whether they are valid is for Compile to say.
func ParseShort(s string) (Rule, error) {
	var r Rule
	rest := strings.TrimSpace(s)
	if rest == "" {
		return Rule{}, errors.New("is empty ([METHOD ][host]/path, for example GET api.example.com/users/*)")
	}
	if method, after, ok := strings.Cut(rest, " "); ok && !strings.ContainsAny(method, "/~") {
		r.Methods, rest = []string{method}, strings.TrimLeft(after, " ")
	}
	if strings.HasPrefix(rest, "~") {
		r.Paths = []string{rest}
		return r, nil
	}
	if strings.ContainsAny(rest, " \t") {
		return Rule{}, fmt.Errorf("%q has a space inside ([METHOD ][host]/path; several methods, hosts or paths need the long form)", s)
	}
	slash := strings.IndexByte(rest, '/')
	switch {
	case strings.Contains(rest, "://"):
		return Rule{}, fmt.Errorf("%q has a scheme ([METHOD ][host]/path, for example api.example.com/users/*)", s)
	case slash < 0:
		return Rule{}, fmt.Errorf("%q has no path (for all of a host: %s/*)", s, rest)
	case slash > 0:
		r.Hosts = []string{rest[:slash]}
	}
	r.Paths = []string{rest[slash:]}
	return r, nil
}
