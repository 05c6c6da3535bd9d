package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// The tags of the model, read once per type:
//
//	yaml      the key
//	doc       one sentence for the manual and the schema
//	required  the key must stand there and not be empty
//	default   what an absent key means; also what an absent mapping around it means
//	enum      the accepted texts or numbers
//	short     a scalar (or, for a list field, a list) in place of the whole mapping is this field
//	min, max  bounds of a whole number; min is 0 when absent
//	form      the name of a form (forms.go) that texts must have; in a list or a mapping, each element
//	keys      the form of a mapping's keys; names when absent
//	number    a plain number is accepted as its own text
type field struct {
	index     int
	name      string
	kind      reflect.Type
	doc       string
	required  bool
	short     bool
	number    bool
	preset    string // the default tag
	hasPreset bool
	enum      []string
	min, max  int64
	form      *form
	keys      *form
}

// shape is a struct of the model as its tags describe it.
type shape struct {
	fields  []*field
	byName  map[string]*field
	short   *field        // nil when the struct has only a long form
	initial reflect.Value // the struct with every default in it; its maps and slices are nil, so a copy shares nothing
}

// A switchable struct may be written as true (all defaults) or false (absent).
type switchable interface{ switchable() }

func (*ClientTLS) switchable() {}

// A shortened struct has a short form that is not just one of its fields.
type shortened interface {
	// fromShort fills the struct from its short form; problem is "" when that went well, and accepted says what would.
	fromShort(text string) (problem, accepted string)
	// shortWanted describes the short form.
	shortWanted() string
}

var shapes sync.Map // reflect.Type -> *shape

// shapeOf gives the shape of a struct type. A tag that makes no sense is a bug of ours and panics, in any test that
// comes near it.
func shapeOf(t reflect.Type) *shape {
	if s, known := shapes.Load(t); known {
		return s.(*shape)
	}
	s := &shape{byName: make(map[string]*field), initial: reflect.New(t).Elem()}
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if tag.Get("yaml") == "" {
			continue
		}
		f := readField(i, t.Field(i))
		s.fields = append(s.fields, f)
		s.byName[f.name] = f
		if f.short {
			s.short = f
		}
		f.setDefault(s.initial.Field(i))
	}
	known, _ := shapes.LoadOrStore(t, s)
	return known.(*shape)
}

func readField(index int, sf reflect.StructField) *field {
	tag := sf.Tag
	f := &field{index: index, name: tag.Get("yaml"), kind: sf.Type, doc: tag.Get("doc"), required: tag.Get("required") == "true",
		short: tag.Get("short") == "true", number: tag.Get("number") == "true", max: 1 << 31}
	f.preset, f.hasPreset = tag.Lookup("default")
	if enum := tag.Get("enum"); enum != "" {
		f.enum = strings.Split(enum, ",")
	}
	bound := func(name string, into *int64) {
		if text := tag.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				panic(fmt.Sprintf("BUG: tag %s of %s: %v", name, sf.Name, err))
			}
			*into = n
		}
	}
	bound("min", &f.min)
	bound("max", &f.max)
	named := func(tagName, fallback string) *form {
		name := tag.Get(tagName)
		if name == "" {
			name = fallback
		}
		if name == "" {
			return nil
		}
		found, known := forms[name]
		if !known {
			panic(fmt.Sprintf("BUG: tag %s of %s: no form %q", tagName, sf.Name, name))
		}
		return found
	}
	f.form = named("form", "")
	if sf.Type.Kind() == reflect.Map {
		f.keys = named("keys", "name")
	}
	return f
}

// setDefault writes the field's default into v. Structs that stand in the model by value are filled with theirs.
func (f *field) setDefault(v reflect.Value) {
	if !f.hasPreset {
		if v.Kind() == reflect.Struct && scalars[v.Type()] == nil && v.Type() != reflect.TypeFor[ServiceRef]() {
			v.Set(shapeOf(v.Type()).initial)
		}
		return
	}
	d := decoder{}
	d.value(&Node{text: f.preset, class: classExpanded, name: f.name}, v, f)
	if len(d.problems) > 0 {
		panic(fmt.Sprintf("BUG: default of %s: %v", f.name, d.problems))
	}
}

// names gives the keys that a struct accepts, in the order of the model.
func (s *shape) names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}
