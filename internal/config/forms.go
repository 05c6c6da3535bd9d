package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// form is a named shape of text that several fields share.
type form struct {
	noun    string // for "a mapping from <noun> to ..."
	want    string
	pattern string // of the JSON Schema: no text that check accepts may fail it
	check   func(text string) (problem string)
	resolve func(doc *document, text string) string // what the field gets; nil: the text itself
}

const (
	namePattern  = `^[A-Za-z0-9._-]{1,128}$`
	tokenPattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
	hostPattern  = `^([*][.])?[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$`
	portPattern  = `[0-9]{1,5}$`
)

var (
	nameForm  = regexp.MustCompile(namePattern)
	tokenForm = regexp.MustCompile(tokenPattern)
	hostForm  = regexp.MustCompile(hostPattern)
)

// forms by the name that the form and keys tags give.
var forms = map[string]*form{
	"name": {noun: "name", want: "letters, digits, '.', '_' and '-', at most 128", pattern: namePattern, check: matches(nameForm, "is no name")},
	"free": {noun: "text", want: "text", check: func(string) string { return "" }},
	"listen": {want: "host:port, where an empty host means all addresses and port 0 any free port",
		pattern: `^(\[[^\]]*\]|[^:\[\]]*):` + portPattern, check: func(text string) string { return checkAddress(text, true) }},
	"endpoint": {want: "host:port", pattern: `^(\[[^\]]+\]|[^:\[\]]+):` + portPattern,
		check: func(text string) string { return checkAddress(text, false) }},
	"file":            {want: "the path of a file", pattern: `.`, check: notEmpty, resolve: (*document).resolve},
	"sink":            {want: "stdout, stderr, none, or the path of a file", pattern: `.`, check: notEmpty, resolve: resolveSink},
	"path":            {want: "a path that starts with /", pattern: `^/[^\s]*$`, check: checkPath},
	"status":          {want: "200, 200-299, or a comma-separated list of these", pattern: `^\s*[1-5][0-9][0-9](-[1-5][0-9][0-9])?(\s*,\s*[1-5][0-9][0-9](-[1-5][0-9][0-9])?)*\s*$`, check: checkStatusList},
	"hash_key":        {want: "client_address, path, header:NAME or cookie:NAME", pattern: "^(client_address|path|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$", check: checkHashKey},
	"match_path":      {want: "/exact, /prefix/*, /with/{capture} or ~regular expression", pattern: `^(/|~.)`, check: checkMatchPath},
	"match_host":      {want: "a host name, or *.example.com for any deeper name", pattern: `^([*][.])?[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*[.]?$|^\[?[0-9A-Fa-f:.]+\]?$`, check: checkMatchHost},
	"method":          {want: "a method in capitals, such as GET", pattern: "^[!#$%&'*+.^_`|~0-9A-Z-]+$", check: checkMethod},
	"condition":       {want: "an exact value, ~regular expression, or present", pattern: `^[^\r\n]*$`, check: checkCondition},
	"header":          {noun: "header name", want: "a header name", pattern: tokenPattern, check: matches(tokenForm, "is no header name")},
	"response_header": {noun: "header name", want: "a header name other than those that frame the message", pattern: tokenPattern, check: checkResponseHeader},
	"header_value":    {want: "text on one line", pattern: `^[^\r\n]*$`, check: checkHeaderValue},
	"host":            {want: "a host name, with or without a port", pattern: `^[^\s/@]+$`, check: checkHost},
	"location":        {want: "a URL or a path, without spaces", pattern: `^[^\s]+$`, check: checkLocation},
}

func matches(pattern *regexp.Regexp, otherwise string) func(string) string {
	return func(text string) string {
		if pattern.MatchString(text) {
			return ""
		}
		return fmt.Sprintf("%q %s", shorten(text), otherwise)
	}
}

// shorten keeps a message readable when the text in it is not.
func shorten(text string) string {
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:80], "") + "..."
	}
	return text
}

func notEmpty(text string) string {
	if text == "" {
		return "is empty"
	}
	if strings.ContainsRune(text, 0) {
		return "holds a zero byte"
	}
	return ""
}

func resolveSink(doc *document, text string) string {
	switch text {
	case "stdout", "stderr", "none":
		return text
	}
	return doc.resolve(text)
}

// checkAddress checks host:port. To listen, the host may be empty and the port 0.
func checkAddress(text string, listen bool) string {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if strings.Contains(text, "://") {
			return fmt.Sprintf("%q is a URL, of which only host and port belong here", shorten(text))
		}
		if !strings.Contains(text, ":") {
			return fmt.Sprintf("%q has no port", shorten(text))
		}
		return fmt.Sprintf("%q is no address", shorten(text))
	}
	if n, err := strconv.Atoi(port); err != nil || port[0] == '+' || port[0] == '-' || len(port) > 5 || n > 65535 || n == 0 && !listen {
		return fmt.Sprintf("%q has a wrong port", shorten(text))
	}
	if host == "" {
		if listen {
			return ""
		}
		return fmt.Sprintf("%q has no host", shorten(text))
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	if strings.HasPrefix(host, "*") || !hostForm.MatchString(strings.TrimSuffix(host, ".")) || len(host) > 253 {
		return fmt.Sprintf("%q has a wrong host", shorten(text))
	}
	if strings.Trim(host, "0123456789.") == "" {
		return fmt.Sprintf("%q has a wrong address", shorten(text))
	}
	return ""
}

// checkVisible refuses control characters, which would break a head or a log line.
func checkVisible(text string) string {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == 0x7f {
			return fmt.Sprintf("%q holds a control character", shorten(text))
		}
	}
	return ""
}

func checkSpaceless(text string) string {
	if strings.ContainsAny(text, " ") {
		return fmt.Sprintf("%q holds a space", shorten(text))
	}
	return checkVisible(text)
}

func checkPath(text string) string {
	if !strings.HasPrefix(text, "/") {
		return fmt.Sprintf("%q does not start with /", shorten(text))
	}
	return checkSpaceless(text)
}

func checkLocation(text string) string {
	if text == "" {
		return "is empty"
	}
	return checkSpaceless(text)
}

func checkStatusList(text string) string {
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || len(low) != 3 || len(high) != 3 || from < 100 || to > 599 || from > to {
			return fmt.Sprintf("%q is no list of status codes", shorten(text))
		}
	}
	return ""
}

func checkHashKey(text string) string {
	if text == "client_address" || text == "path" {
		return ""
	}
	source, name, _ := strings.Cut(text, ":")
	if (source == "header" || source == "cookie") && tokenForm.MatchString(name) {
		return ""
	}
	problem := fmt.Sprintf("%q is no key to hash", shorten(text))
	if near := Nearest(source, []string{"client_address", "path", "header", "cookie"}); near != "" && near != source {
		problem += ", nearest: " + near
	}
	return problem
}

func checkMatchPath(text string) string {
	if expression, found := strings.CutPrefix(text, "~"); found {
		return checkExpression(expression)
	}
	return checkPath(text)
}

func checkExpression(text string) string {
	if text == "" {
		return "has an empty regular expression"
	}
	if len(text) > 4096 {
		return "has a regular expression of more than 4096 bytes"
	}
	if _, err := regexp.Compile(text); err != nil {
		return fmt.Sprintf("%q is no regular expression: %s", shorten("~"+text), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return checkVisible(text)
}

func checkMatchHost(text string) string {
	if _, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(text); err == nil && host != "" {
		return fmt.Sprintf("%q has a port; requests are matched on the host alone", shorten(text))
	}
	if !hostForm.MatchString(strings.TrimSuffix(text, ".")) || len(text) > 255 {
		return fmt.Sprintf("%q is no host", shorten(text))
	}
	return ""
}

func checkHost(text string) string {
	if text == "" || strings.ContainsAny(text, "/@") {
		return fmt.Sprintf("%q is no host", shorten(text))
	}
	return checkSpaceless(text)
}

func checkMethod(text string) string {
	if !tokenForm.MatchString(text) || text != strings.ToUpper(text) {
		return fmt.Sprintf("%q is no method", shorten(text))
	}
	return ""
}

func checkCondition(text string) string {
	if expression, found := strings.CutPrefix(text, "~"); found {
		return checkExpression(expression)
	}
	return checkVisible(text)
}

// The fields that frame a message are Menshen's to write: a config that could set them could desynchronise a client.
var framing = []string{"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func checkResponseHeader(text string) string {
	if !tokenForm.MatchString(text) {
		return fmt.Sprintf("%q is no header name", shorten(text))
	}
	for _, name := range framing {
		if strings.EqualFold(text, name) {
			return fmt.Sprintf("%q frames the message and is written by Menshen", text)
		}
	}
	return ""
}

func checkHeaderValue(text string) string {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("%q holds a control character", shorten(text))
		}
	}
	return ""
}
