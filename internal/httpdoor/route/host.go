package route

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// hostMax is the longest host name (RFC 1035, 2.3.4, without the trailing dot).
const hostMax = 253

// canonicalHost strips port and trailing dot and lowers the case. The result is a view into host, or into buf when the
// case had to change; it is empty for a host that is too long to be a name.
func canonicalHost(buf, host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		if i := bytes.IndexByte(host, ']'); i > 0 {
			host = host[:i+1]
		}
	} else if i := bytes.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) > len(buf) {
		return nil
	}
	for i, c := range host {
		if c >= 'A' && c <= 'Z' {
			n := copy(buf, host)
			for ; i < n; i++ {
				if c := buf[i]; c >= 'A' && c <= 'Z' {
					buf[i] = c + 'a' - 'A'
				}
			}
			return buf[:n]
		}
	}
	return host
}

// suffixStart gives the index of the dot in host that has at most labels dots from it to the end, or 0.
func suffixStart(host []byte, labels int) int {
	i := len(host)
	for i > 0 && labels > 0 {
		i--
		if host[i] == '.' {
			labels--
		}
	}
	return i
}

// parseHost reads one entry of Rule.Hosts and gives it in lower case: a name, *.name, or * for any.
func parseHost(text string) (string, error) {
	if text == "" {
		return "", errors.New("is empty (a.example, *.example.com, or no hosts at all for any)")
	}
	if text == "*" {
		return text, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil && a.Is6() && a.Zone() == "" {
		return "[" + a.String() + "]", nil // in brackets, as clients send it (RFC 3986, 3.2.2)
	}
	host := strings.TrimSuffix(strings.ToLower(text), ".")
	name, _ := strings.CutPrefix(host, "*.")
	switch i := strings.IndexFunc(name, func(r rune) bool { return !isHostRune(r) }); {
	case len(host) > hostMax:
		return "", fmt.Errorf("is longer than %d characters", hostMax)
	case strings.Contains(name, "/"):
		return "", fmt.Errorf("%q has a path or a scheme (a.example or *.example.com)", text)
	case i < 0:
	case name[i] == '*':
		return "", fmt.Errorf("%q: * stands only at the beginning, as in *.example.com", text)
	case name[i] == ':':
		return "", fmt.Errorf("%q has a port (hosts are matched without it; ports belong to listeners)", text)
	case name[i] >= 0x80:
		return "", fmt.Errorf("%q is not ASCII (clients send such names as xn--...)", text)
	default:
		return "", fmt.Errorf("%q is not a host name: it has a %q", text, name[i])
	}
	if name == "" || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return "", fmt.Errorf("%q is not a host name: it has an empty label", text)
	}
	return host, nil
}

func isHostRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}
