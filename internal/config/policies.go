package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Policy is one entry of a list of policies: the name of a list of the section policies, or one kind of policy with its
// settings. What kinds there are and what their settings mean is not known here: the settings stay a Node, which the
// policy decodes when a snapshot is compiled.
type Policy struct {
	List     string // the name of a named list; "" for a policy in place
	Kind     string // rate_limit, say; "" for a name
	Settings *Node  // of Kind
}

// PolicyKind is a kind of policy as the JSON Schema describes it.
type PolicyKind struct {
	Name     string
	Settings any // a value of the struct that its settings are decoded into
}

const (
	policyWanted = "the name of a list under policies, or {kind: settings}"
	policyDoc    = "A policy: the name of a list under policies, or one kind with its settings."
)

func (d *decoder) policy(n *Node, v reflect.Value) {
	switch {
	case n.kind == kindScalar && n.isText() && n.text != "":
		v.Set(reflect.ValueOf(Policy{List: n.text}))
	case n.kind == kindMapping && len(n.items) == 1:
		settings := n.items[0]
		if settings.kind == kindScalar && settings.class == classNull {
			d.problem(settings, "has no value (accepted: its settings; {} for the defaults)")
		}
		v.Set(reflect.ValueOf(Policy{Kind: settings.name, Settings: settings}))
	case n.kind == kindMapping:
		d.problem(n, "is a mapping with %d keys (accepted: one kind of policy for each entry of the list)", len(n.items))
	default:
		d.wrong(n, v.Type(), nil)
	}
}

// policies checks one list of policies. In a named one no names may stand, so that nothing can be named in a circle.
func (k *checker) policies(path string, list []Policy, named bool) {
	for i, p := range list {
		if p.List == "" {
			continue
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		if n := k.c.node(path); n != nil && n.kind == kindScalar {
			at = path
		}
		switch {
		case named:
			k.problem(at, "is the name %q inside a named list (accepted: {kind: settings})", p.List)
		case k.c.Policies[p.List] == nil:
			k.problem(at, "no list of policies is named %q (%s; for a policy in place write {%s: {}})", p.List,
				acceptedOf("named lists", p.List, sorted(k.c.Policies)), p.List)
		}
	}
}

func (e *exporter) policy(p Policy, n *Node) *tree {
	if p.Settings == nil {
		return e.leaf(n, escapeReferences(p.List), false, nil)
	}
	t := &tree{kind: kindMapping}
	t.add(p.Kind, e.raw(p.Settings))
	return t
}

// raw gives a node as it was written.
func (e *exporter) raw(n *Node) *tree {
	t := &tree{kind: n.kind}
	switch n.kind {
	case kindScalar:
		t.text, t.truth, t.plain = n.text, n.text, n.class != classQuoted && n.raw == ""
		if n.raw != "" {
			t.text = n.raw
		}
	case kindList:
		for i, item := range n.items {
			t.add(fmt.Sprint(i), e.raw(item))
		}
	case kindMapping:
		items := slices.Clone(n.items)
		if e.o.canonical {
			slices.SortFunc(items, func(a, b *Node) int { return strings.Compare(a.name, b.name) })
		}
		for _, item := range items {
			t.add(item.name, e.raw(item))
		}
	}
	return t
}

// String gives n on one line of YAML, with references as they were written; "" for nil.
func (n *Node) String() string {
	if n == nil {
		return ""
	}
	return (&exporter{}).raw(n).flow()
}

// Position gives file:line of the key that n stands under, or of n itself when there is none; "" for nil.
func (n *Node) Position() string {
	if n == nil || n.doc == nil {
		return ""
	}
	line := n.line
	if n.keyLine > 0 {
		line = n.keyLine
	}
	return fmt.Sprintf("%s:%d", n.doc.name, line)
}

// KeyProblem is Problem at the key that n stands under, whatever n is.
func (n *Node) KeyProblem(format string, args ...any) Problem { return n.problemAtKey(format, args...) }

// policy gives the schema of an entry of a policy list: of the kinds that were named, or, when none was, of any kind.
func (b *schemaBuilder) policy() object {
	if _, known := b.definitions["policy"]; known {
		return ref("policy")
	}
	b.definitions["policy"] = nil
	name := object{"type": "string", "minLength": 1, "description": "The name of a list under policies."}
	kind := object{"type": "object", "minProperties": 1, "maxProperties": 1}
	if len(b.kinds) > 0 {
		properties := object{}
		for _, k := range b.kinds {
			t := reflect.TypeOf(k.Settings)
			long := "policy_" + k.Name // names of settings types need not differ between packages
			s := shapeOf(t)
			b.definitions[long] = b.structure(t)
			properties[k.Name] = ref(long)
			if s.short != nil {
				properties[k.Name] = anyOf(b.field(s.short), ref(long))
			}
		}
		kind["properties"], kind["additionalProperties"] = properties, false
	}
	s := anyOf(name, kind)
	s["description"] = policyDoc
	b.definitions["policy"] = s
	return ref("policy")
}
