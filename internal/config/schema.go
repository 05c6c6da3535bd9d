package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Schema gives the JSON Schema (draft 2020-12) of a configuration file, from the same tags that the decoder reads, so
// that editors complete and check. It accepts what the decoder accepts, short forms and references included; names that
// refer to each other are beyond it. A file of a folder may lack what another file has, so nothing is required at the
// top. Policies are described as far as their kinds are given; without any, every kind is accepted.
func Schema(kinds ...PolicyKind) []byte {
	b := schemaBuilder{kinds: kinds, definitions: map[string]any{
		"reference": object{"type": "string", "pattern": `\$\{`, "description": "Text with ${env:NAME} or ${file:path} in it."},
	}}
	root := b.structure(configType)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Menshen configuration"
	root["$defs"] = b.definitions
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("BUG: " + err.Error()) // maps, strings and numbers only
	}
	return append(text, '\n')
}

type object = map[string]any

type schemaBuilder struct {
	definitions map[string]any
	kinds       []PolicyKind
}

// field gives the schema of the value under a key.
func (b *schemaBuilder) field(f *field) object {
	s := b.value(f.kind, f)
	if f.doc != "" {
		s["description"] = f.doc
	}
	if f.hasPreset {
		s["default"] = f.presetValue()
	}
	if f.required {
		switch f.kind.Kind() {
		case reflect.Map:
			s["minProperties"] = 1
		case reflect.Slice:
			s["minItems"] = 1 // says nothing of a scalar in place of a list
		case reflect.String:
			s["minLength"] = 1
		}
	}
	return s
}

// presetValue gives the default as JSON has it.
func (f *field) presetValue() any {
	switch f.kind.Kind() {
	case reflect.Bool:
		return f.preset == "true"
	case reflect.Int:
		n, _ := strconv.Atoi(f.preset)
		return n
	}
	if f.preset == "0" {
		return 0
	}
	return f.preset
}

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

func anyOf(schemas ...any) object { return object{"anyOf": schemas} }

func (b *schemaBuilder) value(t reflect.Type, f *field) object {
	if t.Kind() == reflect.Pointer {
		s := b.value(t.Elem(), f)
		if _, ok := reflect.New(t.Elem()).Interface().(switchable); ok {
			return anyOf(object{"type": "boolean"}, ref("reference"), s)
		}
		return s
	}
	if known := scalars[t]; known != nil {
		return b.scalar(t, known)
	}
	if t == reflect.TypeFor[ServiceRef]() {
		return anyOf(object{"type": "string", "minLength": 1, "description": "The name of a service."}, b.definition(reflect.TypeFor[Service]()))
	}
	if t == reflect.TypeFor[Policy]() {
		return b.policy()
	}
	switch t.Kind() {
	case reflect.Struct:
		return b.definition(t)
	case reflect.Map:
		inner := *f
		inner.keys = nil
		s := object{"type": "object", "additionalProperties": b.value(t.Elem(), &inner)}
		if f.keys != nil && f.keys.pattern != "" {
			s["propertyNames"] = object{"pattern": f.keys.pattern}
		}
		return s
	case reflect.Slice:
		inner := *f
		inner.required = false
		item := b.value(t.Elem(), &inner)
		if t.Elem() == reflect.TypeFor[Policy]() {
			return anyOf(object{"type": "array", "items": item}, object{"type": "string", "minLength": 1})
		}
		if isStruct(t.Elem()) && scalars[t.Elem()] == nil {
			short := shapeOf(t.Elem()).short
			if short == nil {
				return object{"type": "array", "items": item}
			}
			return anyOf(object{"type": "array", "items": item}, b.value(short.kind, short))
		}
		return anyOf(object{"type": "array", "items": item}, item)
	case reflect.Bool:
		return anyOf(object{"type": "boolean"}, ref("reference"))
	case reflect.Int, reflect.Int64:
		return b.integer(f)
	default:
		return b.text(f)
	}
}

func (b *schemaBuilder) integer(f *field) object {
	if len(f.enum) > 0 {
		numbers := make([]any, len(f.enum))
		for i, text := range f.enum {
			numbers[i], _ = strconv.Atoi(text)
		}
		return anyOf(object{"enum": numbers}, ref("reference"))
	}
	return anyOf(object{"type": "integer", "minimum": f.min, "maximum": f.max}, ref("reference"))
}

func (b *schemaBuilder) text(f *field) object {
	if len(f.enum) > 0 {
		var accepted []any
		for _, text := range f.enum {
			accepted = append(accepted, text)
			if n, err := strconv.ParseFloat(text, 64); err == nil {
				accepted = append(accepted, n)
			}
		}
		return anyOf(object{"enum": accepted}, ref("reference"))
	}
	s := object{"type": "string"}
	if f.form != nil && f.form.pattern != "" {
		s["pattern"] = f.form.pattern
		alternatives := []any{s, ref("reference")}
		if f.number {
			alternatives = append(alternatives, object{"type": "integer", "minimum": 100, "maximum": 599})
		}
		return anyOf(alternatives...)
	}
	return s
}

func (b *schemaBuilder) scalar(t reflect.Type, s *scalar) object {
	name := strings.ToLower(t.Name())
	if _, known := b.definitions[name]; !known {
		alternatives := []any{object{"type": "string", "pattern": s.pattern.String()}, ref("reference")}
		switch t {
		case reflect.TypeFor[Duration](), reflect.TypeFor[RateOrNone]():
			alternatives = append(alternatives, object{"const": 0})
		case reflect.TypeFor[Size]():
			alternatives = append(alternatives, object{"type": "integer", "minimum": 0})
		case reflect.TypeFor[Weight]():
			alternatives = append(alternatives, object{"type": "number", "minimum": 0, "maximum": 1e9})
		case reflect.TypeFor[netip.Prefix]():
		}
		d := anyOf(alternatives...)
		d["description"] = s.want
		b.definitions[name] = d
	}
	return ref(name)
}

// definition gives a reference to the schema of a struct, which is made once.
func (b *schemaBuilder) definition(t reflect.Type) object {
	name := strings.ToLower(t.Name()[:1]) + t.Name()[1:]
	if _, known := b.definitions[name]; known {
		return ref(name)
	}
	b.definitions[name] = nil // taken, should t hold itself
	s := shapeOf(t)
	long := b.structure(t)
	definition := long
	if _, ok := reflect.New(t).Interface().(shortened); ok {
		definition = anyOf(object{"type": "string", "pattern": matchPattern}, ref("reference"), long)
	} else if s.short != nil {
		definition = anyOf(b.field(s.short), long)
	}
	b.definitions[name] = definition
	return ref(name)
}

// structure gives the schema of a struct's long form.
func (b *schemaBuilder) structure(t reflect.Type) object {
	s := shapeOf(t)
	properties, required := object{}, []string(nil)
	for _, f := range s.fields {
		properties[f.name] = b.field(f)
		if f.required {
			required = append(required, f.name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		slices.Sort(required)
		out["required"] = required
	}
	for key, value := range rules(t) {
		out[key] = value
	}
	return out
}

// rules gives what check.go says of one mapping alone, so far as a schema can say it.
func rules(t reflect.Type) object {
	has := func(keys ...string) object { return object{"required": keys} }
	protocol := func(p Protocol) object { return object{"properties": object{"protocol": object{"const": p}}} }
	switch t {
	case reflect.TypeFor[Route]():
		return object{"oneOf": []any{has("service"), has("split"), has("redirect"), has("respond")}}
	case reflect.TypeFor[Listener]():
		other := func(p Protocol, keys ...string) object {
			refused := object{}
			for _, key := range keys {
				refused[key] = false
			}
			s := object{"if": object{"allOf": []any{protocol(p), has("protocol")}}, "then": object{"properties": refused}}
			if p == ProtocolHTTP {
				s["if"] = protocol(p) // also when absent
			}
			return s
		}
		tcp := other(ProtocolTCP, "routes", "policies", "default_database")
		tcp["then"].(object)["required"] = []string{"service"}
		return object{"allOf": []any{other(ProtocolHTTP, "service", "default_database"), tcp, other(ProtocolMySQL, "service", "routes", "policies")}}
	case reflect.TypeFor[ListenerTLS]():
		return object{"dependentRequired": pair, "anyOf": []any{has("cert"), has("certificates")}}
	case reflect.TypeFor[Database]():
		return object{"allOf": []any{object{"properties": object{"shards": object{"maxProperties": 1}}}}}
	case reflect.TypeFor[ClientTLS]():
		return object{"dependentRequired": pair}
	}
	return nil
}

var pair = object{"cert": []string{"key"}, "key": []string{"cert"}}
