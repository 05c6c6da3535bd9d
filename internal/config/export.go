package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ExportOptions say what Export prints.
type ExportOptions struct {
	MaskSecrets bool // secrets that were written out become ***; references to them stay as they are
	Defaults    bool // every setting, not only those that were written
	// canonical prints one form of each value, whatever was written: for comparing and for digests.
	canonical bool
}

// Export gives the configuration as YAML in a fixed order: sections and keys as in the model, names sorted. References
// are printed as references, never as what they stand for. Without MaskSecrets, parsing the text in the same folder
// and environment gives an equal configuration; a masked text is for reading.
func (c *Config) Export(o ExportOptions) []byte {
	var b strings.Builder
	c.tree(o).write(&b, 0)
	return []byte(b.String())
}

// Setting is one value of a configuration: where it stands, and the value as one line of YAML.
type Setting struct{ Path, Value string }

// Settings lists the effective configuration value by value, defaults too, in the order of Export. Secrets are masked; references to them stay references.
func (c *Config) Settings() []Setting {
	var all []Setting
	var walk func(path string, t *tree)
	walk = func(path string, t *tree) {
		if len(t.items) == 0 {
			if path != "" {
				all = append(all, Setting{path, t.flow()})
			}
			return
		}
		for i, item := range t.items {
			at := join(path, t.names[i])
			if t.kind == kindList {
				at = fmt.Sprintf("%s[%d]", path, i)
			}
			walk(at, item)
		}
	}
	walk("", c.tree(ExportOptions{MaskSecrets: true, Defaults: true}))
	return all
}

// tree is a value on its way out.
type tree struct {
	kind   kind
	text   string   // of a scalar, as it is shown
	plain  bool     // the scalar is no text: a number, a duration, true
	truth  string   // what to compare instead of text: what a reference stands for, the secret behind ***
	names  []string // of the items, in a mapping
	items  []*tree
	absent bool           // an optional value that is not there
	index  map[string]int // of names, once get was asked
}

func (t *tree) add(name string, item *tree) {
	t.names, t.items = append(t.names, name), append(t.items, item)
}

// get gives the item of a mapping under a name, or of a list at its number; nil when there is none.
func (t *tree) get(name string) *tree {
	if t == nil {
		return nil
	}
	if t.index == nil {
		t.index = make(map[string]int, len(t.names))
		for i, known := range t.names {
			t.index[known] = i
		}
	}
	if i, found := t.index[name]; found {
		return t.items[i]
	}
	return nil
}

func (c *Config) tree(o ExportOptions) *tree {
	e := exporter{c: c, o: o}
	var root *Node
	if c.source != nil {
		root = c.source.root
	}
	return e.structure(reflect.ValueOf(c).Elem(), root)
}

type exporter struct {
	c *Config
	o ExportOptions
}

// value gives v as it is printed. The node n is what v was read from; nil when it was not written, which includes
// everything of a configuration that was built by code.
func (e *exporter) value(v reflect.Value, f *field, n *Node) *tree {
	if s := scalars[v.Type()]; s != nil {
		return e.leaf(n, s.format(v.Interface()), true, f)
	}
	if v.Type() == reflect.TypeFor[ServiceRef]() {
		ref := v.Interface().(ServiceRef)
		if inline := e.c.Services[ref.Name]; ref.Inline && inline != nil {
			return e.structure(reflect.ValueOf(inline).Elem(), n)
		}
		t := e.leaf(n, escapeReferences(ref.Name), false, f)
		t.absent = ref.Name == ""
		return t
	}
	if v.Type() == reflect.TypeFor[Policy]() {
		return e.policy(v.Interface().(Policy), n)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return &tree{absent: true}
		}
		t := e.value(v.Elem(), f, n)
		t.absent = false
		if _, ok := v.Interface().(switchable); ok && t.kind == kindMapping && len(t.items) == 0 {
			return &tree{text: "true", plain: true, truth: "true"}
		}
		return t
	case reflect.Struct:
		return e.structure(v, n)
	case reflect.Map:
		t := &tree{kind: kindMapping, absent: v.IsNil()}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			if v.Type() == reflect.TypeFor[map[string]*Service]() && e.c.isLifted(key.String()) {
				continue
			}
			t.add(key.String(), e.value(v.MapIndex(key), f, n.get(key.String())))
		}
		t.absent = t.absent || v.Len() > 0 && len(t.items) == 0
		return t
	case reflect.Slice:
		t := &tree{kind: kindList, absent: v.IsNil()}
		for i := range v.Len() {
			item := n.index(i)
			if n != nil && n.kind == kindScalar {
				item = n // one element in place of a list of one
			}
			t.add(strconv.Itoa(i), e.value(v.Index(i), f, item))
		}
		return t
	case reflect.String:
		t := e.leaf(n, escapeReferences(v.String()), false, f)
		t.absent = v.String() == ""
		if v.Type() == reflect.TypeFor[Secret]() {
			t.truth = v.String()
			if e.o.MaskSecrets && v.String() != "" && !onlyReferences.MatchString(t.text) {
				t.text = masked
			}
		}
		return t
	default:
		return e.leaf(n, fmt.Sprint(v.Interface()), true, f)
	}
}

// onlyReferences matches a text in which nothing but references stands, so that it shows nothing.
var onlyReferences = regexp.MustCompile(`^(\$\{(env|file):[^}]*\})+$`)

// leaf gives a scalar: as it was written, or as it is formatted.
func (e *exporter) leaf(n *Node, formatted string, plain bool, f *field) *tree {
	t := &tree{text: formatted, plain: plain, truth: formatted}
	if n == nil || n.kind != kindScalar {
		return t
	}
	written := n.text
	if n.raw != "" {
		written = n.raw
	} else if !plain {
		written = escapeReferences(written)
	}
	relative := f != nil && f.form != nil && f.form.resolve != nil // the same on every machine only as it was written
	if !e.o.canonical || n.class == classExpanded || relative {
		t.text = written
		t.plain = plain && n.raw == ""
	}
	return t
}

// structure prints the keys of a struct that were written or are no defaults; all of them with the option Defaults.
func (e *exporter) structure(v reflect.Value, n *Node) *tree {
	s := shapeOf(v.Type())
	scalar := n != nil && n.kind == kindScalar
	if _, ok := v.Addr().Interface().(shortened); ok && scalar && (!e.o.canonical || n.class == classExpanded) {
		return e.leaf(n, n.text, false, nil)
	}
	t := &tree{kind: kindMapping}
	for _, f := range s.fields {
		value, item := v.Field(f.index), n.get(f.name)
		if scalar && f == s.short {
			item = n
		}
		printed := e.value(value, f, item)
		set := item != nil || f.required || !reflect.DeepEqual(value.Interface(), s.initial.Field(f.index).Interface())
		if printed.absent && (item == nil || value.Kind() == reflect.Pointer || value.Kind() == reflect.Map) || !set && !e.o.Defaults {
			continue
		}
		if printed.kind == kindMapping && len(printed.items) == 0 && value.Kind() == reflect.Struct && !f.required {
			continue
		}
		t.add(f.name, printed)
	}
	if !e.o.canonical && !e.o.Defaults && s.short != nil && (scalar || n == nil) && len(t.items) == 1 && t.names[0] == s.short.name {
		return t.items[0]
	}
	return t
}

// isLifted tells whether a service was written in place of its name, and so is printed there.
func (c *Config) isLifted(name string) bool {
	if c.source != nil {
		return c.source.lifted[name] != nil
	}
	for _, l := range c.Listeners {
		if l.Service.Inline && l.Service.Name == name {
			return true
		}
	}
	for _, r := range c.Routes {
		if r.Service.Inline && r.Service.Name == name {
			return true
		}
	}
	return false
}

// write prints t as block YAML at an indentation; the line has been begun by the caller when it is above zero.
func (t *tree) write(b *strings.Builder, indent int) {
	pad := strings.Repeat("  ", indent)
	switch {
	case t.kind == kindScalar:
		b.WriteString(t.scalar() + "\n")
	case len(t.items) == 0:
		b.WriteString(map[kind]string{kindMapping: "{}", kindList: "[]"}[t.kind] + "\n")
	default:
		for i, item := range t.items {
			b.WriteString(pad)
			if t.kind == kindList {
				b.WriteString("- ")
			} else {
				b.WriteString(quote(t.names[i]) + ":")
			}
			switch {
			case item.kind == kindScalar || len(item.items) == 0:
				if t.kind == kindMapping {
					b.WriteString(" ")
				}
				item.write(b, 0)
			case t.kind == kindList: // the first key stands on the line of its dash
				var inner strings.Builder
				item.write(&inner, indent+1)
				b.WriteString(strings.TrimLeft(inner.String(), " "))
			default:
				b.WriteString("\n")
				item.write(b, indent+1)
			}
		}
	}
}

// flow gives t on one line, for a message.
func (t *tree) flow() string {
	if t.kind == kindScalar {
		return t.scalar()
	}
	parts := make([]string, len(t.items))
	for i, item := range t.items {
		parts[i] = item.flow()
		if t.kind == kindMapping {
			parts[i] = quote(t.names[i]) + ": " + parts[i]
		}
	}
	if t.kind == kindList {
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (t *tree) scalar() string {
	if t.plain && plainScalar.MatchString(t.text) {
		return t.text
	}
	return quote(t.text)
}

var (
	plainScalar = regexp.MustCompile(`^[0-9A-Za-z.%/]+$`)
	// plainText is text that no reader of YAML takes for anything else. Addresses begin with digits, but hold too many
	// dots for a number.
	plainText  = regexp.MustCompile(`^([A-Za-z_/]|[0-9]+[.][0-9]+[.][0-9])[A-Za-z0-9_./*%+-]*([: ]?[A-Za-z0-9_./*%+-]+)*$`)
	otherWords = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan|inf)$`)
)

// quote gives text as YAML reads it back, in double quotes unless it is plainly text.
func quote(text string) string {
	if plainText.MatchString(text) && !otherWords.MatchString(text) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
