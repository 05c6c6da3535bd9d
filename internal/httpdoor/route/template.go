package route

import (
	"fmt"
	"slices"
	"strings"
)

// Template is a text with places to fill in, such as "/new/{*}?id={id}". Braces that stand for themselves are doubled:
// "{{" and "}}". Its zero value is the empty text. It is immutable.
type Template struct {
	parts []part
}

// part is literal text, or the name of a value.
type part struct {
	text string
	name bool
}

// ParseTemplate reads a template. Names that are not in known are errors: a typo must not become an empty string in a
// Location. Rule.Captures gives the names that a rule's own paths provide.
func ParseTemplate(s string, known []string) (Template, error) {
	var t Template
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, part{text: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c != '{' && c != '}':
			literal.WriteByte(c)
		case i+1 < len(s) && s[i+1] == c:
			literal.WriteByte(c)
			i++
		case c == '}':
			return Template{}, fmt.Errorf("%q has a } without its { (a brace that stands for itself is written twice)", s)
		default:
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return Template{}, fmt.Errorf("%q has a { without its } (a brace that stands for itself is written twice)", s)
			}
			name := s[i+1 : i+end]
			if !slices.Contains(known, name) {
				return Template{}, unknownName(s, name, known)
			}
			flush()
			t.parts = append(t.parts, part{text: name, name: true})
			i += end
		}
	}
	flush()
	return t, nil
}

func unknownName(s, name string, known []string) error {
	if len(known) == 0 {
		return fmt.Errorf("%q uses {%s}, but nothing can be filled in here", s, name)
	}
	names := slices.Clone(known)
	slices.Sort(names)
	accepted := "{" + strings.Join(slices.Compact(names), "}, {") + "}"
	if near := nearest(name, names); near != "" {
		return fmt.Errorf("%q uses {%s}, which is not known here (did you mean {%s}? accepted: %s)", s, name, near, accepted)
	}
	return fmt.Errorf("%q uses {%s}, which is not known here (accepted: %s)", s, name, accepted)
}

// Append fills the template and appends it to dst. value is asked for each name, in order, and gives its bytes, which are
// appended as they are; nil is empty. It does not allocate beyond the growth of dst, and value does not escape.
func (t Template) Append(dst []byte, value func(name string) []byte) []byte {
	for i := range t.parts {
		if p := &t.parts[i]; p.name {
			dst = append(dst, value(p.text)...)
		} else {
			dst = append(dst, p.text...)
		}
	}
	return dst
}

// Names lists the names that the template uses, each once, in order.
func (t Template) Names() []string {
	var names []string
	for _, p := range t.parts {
		if p.name && !slices.Contains(names, p.text) {
			names = append(names, p.text)
		}
	}
	return names
}

// Static gives the text of a template that uses no names.
func (t Template) Static() (text string, ok bool) {
	switch {
	case len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && !t.parts[0].name:
		return t.parts[0].text, true
	}
	return "", false
}

// nearest gives the candidate with the fewest edits from word, or "" when all are too far.
func nearest(word string, candidates []string) string {
	best, least := "", min(len(word), 2+len(word)/4)
	for _, c := range candidates {
		if d := edits(word, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
