package route

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// kind is the form of a path pattern. Its order is that of precedence.
type kind uint8

const (
	kindExact    kind = iota // only literal text
	kindSegments             // with captures, a star at the end, or both
	kindRegex
)

// segment is one step of a pattern: literal text, or a capture of one non-empty segment.
type segment struct {
	text    string // the literal, or the capture's name
	capture bool
}

// pattern is one parsed path of a rule.
type pattern struct {
	kind     kind
	text     string // as written, normalised
	key      string // equal for patterns that match the same paths but name their captures differently
	segments []segment
	star     bool
	literals int      // literal segments that are not empty
	names    []string // of the captures, in order
	re       *regexp.Regexp
	groups   []int // for each name the number of its group
	index    int   // among the paths of its rule
}

// parsePattern reads one entry of Rule.Paths.
func parsePattern(text string) (*pattern, error) {
	if expression, ok := strings.CutPrefix(text, "~"); ok {
		return parseRegexPattern(expression)
	}
	if !strings.HasPrefix(text, "/") {
		if text == "" {
			return nil, errors.New("is empty (a path begins with a slash: /a, /a/*, /a/{id}, ~^/regex$)")
		}
		return nil, fmt.Errorf("%q does not begin with a slash (/a, /a/*, /a/{id}, ~^/regex$)", text)
	}
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		if text[i] == '?' {
			return nil, fmt.Errorf("%q has a query (query parameters are matched with query: {name: value})", text)
		}
		return nil, fmt.Errorf("%q has a fragment, which clients never send", text)
	}
	normal, _, err := Normalize(nil, []byte(text))
	if err != nil {
		return nil, fmt.Errorf("%q can never match: %w", text, err)
	}
	if strings.Count(text, "/") != strings.Count(string(normal), "/") {
		return nil, fmt.Errorf("%q can never match, because requests are matched without dot segments and double slashes (%q)", text, normal)
	}
	p := &pattern{kind: kindExact, text: string(normal)}
	steps := strings.Split(p.text[1:], "/")
	for i, step := range steps {
		if step == "*" && i == len(steps)-1 {
			p.star, p.kind = true, kindSegments
			continue
		}
		s, err := parseSegment(step)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if s.capture {
			if slices.Contains(p.names, s.text) {
				return nil, fmt.Errorf("%q captures {%s} twice", text, s.text)
			}
			p.names, p.kind = append(p.names, s.text), kindSegments
		} else if s.text != "" {
			p.literals++
		}
		p.segments = append(p.segments, s)
	}
	if len(p.names) > capturesMax {
		return nil, fmt.Errorf("%q has %d captures (%d at most)", text, len(p.names), capturesMax)
	}
	p.key = p.canonical()
	return p, nil
}

func parseSegment(step string) (segment, error) {
	if inner, ok := strings.CutPrefix(step, "{"); ok && strings.HasSuffix(inner, "}") {
		name := strings.TrimSuffix(inner, "}")
		if !isName(name) {
			return segment{}, fmt.Errorf("{%s} is not a name for a capture (letters, digits, _ and -, beginning with a letter or _)", name)
		}
		return segment{text: name, capture: true}, nil
	}
	if strings.ContainsAny(step, "{}") {
		return segment{}, fmt.Errorf("%q mixes a capture with text (a capture is a whole segment; use ~^/regex$ for less)", step)
	}
	if strings.Contains(step, "*") {
		return segment{}, errors.New("* stands only at the end, after a slash (one segment is {name}; use ~^/regex$ for less)")
	}
	return segment{text: step}, nil
}

func parseRegexPattern(expression string) (*pattern, error) {
	re, err := compileRegex(expression)
	if err != nil {
		return nil, err
	}
	p := &pattern{kind: kindRegex, text: "~" + expression, key: "~" + expression, re: re}
	for group, name := range re.SubexpNames() {
		if name != "" {
			p.names, p.groups = append(p.names, name), append(p.groups, group)
		}
	}
	if len(p.names) > capturesMax {
		return nil, fmt.Errorf("~%s has %d named groups (%d at most)", expression, len(p.names), capturesMax)
	}
	return p, nil
}

// compileRegex words the error of an expression for the user.
func compileRegex(expression string) (*regexp.Regexp, error) {
	if expression == "" {
		return nil, errors.New("~ needs a regular expression after it")
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("~%s is not a regular expression: %s", expression, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

// canonical writes the pattern with its captures unnamed. Literals hold no braces, so {} is nothing else.
func (p *pattern) canonical() string {
	if len(p.names) == 0 {
		return p.text
	}
	var b strings.Builder
	for _, s := range p.segments {
		b.WriteByte('/')
		if s.capture {
			b.WriteString("{}")
		} else {
			b.WriteString(s.text)
		}
	}
	if p.star {
		b.WriteString("/*")
	}
	return b.String()
}

// comparePatterns orders patterns by precedence. Among exact and segment patterns it gives 0 only for two that are the same,
// or that no path matches both; regular expressions it leaves to the names of their rules.
func comparePatterns(a, b *pattern) int {
	if c := cmp.Compare(a.kind, b.kind); c != 0 {
		return c
	}
	if c := cmp.Compare(b.literals, a.literals); c != 0 {
		return c
	}
	if c := cmp.Compare(len(b.segments), len(a.segments)); c != 0 {
		return c
	}
	if a.star != b.star {
		if b.star {
			return -1
		}
		return 1
	}
	for i := range a.segments {
		if a.segments[i].capture != b.segments[i].capture {
			if b.segments[i].capture {
				return -1
			}
			return 1
		}
	}
	return 0
}

// matches tells whether the pattern covers path. Match has its tree for this; Explain uses the plain way.
func (p *pattern) matches(path []byte) bool {
	if p.kind == kindRegex {
		return p.re.Match(path)
	}
	at := 0
	for _, s := range p.segments {
		if at >= len(path) {
			return false
		}
		from := at + 1
		at = segmentEnd(path, from)
		if s.capture {
			if at == from {
				return false
			}
		} else if s.text != string(path[from:at]) {
			return false
		}
	}
	return p.star || at == len(path)
}

// isName tells whether s can name a capture.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return s != ""
}

// Captures lists what every path of the rule captures, and so what a template of the rule may use: names, and "*" when
// every path ends with a star (as a rule without paths does). Paths that do not parse capture nothing.
func (r Rule) Captures() []string {
	if len(r.Paths) == 0 {
		return []string{"*"}
	}
	var common []string
	for i, text := range r.Paths {
		p, err := parsePattern(text)
		if err != nil {
			return nil
		}
		names := slices.Clone(p.names)
		if p.star {
			names = append(names, "*")
		}
		if i == 0 {
			common = names
			continue
		}
		common = slices.DeleteFunc(common, func(n string) bool { return !slices.Contains(names, n) })
	}
	return common
}
