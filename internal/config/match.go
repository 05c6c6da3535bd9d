package config

import (
	"fmt"
	"strings"
)

// fromShort reads "[METHOD ][host]/path". A regular expression may stand in place of the path, without a host before it:
// "GET ~^/v[0-9]+/".
func (m *Match) fromShort(text string) (problem string) {
	rest := text
	if method, after, found := strings.Cut(text, " "); found && !strings.HasPrefix(text, "~") && !strings.Contains(method, "/") {
		if problem := checkMethod(method); problem != "" {
			return fmt.Sprintf("%s (accepted: %s; for example %s)", problem, forms["method"].want, shorten(strings.ToUpper(method)+" "+strings.TrimLeft(after, " ")))
		}
		m.Methods = []string{method}
		rest = strings.TrimLeft(after, " ")
	}
	if !strings.HasPrefix(rest, "~") {
		host, path, found := strings.Cut(rest, "/")
		if !found {
			return fmt.Sprintf("%q has no path (accepted: %s; for any path write %s)", shorten(text), m.shortWanted(), shorten(strings.TrimSuffix(text, "*")+"/*"))
		}
		if host != "" {
			if problem := checkMatchHost(host); problem != "" {
				return fmt.Sprintf("%s (accepted: %s)", problem, m.shortWanted())
			}
			m.Hosts = []string{host}
		}
		rest = "/" + path
	}
	if problem := checkMatchPath(rest); problem != "" {
		return fmt.Sprintf("%s (accepted: %s)", problem, m.shortWanted())
	}
	m.Paths = []string{rest}
	return ""
}

func (*Match) shortWanted() string { return "[METHOD ][host]/path" }

// matchPattern is the short form for the JSON Schema.
const matchPattern = "^([!#$%&'*+.^_`|~0-9A-Z-]+ +)?([^/\\s]*/[^\\s]*|~.+)$"
