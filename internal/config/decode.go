package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// decoder fills Go values from nodes, strictly, and goes on after a problem so that all are found.
type decoder struct {
	problems Problems
	// lift takes a service that was written in place of its name; nil where that is not possible.
	lift func(name string, s *Service)
}

func (d *decoder) problem(n *Node, format string, args ...any) {
	d.problems = append(d.problems, n.Problem(format, args...))
}

// Decode fills the struct that into points to from n, with the rules of the whole configuration: the same tags, strict
// keys, defaults, all problems at once. It panics when into is no pointer to a struct.
func (n *Node) Decode(into any) Problems {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic("BUG: config.Node.Decode wants a pointer to a struct")
	}
	d := decoder{}
	v.Elem().Set(shapeOf(v.Elem().Type()).initial)
	d.structure(n, v.Elem(), nil)
	return d.problems.finish()
}

// value decodes n into v. The field f says what is accepted beyond the type; nil says nothing.
func (d *decoder) value(n *Node, v reflect.Value, f *field) {
	if n.class == classBroken && n.kind == kindScalar {
		return
	}
	if n.kind == kindScalar && n.class == classNull {
		if f == nil {
			f = &field{}
		}
		d.problem(n, "has no value (accepted: %s)", want(v.Type(), f))
		return
	}
	if s := scalars[v.Type()]; s != nil {
		d.scalar(n, v, s, f)
		return
	}
	switch v.Type() {
	case reflect.TypeFor[ServiceRef]():
		d.serviceRef(n, v)
		return
	case reflect.TypeFor[Policy]():
		d.policy(n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		d.pointer(n, v, f)
	case reflect.Struct:
		d.structure(n, v, f)
	case reflect.Map:
		d.mapping(n, v, f)
	case reflect.Slice:
		d.list(n, v, f)
	case reflect.String:
		d.text(n, v, f)
	case reflect.Int, reflect.Int64:
		d.integer(n, v, f)
	case reflect.Bool:
		d.boolean(n, v)
	default:
		panic(fmt.Sprintf("BUG: config cannot decode %s", v.Type()))
	}
}

func (d *decoder) pointer(n *Node, v reflect.Value, f *field) {
	fresh := reflect.New(v.Type().Elem())
	if _, ok := fresh.Interface().(switchable); ok && n.kind == kindScalar {
		switch {
		case n.text == "true" && (n.class == classBool || n.class == classExpanded):
			fresh.Elem().Set(shapeOf(v.Type().Elem()).initial)
			v.Set(fresh)
		case n.text == "false" && (n.class == classBool || n.class == classExpanded):
		default:
			d.wrong(n, v.Type(), f)
		}
		return
	}
	if fresh.Elem().Kind() == reflect.Struct {
		fresh.Elem().Set(shapeOf(v.Type().Elem()).initial)
	}
	d.value(n, fresh.Elem(), f)
	v.Set(fresh)
}

// structure decodes a mapping with known keys, or its short form. The defaults are in v already.
func (d *decoder) structure(n *Node, v reflect.Value, f *field) {
	s := shapeOf(v.Type())
	if n.kind != kindMapping {
		if short, ok := v.Addr().Interface().(shortened); ok && n.kind == kindScalar && n.isText() {
			if problem, accepted := short.fromShort(n.text); problem != "" {
				d.refused(n, problem, "accepted: "+accepted, "accepted: "+short.shortWanted())
			}
			return
		}
		if s.short != nil && n.kind == kindScalar {
			before := len(d.problems)
			d.value(n, v.Field(s.short.index), s.short)
			if len(d.problems) > before && len(s.fields) > 1 && isTypeProblem(n, s.short) {
				d.problems = d.problems[:before]
				d.wrong(n, v.Type(), f)
			}
			return
		}
		d.wrong(n, v.Type(), f)
		return
	}
	for _, item := range n.items {
		known := s.byName[item.name]
		if known == nil {
			message := "unknown key"
			if len(d.problems) < problemsMax { // looking for the nearest key costs more than anybody reads
				message += " (" + acceptedNames(item.name, s.names()) + ")"
			}
			d.problems = append(d.problems, item.problemAtKey("%s", message))
			continue
		}
		d.value(item, v.Field(known.index), known)
	}
	for _, known := range s.fields {
		if !known.required {
			continue
		}
		item := n.get(known.name)
		switch {
		case item == nil:
			missing := n.Problem("is missing (accepted: %s)", want(known.kind, known))
			missing.Path = join(missing.Path, known.name)
			d.problems = append(d.problems, missing)
		case item.class == classBroken:
		case item.kind != kindScalar && len(item.items) == 0 && !isStruct(known.kind):
			d.problem(item, "is empty (accepted: %s)", want(known.kind, known))
		}
	}
}

// isTypeProblem tells whether a scalar n is of the wrong type for its short field, rather than a wrong value.
func isTypeProblem(n *Node, f *field) bool {
	switch f.kind.Kind() {
	case reflect.String:
		return !n.isText() && !f.number
	case reflect.Int:
		return n.class == classText || n.class == classQuoted || n.class == classBool
	}
	return false
}

func isStruct(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// mapping decodes a map from names to things.
func (d *decoder) mapping(n *Node, v reflect.Value, f *field) {
	if n.kind != kindMapping {
		d.wrong(n, v.Type(), f)
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.items)))
	for _, item := range n.items {
		pause.Moment()
		if f != nil && f.keys != nil {
			if problem := f.keys.check(item.name); problem != "" {
				d.problems = append(d.problems, item.problemAtKey("%s (accepted: %s)", problem, f.keys.want))
			}
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(item, element, f)
		// An entry that went wrong is kept, so that references to it are not reported as well.
		if element.Kind() == reflect.Pointer && element.IsNil() {
			element.Set(reflect.New(element.Type().Elem()))
		}
		v.SetMapIndex(reflect.ValueOf(item.name).Convert(v.Type().Key()), element)
	}
}

// list decodes a list, or one element in place of a list of one.
func (d *decoder) list(n *Node, v reflect.Value, f *field) {
	items := n.items
	switch n.kind {
	case kindMapping:
		d.wrong(n, v.Type(), f)
		return
	case kindScalar:
		items = []*Node{n}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		element := v.Index(i)
		if element.Kind() == reflect.Struct && scalars[element.Type()] == nil {
			element.Set(shapeOf(element.Type()).initial)
		}
		d.value(item, element, f)
	}
}

func (d *decoder) text(n *Node, v reflect.Value, f *field) {
	if n.kind != kindScalar {
		d.wrong(n, v.Type(), f)
		return
	}
	numbers := f != nil && (f.number || len(f.enum) > 0)
	if !n.isText() && !(numbers && (n.class == classInteger || n.class == classNumber)) {
		if f != nil && len(f.enum) > 0 {
			d.wrong(n, v.Type(), f)
			return
		}
		if v.Type() == reflect.TypeFor[Secret]() {
			d.problem(n, "is no text for YAML (accepted: text; to mean the text, write it in quotes)")
			return
		}
		if f != nil && f.form != nil && f.form == forms["listen"] && n.class == classInteger {
			d.problem(n, "is %s (accepted: %s; to mean that port, write %q)", n.what(), f.form.want, ":"+n.text)
			return
		}
		d.problem(n, "is %s (accepted: %s; to mean the text, write %q)", n.what(), want(v.Type(), f), n.text)
		return
	}
	text := n.text
	if f != nil && len(f.enum) > 0 && !slices.Contains(f.enum, text) {
		d.refused(n, fmt.Sprintf("%q is not known", text), acceptedNames(text, f.enum), "accepted: "+oneOf(f.enum))
		return
	}
	if text == "***" && v.Type() == reflect.TypeFor[Secret]() { // posting a masked export back must not change a password
		d.problem(n, "is the mask that a masked export shows, not a secret (accepted: the secret, or a reference such as ${env:NAME})")
		return
	}
	if text == "" && f != nil && f.required {
		d.problem(n, "is empty (accepted: %s)", want(v.Type(), f))
		return
	}
	if f != nil && f.form != nil {
		if problem := f.form.check(text); problem != "" {
			d.refused(n, problem, "accepted: "+f.form.want, "")
			return
		}
		if f.form.resolve != nil {
			text = f.form.resolve(n.doc, text)
		}
	}
	v.SetString(text)
}

func (d *decoder) integer(n *Node, v reflect.Value, f *field) {
	number := n.kind == kindScalar && (n.class == classInteger || n.class == classExpanded && integer.MatchString(n.text))
	if !number {
		d.wrong(n, v.Type(), f)
		return
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, n.text) {
		d.refused(n, n.text+" is not known", "accepted: "+oneOf(f.enum), "")
		return
	}
	value, err := strconv.ParseInt(n.text, 10, 64)
	if len(f.enum) == 0 && (err != nil || value < f.min || value > f.max) {
		d.refused(n, n.text+" is out of range", "accepted: "+want(v.Type(), f), "")
		return
	}
	v.SetInt(value)
}

func (d *decoder) boolean(n *Node, v reflect.Value) {
	if n.kind != kindScalar || n.class != classBool && n.class != classExpanded || n.text != "true" && n.text != "false" {
		d.wrong(n, v.Type(), nil)
		return
	}
	v.SetBool(n.text == "true")
}

func (d *decoder) scalar(n *Node, v reflect.Value, s *scalar, f *field) {
	plain := n.kind == kindScalar && (n.isText() || s.number && (n.class == classInteger || n.class == classNumber))
	if !plain {
		d.wrong(n, v.Type(), f)
		return
	}
	if !s.pattern.MatchString(n.text) {
		d.refused(n, fmt.Sprintf("%q is not understood", n.text), "accepted: "+s.want, "")
		return
	}
	value, err := s.parse(n.text)
	if err != nil {
		d.refused(n, err.Error(), "accepted: "+s.want, "")
		return
	}
	v.Set(reflect.ValueOf(value))
}

// serviceRef decodes the name of a service, or lifts a service that stands in place.
func (d *decoder) serviceRef(n *Node, v reflect.Value) {
	switch {
	case n.kind == kindMapping && d.lift != nil:
		s := reflect.New(reflect.TypeFor[Service]())
		s.Elem().Set(shapeOf(s.Elem().Type()).initial)
		d.structure(n, s.Elem(), nil)
		name := n.Path()
		d.lift(name, s.Interface().(*Service))
		v.Set(reflect.ValueOf(ServiceRef{Name: name, Inline: true}))
	case n.kind == kindScalar && n.isText() && n.text != "":
		v.Set(reflect.ValueOf(ServiceRef{Name: n.text}))
	default:
		d.wrong(n, v.Type(), nil)
	}
}

// refused reports a text that is not accepted. When the text came out of a reference, only the reference is shown: the
// text may be a secret in the wrong place. Then hidden takes the place of accepted, unless that is harmless ("").
func (d *decoder) refused(n *Node, problem, accepted, hidden string) {
	if n.raw != "" {
		problem = fmt.Sprintf("%q stands for a value that is not accepted here", n.raw)
		if hidden != "" {
			accepted = hidden
		}
	}
	d.problem(n, "%s (%s)", problem, accepted)
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *Node, t reflect.Type, f *field) {
	what, hint := n.what(), ""
	if holdsSecret(t) && n.kind == kindScalar && n.raw == "" {
		what, hint = "no text for YAML", "; to mean the text, write it in quotes"
	}
	d.problem(n, "is %s (accepted: %s%s)", what, want(t, f), hint)
}

// holdsSecret tells whether a scalar of type t is a secret, or the short form of a struct is.
func holdsSecret(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && scalars[t] == nil && t != reflect.TypeFor[ServiceRef]() {
		short := shapeOf(t).short
		return short != nil && holdsSecret(short.kind)
	}
	return t == reflect.TypeFor[Secret]()
}

// isText tells whether a scalar is text for YAML, or came out of a reference.
func (n *Node) isText() bool {
	return n.class == classText || n.class == classQuoted || n.class == classExpanded
}

// what describes a node for a message.
func (n *Node) what() string {
	if n.kind != kindScalar {
		return n.kind.String()
	}
	text := n.text
	if n.raw != "" {
		text = n.raw // never show what a reference gave
	}
	if len(text) > 60 {
		text = strings.ToValidUTF8(text[:60], "") + "..."
	}
	switch n.class {
	case classNull:
		return "empty"
	case classInteger, classNumber:
		return "the number " + text
	case classBool:
		return text
	default:
		return fmt.Sprintf("the text %q", text)
	}
}

// want describes what is accepted for a type and a field.
func want(t reflect.Type, f *field) string {
	if t.Kind() == reflect.Pointer {
		if _, ok := reflect.New(t.Elem()).Interface().(switchable); ok {
			return "true, or " + want(t.Elem(), f)
		}
		return want(t.Elem(), f)
	}
	if s := scalars[t]; s != nil {
		return s.want
	}
	if f == nil {
		f = &field{}
	}
	if t == reflect.TypeFor[ServiceRef]() {
		return "the name of a service, or a mapping with " + strings.Join(shapeOf(reflect.TypeFor[Service]()).names(), ", ")
	}
	if t == reflect.TypeFor[Policy]() {
		return policyWanted
	}
	switch t.Kind() {
	case reflect.Struct:
		s := shapeOf(t)
		long := "a mapping with " + strings.Join(s.names(), ", ")
		if short, ok := reflect.New(t).Interface().(shortened); ok {
			return short.shortWanted() + ", or " + long
		}
		if s.short != nil {
			return want(s.short.kind, s.short) + ", or " + long
		}
		return long
	case reflect.Map:
		inner := *f
		inner.keys = nil
		keys := "name"
		if f.keys != nil {
			keys = f.keys.noun
		}
		if isStruct(t.Elem()) && scalars[t.Elem()] == nil {
			element := t.Elem()
			if element.Kind() == reflect.Pointer {
				element = element.Elem()
			}
			return "a mapping from " + keys + " to {" + strings.Join(shapeOf(element).names(), ", ") + "}"
		}
		return "a mapping from " + keys + " to " + want(t.Elem(), &inner)
	case reflect.Slice:
		return "a list, each " + want(t.Elem(), f)
	case reflect.Int, reflect.Int64:
		switch {
		case len(f.enum) > 0:
			return oneOf(f.enum)
		case f.max < 1<<31 && f.max > 0:
			return fmt.Sprintf("a whole number from %d to %d", f.min, f.max)
		default:
			return fmt.Sprintf("a whole number, at least %d", f.min)
		}
	case reflect.Bool:
		return "true or false"
	default:
		switch {
		case len(f.enum) > 0:
			return oneOf(f.enum)
		case f.form != nil:
			return f.form.want
		default:
			return "text"
		}
	}
}

// acceptedNames lists the candidates and the nearest of them, for a message.
func acceptedNames(word string, candidates []string) string {
	text := "accepted: " + oneOf(candidates)
	if key := near(word, candidates); key != "" {
		text += "; nearest: " + key
	}
	return text
}

// oneOf lists words; a long list is cut, since the nearest one is named as well.
func oneOf(words []string) string {
	const most = 16
	if len(words) > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
	}
	return strings.Join(words, ", ")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// config decodes the whole configuration.
func (d *decoder) config(root *Node, c *Config) {
	source := c.source
	v := reflect.ValueOf(c).Elem()
	v.Set(shapeOf(configType).initial)
	c.source = source
	lifted := make(map[string]*Service)
	put := d.lift
	d.lift = func(name string, s *Service) { lifted[name] = s }
	d.structure(root, v, nil)
	// Only now, because the section of services may be decoded after what refers to it.
	for name, s := range lifted {
		if c.Services[name] != nil {
			d.problems = append(d.problems, c.Problem("services."+name, "has the name that the service written in place at %s goes by (accepted: another name)", name))
			continue
		}
		put(name, s)
	}
}
