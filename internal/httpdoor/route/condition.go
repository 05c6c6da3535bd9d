package route

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// condition is a demand on one header field or one query parameter.
type condition struct {
	name  string // headers: in lower case
	label string // as the user wrote it
	form  form
	value string // formExact
	re    *regexp.Regexp
}

type form uint8

const (
	formExact form = iota
	formRegex
	formPresent
)

// conditions are the header and query demands of one rule. nil holds always.
type conditions struct {
	headers []condition // sorted by name
	query   []condition
	key     string // equal for rules with the same conditions
}

// parseConditions reads a rule's headers and query. problem gets the field and what is wrong with it.
func parseConditions(r *Rule, problem func(field, message string)) *conditions {
	if len(r.Headers)+len(r.Query) == 0 {
		return nil
	}
	c := &conditions{}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		lower := strings.ToLower(name)
		if !isToken(name) {
			problem("headers."+name, fmt.Sprintf("%q is not a header name", name))
			continue
		}
		if slices.ContainsFunc(c.headers, func(o condition) bool { return o.name == lower }) {
			problem("headers."+name, "stands twice: header names ignore case")
			continue
		}
		if one, err := parseCondition(lower, name, r.Headers[name]); err != nil {
			problem("headers."+name, err.Error())
		} else {
			c.headers = append(c.headers, one)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Query)) {
		if one, err := parseCondition(name, name, r.Query[name]); err != nil {
			problem("query."+name, err.Error())
		} else {
			c.query = append(c.query, one)
		}
	}
	slices.SortFunc(c.headers, func(a, b condition) int { return strings.Compare(a.name, b.name) })
	var key []byte
	for _, h := range c.headers {
		key = strconv.AppendQuote(append(key, 'h'), h.name)
		key = strconv.AppendQuote(key, h.text())
	}
	for _, q := range c.query {
		key = strconv.AppendQuote(append(key, 'q'), q.name)
		key = strconv.AppendQuote(key, q.text())
	}
	c.key = string(key)
	return c
}

func parseCondition(name, label, value string) (condition, error) {
	if value == "present" {
		return condition{name: name, label: label, form: formPresent}, nil
	}
	if expression, ok := strings.CutPrefix(value, "~"); ok {
		re, err := compileRegex(expression)
		return condition{name: name, label: label, form: formRegex, re: re}, err
	}
	return condition{name: name, label: label, form: formExact, value: value}, nil
}

// text writes the condition as the user did.
func (c *condition) text() string {
	switch c.form {
	case formPresent:
		return "present"
	case formRegex:
		return "~" + c.re.String()
	}
	return c.value
}

// count is what precedence calls more conditions, without methods.
func (c *conditions) count() int {
	if c == nil {
		return 0
	}
	return len(c.headers) + len(c.query)
}

// holds tells whether the request meets all of c.
func (s *search) holds(c *conditions) bool {
	if c == nil {
		return true
	}
	for i := range c.headers {
		h := &c.headers[i]
		if h.name != s.headerName {
			s.headerName, s.headerValue, s.headerFound = h.name, nil, false
			if s.request.Header != nil {
				s.headerValue, s.headerFound = s.request.Header.Lookup(h.name)
			}
		}
		if !s.headerFound || !h.headerHolds(s.headerValue) {
			return false
		}
	}
	for i := range c.query {
		q := &c.query[i]
		value, found := queryLookup(s.request.Query, q.name)
		if !found || !q.queryHolds(value) {
			return false
		}
	}
	return true
}

func (c *condition) headerHolds(value []byte) bool {
	switch c.form {
	case formExact:
		return c.value == string(value)
	case formRegex:
		return c.re.Match(value)
	}
	return true
}

// queryHolds takes the raw value.
func (c *condition) queryHolds(value []byte) bool {
	switch c.form {
	case formExact:
		return queryEqual(value, c.value)
	case formRegex:
		if slices.ContainsFunc(value, func(b byte) bool { return b == '%' || b == '+' }) {
			value = queryDecode(nil, value)
		}
		return c.re.Match(value)
	}
	return true
}

// queryLookup gives the raw value of the first parameter of that name. A parameter without = has an empty value.
func queryLookup(query []byte, name string) ([]byte, bool) {
	for len(query) > 0 {
		end, equals := 0, -1
		for end < len(query) && query[end] != '&' {
			if query[end] == '=' && equals < 0 {
				equals = end
			}
			end++
		}
		key, value := query[:end], query[end:end]
		if equals >= 0 {
			key, value = query[:equals], query[equals+1:end]
		}
		if len(key)+len(value) > 0 && queryEqual(key, name) {
			return value, true
		}
		if end == len(query) {
			break
		}
		query = query[end+1:]
	}
	return nil, false
}

// queryEqual compares a raw key or value with plain text.
func queryEqual(raw []byte, want string) bool {
	at := 0
	for i := 0; i < len(raw); at++ {
		if at == len(want) {
			return false
		}
		c, n := queryByte(raw[i:])
		if c != want[at] {
			return false
		}
		i += n
	}
	return at == len(want)
}

// queryDecode appends the plain text of a raw value to dst.
func queryDecode(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c, n := queryByte(raw[i:])
		dst = append(dst, c)
		i += n
	}
	return dst
}

// queryByte decodes the first byte of raw, which is not empty, and tells how long its encoding was. A percent sign
// without two digits stands for itself, as it does for browsers (WHATWG URL, 1.3).
func queryByte(raw []byte) (byte, int) {
	switch {
	case raw[0] == '+':
		return ' ', 1
	case raw[0] == '%' && len(raw) > 2:
		if high, low := unhex(raw[1]), unhex(raw[2]); high|low <= 15 {
			return high<<4 | low, 3
		}
	}
	return raw[0], 1
}

// isToken tells whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}
