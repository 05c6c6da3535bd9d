package config

import (
	"fmt"
	"slices"
)

// Change is one difference between two configurations. Before is empty when the path is new, After when it is gone.
// Both are one line of YAML; secrets are masked, so a changed secret shows as *** twice.
type Change struct {
	Path, Before, After string
}

// String gives the change on one line, marked like a line of a patch.
func (c Change) String() string {
	switch {
	case c.Before == "":
		return fmt.Sprintf("+ %s: %s", c.Path, c.After)
	case c.After == "":
		return fmt.Sprintf("- %s: %s", c.Path, c.Before)
	default:
		return fmt.Sprintf("~ %s: %s -> %s", c.Path, c.Before, c.After)
	}
}

// Diff gives what differs between the effective configurations a and b, in the order of the model; at each level what is new comes last. A
// default that one of them writes out is no difference, and neither is a short form against a long one. What a
// reference stands for counts, although it is not shown.
func Diff(a, b *Config) []Change {
	full, brief := ExportOptions{MaskSecrets: true, Defaults: true, canonical: true}, ExportOptions{MaskSecrets: true, canonical: true}
	d := differ{}
	d.compare("", a.tree(full), b.tree(full), a.tree(brief), b.tree(brief))
	return d.changes
}

type differ struct{ changes []Change }

// compare walks two whole trees; beside them go the trees without defaults, which tell shorter what came or went. Those
// may end earlier.
func (d *differ) compare(path string, a, b, briefA, briefB *tree) {
	show := func(whole, brief *tree) string {
		switch {
		case whole == nil:
			return ""
		case brief != nil:
			return brief.flow()
		default:
			return whole.flow()
		}
	}
	if a == nil || b == nil || a.kind != b.kind {
		d.changes = append(d.changes, Change{path, show(a, briefA), show(b, briefB)})
		return
	}
	if a.kind == kindScalar {
		if a.text != b.text || a.truth != b.truth {
			d.changes = append(d.changes, Change{path, a.scalar(), b.scalar()})
		}
		return
	}
	names := slices.Clone(a.names)
	for _, name := range b.names {
		if a.get(name) == nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		at := join(path, name)
		if a.kind == kindList {
			at = fmt.Sprintf("%s[%s]", path, name)
		}
		d.compare(at, a.get(name), b.get(name), briefA.get(name), briefB.get(name))
	}
}
