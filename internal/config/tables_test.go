package config

import (
	"fmt"
	"reflect"
	"strings"
)

// RewriteFlag is the flag of the text cases, for the tests outside the package.
var RewriteFlag = rewrite

// ManualTables gives the reference part of the manual: one table for each mapping of the model.
func ManualTables() string {
	m := manualWriter{}
	for _, f := range shapeOf(configType).fields {
		t := f.kind
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		fmt.Fprintf(&m.b, "### %s\n\n%s\n\n", f.name, f.doc)
		if t.Kind() != reflect.Struct {
			fmt.Fprintf(&m.b, "%s.\n\n", capital(typeName(f.kind, f)))
			continue
		}
		path := f.name
		if f.kind.Kind() == reflect.Map {
			path += ".NAME"
		}
		m.table(path, t, true)
	}
	return m.b.String()
}

type manualWriter struct {
	b    strings.Builder
	done []reflect.Type
}

// table writes the table of a struct, and then those of the structs inside, each once.
func (m *manualWriter) table(path string, t reflect.Type, top bool) {
	if top {
		fmt.Fprintf(&m.b, "`%s`:\n\n", path)
	}
	m.b.WriteString("| Key | Value | Default | |\n|---|---|---|---|\n")
	type inner struct {
		path string
		t    reflect.Type
	}
	var inside []inner
	for _, f := range shapeOf(t).fields {
		name := "`" + f.name + "`"
		if f.required {
			name = "**" + name + "**"
		}
		preset := ""
		if f.hasPreset {
			preset = "`" + f.preset + "`"
		}
		remark := f.doc
		if f.short {
			remark += " (short)"
		}
		fmt.Fprintf(&m.b, "| %s | %s | %s | %s |\n", name, escapeCell(typeName(f.kind, f)), preset, escapeCell(remark))
		below, at := f.kind, path+"."+f.name
		for below.Kind() == reflect.Pointer || below.Kind() == reflect.Map || below.Kind() == reflect.Slice {
			if below.Kind() == reflect.Map {
				at += ".NAME"
			} else if below.Kind() == reflect.Slice {
				at += "[]"
			}
			below = below.Elem()
		}
		if below.Kind() == reflect.Struct && scalars[below] == nil && below != reflect.TypeFor[ServiceRef]() && below != reflect.TypeFor[Policy]() {
			inside = append(inside, inner{at, below})
		}
	}
	m.b.WriteString("\n")
	for _, i := range inside {
		known := false
		for _, done := range m.done {
			known = known || done == i.t
		}
		if known {
			continue
		}
		m.done = append(m.done, i.t)
		m.table(i.path, i.t, true)
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// typeName says in a few words what a key takes.
func typeName(t reflect.Type, f *field) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t == reflect.TypeFor[Size]():
		return "size"
	case t == reflect.TypeFor[Percent]():
		return "share"
	case t == reflect.TypeFor[Weight]():
		return "share or parts"
	case t == reflect.TypeFor[Secret]():
		return "secret"
	case t == reflect.TypeFor[ServiceRef]():
		return "name of a service, or a service"
	case t == reflect.TypeFor[Policy]():
		return "policy (see [policies.md](policies.md))"
	case t == reflect.TypeFor[Rate]():
		return "rate"
	case t == reflect.TypeFor[RateOrNone]():
		return "rate or 0"
	case scalars[t] != nil:
		return scalars[t].want
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t == reflect.TypeFor[*ClientTLS]() {
			return "true or mapping"
		}
		return typeName(t.Elem(), f)
	case reflect.Struct:
		if t == reflect.TypeFor[Match]() {
			return "`[METHOD ][host]/path` or mapping"
		}
		if short := shapeOf(t).short; short != nil {
			return typeName(short.kind, short) + " or mapping"
		}
		return "mapping"
	case reflect.Map:
		inner := *f
		inner.keys = nil
		return "mapping of " + typeName(t.Elem(), &inner)
	case reflect.Slice:
		return "list of " + typeName(t.Elem(), f)
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		if len(f.enum) == 0 {
			if f.max < 1<<31 {
				return fmt.Sprintf("number, %d to %d", f.min, f.max)
			}
			return "number"
		}
	}
	if len(f.enum) > 0 {
		return "`" + strings.Join(f.enum, "`, `") + "`"
	}
	if f.form == forms["file"] {
		return "file"
	}
	if f.form != nil && len(f.form.want) < 12 {
		return f.form.want
	}
	return "text"
}
