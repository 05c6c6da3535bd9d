package config

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on what is read. A gateway's config is written by people and by their tools: 100,000 routes take about 10 MiB.
const (
	bytesMax = 16 << 20 // of all files together
	depthMax = 32       // nesting; the deepest path of the model has 7 steps
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
	keys   map[string]int // name -> index into items, in a mapping
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

// parseYAML reads one file into a tree. Its problems are those of YAML and of the part of YAML that is refused here:
// several documents, anchors, aliases, merge keys, tags, directives, explicit keys. The node is nil when the file holds
// nothing, or when no tree could be made of it.
func parseYAML(doc *document, data []byte) (root *Node, problems Problems) {
	at := func(line, column int, format string, args ...any) {
		problems = append(problems, Problem{File: doc.name, Line: line, Column: column, Message: fmt.Sprintf(format, args...)})
	}
	text, line, column, bad := clean(data)
	if bad != "" {
		at(line, column, "%s", bad)
		return nil, problems
	}
	// The YAML library has panicked on odd input before; a config that breaks it is the author's problem, not ours.
	defer func() {
		if r := recover(); r != nil {
			root = nil
			at(1, 1, "is not YAML that can be understood")
		}
	}()
	tokens := joinColons(lexer.Tokenize(text))
	if problems = refuseTokens(doc, tokens); len(problems) > 0 {
		return nil, problems
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are found below, all of them
	if err != nil {
		line, column, message := syntaxError(err)
		at(line, column, "%s", message)
		return nil, problems
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			p := position(d.Body)
			at(p.Line, p.Column, "is a second document (accepted: one document in a file; put the other into a file of its own)")
			break
		}
		body = d.Body
	}
	if body == nil {
		return nil, problems
	}
	c := converter{doc: doc}
	root = &Node{}
	c.fill(root, body, 0)
	return root, append(problems, c.problems...)
}

// clean strips a byte order mark and refuses text that is not text.
func clean(data []byte) (text string, line, column int, bad string) {
	text = strings.TrimPrefix(string(data), "\ufeff")
	line, column = 1, 1
	for i, r := range text {
		switch {
		case r == '\n':
			line, column = line+1, 0
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(text[i:]); size <= 1 {
				return "", line, column, "is not UTF-8 text"
			}
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return "", line, column, fmt.Sprintf("holds the control character %U (write it as an escape in double quotes)", r)
		}
		column++
	}
	return text, 0, 0, ""
}

var refusedTokens = map[token.Type]string{
	token.AnchorType:     "anchors (&name) are not used here (accepted: the value written out, or a named service)",
	token.AliasType:      "aliases (*name) are not used here (accepted: the value written out; text that starts with * in quotes)",
	token.MergeKeyType:   "merge keys (<<) are not used here (accepted: the keys written out)",
	token.TagType:        "tags (!name) are not used here (accepted: the value alone; text that starts with ! in quotes)",
	token.MappingKeyType: "explicit keys (?) are not used here (accepted: key: value)",
	token.DirectiveType:  "directives (%) are not used here (accepted: the document alone)",
}

// refuseTokens finds what is refused before a tree is built from it, so that neither deep nesting nor an alias bomb
// costs stack or memory.
func refuseTokens(doc *document, tokens token.Tokens) (problems Problems) {
	flow, columns := 0, []int(nil) // open brackets; columns of open block entries
	for _, t := range tokens {
		if why, refused := refusedTokens[t.Type]; refused {
			if len(problems) > problemsMax {
				break
			}
			problems = append(problems, Problem{File: doc.name, Line: t.Position.Line, Column: t.Position.Column, Message: why})
			continue
		}
		column := t.Position.Column
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.MappingValueType, token.SequenceEntryType:
			if t.Type == token.MappingValueType && t.Prev != nil {
				column = t.Prev.Position.Column
			}
			if flow > 0 {
				continue
			}
			for len(columns) > 0 && columns[len(columns)-1] >= column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, column)
		}
		if flow+len(columns) > depthMax {
			return append(problems, Problem{File: doc.name, Line: t.Position.Line, Column: t.Position.Column,
				Message: fmt.Sprintf("is nested too deeply (accepted: up to %d levels)", depthMax)})
		}
	}
	return problems
}

// joinColons repairs what the YAML library's lexer gets wrong inside flow mappings: there it takes every colon for the
// end of a key, so that {endpoints: [10.0.0.1:9001]} would hold a mapping from 10.0.0.1 to 9001. A colon ends a plain key
// only when a space, a line end or a flow indicator follows (YAML 1.2.2, 7.3.3).
func joinColons(tokens token.Tokens) token.Tokens {
	joined := make(token.Tokens, 0, len(tokens))
	for i := 0; i < len(tokens); i++ {
		colon := tokens[i]
		joined = append(joined, colon)
		if colon.Type != token.MappingValueType || len(joined) < 2 || i+1 == len(tokens) {
			continue
		}
		before, after := joined[len(joined)-2], tokens[i+1]
		// The original text tells, not the column: that one is off by one when a space ends the line.
		if !isPlain(after) || after.Position.Line != colon.Position.Line || after.Origin == "" || strings.ContainsAny(after.Origin[:1], " \t\r\n") {
			continue
		}
		switch gap := colon.Position.Column - before.Position.Column - utf8.RuneCountInString(before.Value); {
		case isPlain(before) && before.Position.Line == colon.Position.Line && gap >= 0:
			joined = joined[:len(joined)-1]
			joined[len(joined)-1] = token.New(before.Value+strings.Repeat(" ", gap)+":"+after.Value, before.Origin+":"+after.Origin, before.Position)
			i++
		case before.Type == token.SequenceStartType || before.Type == token.CollectEntryType: // [::1]
			joined[len(joined)-1] = token.New(":"+after.Value, ":"+after.Origin, colon.Position)
			i++
		}
	}
	for i, t := range joined {
		t.Prev, t.Next = nil, nil
		if i > 0 {
			t.Prev, joined[i-1].Next = joined[i-1], t
		}
	}
	return joined
}

// isPlain tells whether a token is a scalar without quotes.
func isPlain(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType, token.InfinityType, token.NanType,
		token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType:
		return true
	}
	return false
}

// syntaxError takes position and words out of an error of the YAML library, whose text starts with [line:column] and
// goes on with an excerpt of the source.
func syntaxError(err error) (line, column int, message string) {
	message, _, _ = strings.Cut(err.Error(), "\n")
	line, column = 1, 1
	if rest, found := strings.CutPrefix(message, "["); found {
		if where, words, found := strings.Cut(rest, "] "); found {
			message = words
			l, c, _ := strings.Cut(where, ":")
			if n, err := strconv.Atoi(l); err == nil {
				line = n
			}
			if n, err := strconv.Atoi(c); err == nil {
				column = n
			}
		}
	}
	return line, column, "is not valid YAML: " + message
}

func position(n ast.Node) token.Position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // the library gives the place of the first colon
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		n = v.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return *t.Position
	}
	return token.Position{Line: 1, Column: 1}
}

// converter turns the library's tree into ours.
type converter struct {
	doc      *document
	problems Problems
}

// fill puts what n says into out, whose place in the tree is set already.
func (c *converter) fill(out *Node, n ast.Node, depth int) {
	out.doc = c.doc
	if n == nil {
		out.text, out.line, out.column = "null", out.keyLine, out.keyColumn
		return
	}
	p := position(n)
	out.line, out.column = p.Line, p.Column
	if depth > 2*depthMax { // the tokens were counted before; this is the second line of defence
		c.problems = append(c.problems, out.Problem("is nested too deeply"))
		return
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		c.mapping(out, n.Values, depth)
	case *ast.MappingValueNode:
		c.mapping(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = kindList
		for i, v := range n.Values {
			item := &Node{parent: out, at: i}
			c.fill(item, v, depth+1)
			out.items = append(out.items, item)
		}
	case *ast.StringNode:
		out.text, out.class = n.Value, classText
		if t := n.GetToken().Type; t == token.SingleQuoteType || t == token.DoubleQuoteType {
			out.class = classQuoted
		}
	case *ast.LiteralNode:
		out.text, out.class = n.Value.Value, classQuoted
	case *ast.BoolNode:
		out.text, out.class = n.GetToken().Value, classBool
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.text, out.class = n.GetToken().Value, classNumber
		if integer.MatchString(out.text) {
			out.class = classInteger
		}
	case *ast.NullNode:
		out.text = "null"
	default:
		c.problems = append(c.problems, out.Problem("is YAML of a kind that is not used here (accepted: mappings, lists and scalars)"))
	}
}

func (c *converter) mapping(out *Node, values []*ast.MappingValueNode, depth int) {
	out.kind, out.keys = kindMapping, make(map[string]int, len(values))
	for _, v := range values {
		p := position(v.Key)
		if name := v.Key.GetToken().Value; len(name) > keyBytesMax {
			c.problems = append(c.problems, Problem{File: c.doc.name, Line: p.Line, Column: p.Column,
				Message: fmt.Sprintf("a key of %d bytes (accepted: up to %d)", len(name), keyBytesMax)})
			continue
		}
		item := &Node{parent: out, name: v.Key.GetToken().Value, keyLine: p.Line, keyColumn: p.Column, doc: c.doc}
		if first := out.get(item.name); first != nil {
			c.problems = append(c.problems, item.Problem("duplicate key (first at %s)", first.keyPosition()))
			continue
		}
		c.fill(item, v.Value, depth+1)
		out.put(item)
	}
}

// put adds an item to a mapping that has none of its name.
func (n *Node) put(item *Node) {
	item.parent = n
	n.keys[item.name] = len(n.items)
	n.items = append(n.items, item)
}

// get gives the value under a key of a mapping; nil when n is nil, is no mapping, or has no such key.
func (n *Node) get(name string) *Node {
	if n == nil || n.kind != kindMapping {
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
