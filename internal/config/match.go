package config

import (
	"fmt"
	"strings"
)

// fromShort reads "[METHOD ][host]/path". A regular expression may stand in place of host and path: "GET ~^/v[0-9]+/".
func (m *Match) fromShort(text string) (problem, accepted string) {
	rest := text
	if method, after, found := strings.Cut(text, " "); found && !strings.HasPrefix(text, "~") && !strings.Contains(method, "/") {
		rest = strings.TrimLeft(after, " ")
		if problem := checkMethod(method); problem != "" {
			return problem, fmt.Sprintf("%s, for example %q", forms["method"].want, shorten(strings.ToUpper(method)+" "+rest))
		}
		m.Methods = []string{method}
	}
	if strings.HasPrefix(rest, "~ ") {
		return fmt.Sprintf("%q has a space before its expression, which no path has", shorten(text)), fmt.Sprintf("%s; write %q", m.shortWanted(), shorten("~"+strings.TrimLeft(rest[1:], " ")))
	}
	if !strings.HasPrefix(rest, "~") {
		host, path, found := strings.Cut(rest, "/")
		if !found {
			return fmt.Sprintf("%q has no path", shorten(text)), fmt.Sprintf("%s; for any path write %q", m.shortWanted(), shorten(text+"/*"))
		}
		if host != "" {
			if problem := checkMatchHost(host); problem != "" {
				return problem, m.shortWanted()
			}
			m.Hosts = []string{host}
		}
		rest = "/" + path
	}
	if problem := checkMatchPath(rest); problem != "" {
		return problem, m.shortWanted()
	}
	m.Paths = []string{rest}
	return "", ""
}

func (*Match) shortWanted() string { return "[METHOD ][host]/path" }

// matchPattern is the short form for the JSON Schema.
const matchPattern = "^([!#$%&'*+.^_`|~0-9A-Z-]+ +)?([^/\\s]*/[^\\s]*|~.+)$"
