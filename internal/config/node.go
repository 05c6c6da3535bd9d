package config

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Bounds on what is read. A gateway's config is written by people and by their tools: 100,000 routes take about 10 MiB.
const (
	bytesMax = 16 << 20 // of all files together
	depthMax = 32       // nesting; the deepest path of the model has 7 steps. It also bounds the reader's recursion
	// A key is part of the path that each problem names.
	keyBytesMax = 1024
)

// Node is one value as it was written: a scalar, a list or a mapping, with its position. A section whose shape only its
// owner knows keeps the Node and decodes it with Decode. A Node is never changed after Parse.
type Node struct {
	kind  kind
	class class
	text  string // of a scalar, with references expanded
	raw   string // the text as written, when references or escapes stood in it
	doc   *document

	line, column       int // of the value
	keyLine, keyColumn int // of the key that it stands under; 0 at the root and in lists

	parent *Node
	name   string // the key it stands under, when the parent is a mapping
	at     int    // its index, when the parent is a list
	items  []*Node
	keys   map[string]int // name -> index into items, in a mapping of more than keysFew
}

// document is one file.
type document struct {
	name string // for messages
	dir  string // relative paths in it start here
}

type kind uint8

const (
	kindScalar kind = iota
	kindList
	kindMapping
)

// integer is a whole number as it is written here; 0x10, 0o17, 1_000 and 007 would be read differently by others.
var integer = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func (k kind) String() string { return [...]string{"a scalar", "a list", "a mapping"}[k] }

// class is what YAML takes a scalar for.
type class uint8

const (
	classNull     class = iota
	classText           // plain text
	classQuoted         // text in quotes or in a block
	classInteger        // in decimal digits
	classNumber         // any other number: 0x10, 1_000, 1.5, .inf
	classBool           // true or false
	classExpanded       // came out of a reference: whatever its reader wants
	classBroken         // held a reference that could not be expanded: reported already
)

// keysFew is up to how many keys are looked up faster one by one. Most mappings are routes with two of them, and 10,000 maps took 3 MB.
const keysFew = 8

// put adds an item to a mapping that has none of its name.
func (n *Node) put(item *Node) {
	item.parent = n
	n.items = append(n.items, item)
	switch {
	case n.keys != nil:
		n.keys[item.name] = len(n.items) - 1
	case len(n.items) > keysFew:
		n.keys = make(map[string]int, 2*keysFew)
		for i, item := range n.items {
			n.keys[item.name] = i
		}
	}
}

// get gives the value under a key of a mapping; nil when n is nil, is no mapping, or has no such key.
func (n *Node) get(name string) *Node {
	if n == nil || n.kind != kindMapping {
		return nil
	}
	if n.keys == nil {
		for _, item := range n.items {
			if item.name == name {
				return item
			}
		}
		return nil
	}
	if i, found := n.keys[name]; found {
		return n.items[i]
	}
	return nil
}

// index gives an item of a list; nil when n is nil, is no list, or is shorter.
func (n *Node) index(i int) *Node {
	if n == nil || n.kind != kindList || i < 0 || i >= len(n.items) {
		return nil
	}
	return n.items[i]
}

// keyPosition gives file:line:column of the key that n stands under.
func (n *Node) keyPosition() string {
	return fmt.Sprintf("%s:%d:%d", n.doc.name, n.keyLine, n.keyColumn)
}

// Path gives the place of n in the configuration: listeners.web.address, routes.users.match.paths[0].
func (n *Node) Path() string {
	if n.parent == nil {
		return n.name
	}
	above := n.parent.Path()
	switch {
	case n.parent.kind == kindList:
		return fmt.Sprintf("%s[%d]", above, n.at)
	case above == "":
		return n.name
	default:
		return above + "." + n.name
	}
}

// Problem says what is wrong with n, at its place: that of the value when it is a scalar, else that of its key.
func (n *Node) Problem(format string, args ...any) Problem {
	p := Problem{Line: n.line, Column: n.column, Path: n.Path(), Message: fmt.Sprintf(format, args...)}
	if n.doc != nil {
		p.File = n.doc.name
	}
	if n.keyLine > 0 && (n.line == 0 || n.kind != kindScalar || n.class == classNull) {
		p.Line, p.Column = n.keyLine, n.keyColumn
	}
	return p
}

// problemAtKey is Problem for the key that n stands under, whatever n is.
func (n *Node) problemAtKey(format string, args ...any) Problem {
	p := n.Problem(format, args...)
	if n.keyLine > 0 {
		p.Line, p.Column = n.keyLine, n.keyColumn
	}
	return p
}

// JSON gives n as encoding/json would have read it, with references as they were written: what a JSON Schema judges.
func (n *Node) JSON() any {
	switch n.kind {
	case kindList:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = item.JSON()
		}
		return list
	case kindMapping:
		mapping := make(map[string]any, len(n.items))
		for _, item := range n.items {
			mapping[item.name] = item.JSON()
		}
		return mapping
	}
	switch {
	case n.raw != "":
		return n.raw
	case n.class == classNull:
		return nil
	case n.class == classBool:
		return strings.EqualFold(n.text, "true")
	case n.class == classInteger:
		return json.Number(n.text)
	case n.class == classNumber:
		if f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	return n.text
}

// find follows a path as Path gives it, and gives the deepest node that exists on the way. Names may hold dots, so each
// split of the path is tried.
func (n *Node) find(path string) *Node {
	best, _ := n.descend(path)
	return best
}

// descend gives the deepest node on path, and how many bytes of the path lie beyond it.
func (n *Node) descend(path string) (*Node, int) {
	if path == "" {
		return n, 0
	}
	best, rest := n, len(path)
	if n.kind == kindList {
		inner, after, closed := strings.Cut(path, "]")
		i, err := strconv.Atoi(strings.TrimPrefix(inner, "["))
		if item := n.index(i); closed && err == nil && item != nil {
			return item.descend(strings.TrimPrefix(after, "."))
		}
		return best, rest
	}
	for end := 1; end <= len(path) && n.kind == kindMapping; end++ {
		if end < len(path) && path[end] != '.' && path[end] != '[' {
			continue
		}
		if item := n.get(path[:end]); item != nil {
			if node, beyond := item.descend(strings.TrimPrefix(path[end:], ".")); beyond < rest {
				best, rest = node, beyond
			}
		}
	}
	return best, rest
}
