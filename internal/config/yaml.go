package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// parseYAML reads one file into a tree. Its problems are those of YAML and of the part of YAML that is refused here:
// several documents, anchors, aliases, merge keys, tags, directives, explicit keys. The node is nil when the file holds
// nothing, or when no tree could be made of it.
//
// Only the lexer is a library's, for what is not simple enough for ours (simple). Its parser takes memory with the square of a mapping's size (80,000 routes, 7 MiB of
// text: 25 GB allocated, 20 s) and recurses as deep as the text says; without the refused parts of YAML, making the tree
// is short work.
func parseYAML(doc *document, data []byte) (root *Node, problems Problems) {
	at := func(line, column int, format string, args ...any) {
		problems = append(problems, Problem{File: doc.name, Line: line, Column: column, Message: fmt.Sprintf(format, args...)})
	}
	text, line, column, bad := clean(data)
	if bad != "" {
		at(line, column, "%s", bad)
		return nil, problems
	}
	// The lexer has panicked on odd input before; a text that breaks it is its author's problem, not ours.
	defer func() {
		if r := recover(); r != nil {
			root, problems = nil, Problems{{File: doc.name, Line: 1, Column: 1, Message: "is not YAML that can be understood"}}
		}
	}()
	r := reader{doc: doc, lexer: &simple{text: text}}
	root = r.document()
	for r.lexer.more() { // the reader may have stopped: what the library refuses is told first
		r.lexer.fill(nil)
	}
	if r.lexer.failed {
		tokens, problems := libraryLexemes(doc, text)
		if len(problems) > 0 {
			return nil, problems
		}
		r = reader{doc: doc, tokens: tokens}
		root = r.document()
	}
	return root, r.problems
}

// libraryLexemes is the library's lexer with our refusals and repairs.
func libraryLexemes(doc *document, text string) ([]lexeme, Problems) {
	var tokens token.Tokens
	pause.Beside(func() { tokens = lexer.Tokenize(text) })
	if problems := refuseTokens(doc, tokens); len(problems) > 0 {
		return nil, problems
	}
	tokens = joinColons(tokens)
	lexemes := make([]lexeme, len(tokens))
	for i, t := range tokens {
		l := lexeme{t.Type, t.Value, t.Position.Line, t.Position.Column}
		if !l.scalar() {
			l.text = strings.TrimSpace(t.Origin)
		}
		lexemes[i] = l
	}
	return lexemes, nil
}

// clean strips a byte order mark, makes \n of every line break, and refuses text that is not text.
func clean(data []byte) (text string, line, column int, bad string) {
	text = lineFeeds(strings.TrimPrefix(string(data), "\ufeff"))
	line, column = 1, 1
	for i, r := range text {
		switch {
		case r == '\n':
			line, column = line+1, 0
			pause.Moment()
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(text[i:]); size <= 1 {
				return "", line, column, "is not UTF-8 text"
			}
		case r < ' ' && r != '\t', r == 0x7f:
			return "", line, column, fmt.Sprintf("holds the control character %U (write it as an escape in double quotes)", r)
		}
		column++
	}
	return text, 0, 0, ""
}

// lineFeeds makes \n of \r\n and \r, which are line breaks too (YAML 1.2.2, 5.4). The library knows them, but counts the \r\n behind a
// comment twice.
func lineFeeds(text string) string {
	if strings.IndexByte(text, '\r') < 0 {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for {
		line, rest, found := strings.Cut(text, "\r")
		b.WriteString(line)
		if !found {
			return b.String()
		}
		b.WriteByte('\n')
		text = strings.TrimPrefix(rest, "\n")
		pause.Moment()
	}
}

var refusedTokens = map[token.Type]string{
	token.AnchorType:     "anchors (&name) are not used here (accepted: the value written out, or a named service)",
	token.AliasType:      "aliases (*name) are not used here (accepted: the value written out; text that starts with * in quotes)",
	token.MergeKeyType:   "merge keys (<<) are not used here (accepted: the keys written out)",
	token.TagType:        "tags (!name) are not used here (accepted: the value alone; text that starts with ! in quotes)",
	token.MappingKeyType: "explicit keys (?) are not used here (accepted: key: value)",
	token.DirectiveType:  "directives (%) are not used here (accepted: the document alone)",
}

// refuseTokens finds the parts of YAML that are refused, and what the lexer could not read.
func refuseTokens(doc *document, tokens token.Tokens) (problems Problems) {
	for _, t := range tokens {
		why, refused := refusedTokens[t.Type]
		if t.Type == token.InvalidType {
			why, refused = "is not valid YAML: "+t.Error, true
			if strings.Contains(t.Error, "'\t'") {
				why = "is not valid YAML: a tab (accepted: spaces, which alone may indent)"
			}
		}
		if refused {
			problems = append(problems, Problem{File: doc.name, Line: t.Position.Line, Column: t.Position.Column, Message: why})
		}
		if len(problems) > problemsMax || t.Type == token.InvalidType {
			break
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
		if colon.Type == token.CommentType {
			continue
		}
		joined = append(joined, colon)
		if colon.Type != token.MappingValueType || len(joined) < 2 || i+1 == len(tokens) {
			continue
		}
		before, after := joined[len(joined)-2], tokens[i+1]
		// The original text tells, not the column: that one is off by one when a space ends the line.
		if !isPlain(after.Type) || after.Position.Line != colon.Position.Line || after.Origin == "" || strings.ContainsAny(after.Origin[:1], " \t\r\n") {
			continue
		}
		switch gap := colon.Position.Column - before.Position.Column - utf8.RuneCountInString(before.Value); {
		case isPlain(before.Type) && before.Position.Line == colon.Position.Line && gap >= 0:
			joined = joined[:len(joined)-1]
			joined[len(joined)-1] = token.New(before.Value+strings.Repeat(" ", gap)+":"+after.Value, before.Origin+":"+after.Origin, before.Position)
			i++
		case before.Type == token.SequenceStartType || before.Type == token.CollectEntryType: // [::1]
			joined[len(joined)-1] = token.New(":"+after.Value, ":"+after.Origin, colon.Position)
			i++
		}
	}
	return joined
}

// isPlain tells whether a token is a scalar without quotes.
func isPlain(kind token.Type) bool {
	switch kind {
	case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType, token.InfinityType, token.NanType,
		token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType:
		return true
	}
	return false
}

// reader makes the tree. It goes on after problems of single keys, and stops at the first that makes the structure
// unclear.
type reader struct {
	doc      *document
	lexer    *simple  // gives more tokens; nil: all are there
	tokens   []lexeme // without comments, and without most of those that were read
	next     int
	problems Problems
	stopped  bool
}

// peek gives the next token; nil at the end, or once the reader has stopped. It stays what it is when the reader goes on.
func (r *reader) peek() *lexeme { return r.ahead(0) }

// ahead gives the token that comes n after the next.
func (r *reader) ahead(n int) *lexeme {
	for r.next+n >= len(r.tokens) && r.more() {
	}
	if r.stopped || r.next+n >= len(r.tokens) {
		return nil
	}
	return &r.tokens[r.next+n]
}

// more gets more tokens. They have memory of their own: others may hold tokens that were read long ago.
func (r *reader) more() bool {
	if r.lexer == nil || r.stopped {
		return false
	}
	keep := r.tokens[max(0, r.next-1):] // document looks at the one before
	tokens := r.lexer.fill(append(make([]lexeme, 0, len(keep)+512), keep...))
	r.next -= len(r.tokens) - len(keep)
	r.tokens, r.stopped = tokens, r.lexer.failed
	return len(tokens) > len(keep)
}

func (r *reader) is(kinds ...token.Type) bool {
	t := r.peek()
	for _, k := range kinds {
		if t != nil && t.kind == k {
			return true
		}
	}
	return false
}

// stop reports what makes the structure unclear; t is nil at the end of the text.
func (r *reader) stop(t *lexeme, format string, args ...any) {
	if r.stopped {
		return
	}
	line, column := 1, 1
	if t == nil && len(r.tokens) > 0 {
		t = &r.tokens[len(r.tokens)-1]
	}
	if t != nil {
		line, column = t.line, t.column
	}
	r.problems = append(r.problems, Problem{File: r.doc.name, Line: line, Column: column, Message: "is not valid YAML: " + fmt.Sprintf(format, args...)})
	r.stopped = true
}

// document reads the one document of a file.
func (r *reader) document() *Node {
	var root *Node
	for r.peek() != nil {
		switch t := r.peek(); {
		case r.is(token.DocumentHeaderType, token.DocumentEndType):
			r.next++
		case root != nil && r.tokens[r.next-1].kind != token.DocumentHeaderType && r.tokens[r.next-1].kind != token.DocumentEndType:
			r.stop(t, "%s does not belong here (perhaps its indentation is wrong, or a value stands before it)", describe(t))
		case root != nil:
			r.problems = append(r.problems, Problem{File: r.doc.name, Line: t.line, Column: t.column,
				Message: "is a second document (accepted: one document in a file; put the other into a file of its own)"})
			return root
		default:
			root = &Node{}
			r.block(root, 0, 0)
		}
	}
	if r.stopped {
		return nil
	}
	return root
}

// describe names a token in a message.
func describe(t *lexeme) string {
	if t == nil {
		return "the end of the text"
	}
	return fmt.Sprintf("%q", shorten(t.text))
}

func (l *lexeme) scalar() bool {
	return isPlain(l.kind) || l.kind == token.SingleQuoteType || l.kind == token.DoubleQuoteType
}

// isKey tells whether the next token is a key: a scalar with a colon behind it on the line where it ends.
func (r *reader) isKey() bool {
	t := r.peek()
	if t == nil || !t.scalar() {
		return false
	}
	colon := r.ahead(1)
	return colon != nil && colon.kind == token.MappingValueType && colon.line == t.line
}

func (n *Node) place(doc *document, t *lexeme) {
	n.doc, n.line, n.column = doc, t.line, t.column
}

// empty makes n the value of a key or a dash that has none.
func (n *Node) empty(doc *document) {
	n.doc, n.text, n.line, n.column = doc, "null", n.keyLine, n.keyColumn
}

// block reads the value that the next token begins, outside brackets, into out.
func (r *reader) block(out *Node, depth, line int) {
	t := r.peek()
	out.place(r.doc, t)
	if depth > depthMax {
		r.tooDeep(t)
		return
	}
	switch {
	case t.kind == token.SequenceEntryType:
		if t.line == line {
			r.stop(t, "a list cannot begin on the line of its key (accepted: [a, b], or the dash on a line of its own)")
			return
		}
		r.blockList(out, t.column, depth)
	case r.isKey():
		if t.line == line {
			r.stop(r.ahead(1), "a second colon on the line (accepted: text with a colon and a space in quotes)")
			return
		}
		r.blockMapping(out, t.column, depth)
	case t.kind == token.MappingStartType, t.kind == token.SequenceStartType:
		r.flow(out, depth)
	case t.kind == token.LiteralType, t.kind == token.FoldedType:
		r.next++
		out.class = classQuoted
		if content := r.peek(); content != nil && content.kind == token.StringType {
			out.text = content.text
			r.next++
		}
	case t.scalar():
		r.next++
		out.scalar(t)
	default:
		r.stop(t, "%s does not begin a value", describe(t))
	}
}

func (r *reader) tooDeep(t *lexeme) {
	if !r.stopped {
		r.problems = append(r.problems, Problem{File: r.doc.name, Line: t.line, Column: t.column,
			Message: fmt.Sprintf("is nested too deeply (accepted: up to %d levels)", depthMax)})
		r.stopped = true
	}
}

// blockList reads the entries whose dashes stand in a column.
func (r *reader) blockList(out *Node, column, depth int) {
	out.kind = kindList
	for r.is(token.SequenceEntryType) && r.peek().column == column {
		dash := r.peek()
		r.next++
		item := &Node{parent: out, at: len(out.items)}
		out.items = append(out.items, item)
		if value := r.peek(); value != nil && value.column > column && value.kind != token.DocumentHeaderType && value.kind != token.DocumentEndType {
			r.block(item, depth+1, 0)
		} else {
			item.place(r.doc, dash)
			item.text = "null"
		}
	}
	// In its own column the mapping around it may go on.
	r.ended(column + 1)
}

// blockMapping reads the keys that stand in a column.
func (r *reader) blockMapping(out *Node, column, depth int) {
	out.kind = kindMapping
	for r.isKey() && r.peek().column == column {
		key := r.peek()
		r.next += 2 // the colon as well
		item := r.key(out, key)
		value := r.peek()
		switch {
		case value == nil || value.kind == token.DocumentHeaderType || value.kind == token.DocumentEndType:
			item.empty(r.doc)
		case value.line == key.line, value.column > column,
			value.kind == token.SequenceEntryType && value.column == column:
			r.block(item, depth+1, key.line)
		default:
			item.empty(r.doc)
		}
	}
	r.ended(column)
}

// ended checks that what follows a list or a mapping stands left of a column, where something around it goes on.
func (r *reader) ended(column int) {
	if t := r.peek(); t != nil && t.column >= column && t.kind != token.DocumentHeaderType && t.kind != token.DocumentEndType {
		r.stop(t, "%s does not belong here (accepted: key: value, with the indentation of its neighbours)", describe(t))
	}
}

// key makes the node for a key of a mapping. One that is there already, or too long, is reported, and its value is read
// into a node that leads nowhere.
func (r *reader) key(out *Node, t *lexeme) *Node {
	pause.Moment()
	item := &Node{parent: out, name: t.text, keyLine: t.line, keyColumn: t.column, doc: r.doc}
	switch first := out.get(item.name); {
	case len(item.name) > keyBytesMax:
		r.problems = append(r.problems, Problem{File: r.doc.name, Line: item.keyLine, Column: item.keyColumn,
			Message: fmt.Sprintf("a key of %d bytes (accepted: up to %d)", len(item.name), keyBytesMax)})
		item.name = item.name[:0]
	case first != nil:
		r.problems = append(r.problems, item.Problem("duplicate key (first at %s)", first.keyPosition()))
	default:
		out.put(item)
	}
	return item
}

// flow reads what stands in brackets.
func (r *reader) flow(out *Node, depth int) {
	opening := r.peek()
	out.place(r.doc, opening)
	if depth > depthMax {
		r.tooDeep(opening)
		return
	}
	switch {
	case opening.kind == token.MappingStartType:
		r.next++
		out.kind = kindMapping
		for !r.is(token.MappingEndType) {
			if t := r.peek(); t == nil || !t.scalar() {
				r.unexpected(opening, t, "key: value, or }")
				return
			}
			r.flowKey(out, depth)
			if !r.separated(opening, token.MappingEndType, "a comma or }") {
				return
			}
		}
		r.next++
	case opening.kind == token.SequenceStartType:
		r.next++
		out.kind = kindList
		for !r.is(token.SequenceEndType) {
			t := r.peek()
			if t == nil || !t.scalar() && t.kind != token.MappingStartType && t.kind != token.SequenceStartType {
				r.unexpected(opening, t, "a value, or ]")
				return
			}
			item := &Node{parent: out, at: len(out.items)}
			out.items = append(out.items, item)
			if after := r.ahead(1); t.scalar() && after != nil && after.kind == token.MappingValueType { // [a: b] is [{a: b}]
				item.place(r.doc, t)
				item.kind = kindMapping
				r.flowKey(item, depth+1)
			} else {
				r.flow(item, depth+1)
			}
			if !r.separated(opening, token.SequenceEndType, "a comma or ]") {
				return
			}
		}
		r.next++
	default:
		r.next++
		out.scalar(opening)
	}
}

// flowKey reads key: value, or a key alone, inside brackets.
func (r *reader) flowKey(out *Node, depth int) {
	item := r.key(out, r.peek())
	r.next++
	if r.is(token.MappingValueType) {
		r.next++
		if t := r.peek(); t != nil && (t.scalar() || t.kind == token.MappingStartType || t.kind == token.SequenceStartType) {
			r.flow(item, depth+1)
			return
		}
	}
	item.empty(r.doc)
}

// separated takes the comma after an element inside brackets; false when neither that nor the end is there.
func (r *reader) separated(opening *lexeme, end token.Type, accepted string) bool {
	switch {
	case r.is(token.CollectEntryType):
		r.next++
	case !r.is(end):
		r.unexpected(opening, r.peek(), accepted)
		return false
	}
	return true
}

// unexpected reports what stands inside brackets instead of what is accepted there.
func (r *reader) unexpected(opening, t *lexeme, accepted string) {
	if t == nil {
		r.stop(opening, "%s is never closed", describe(opening))
		return
	}
	r.stop(t, "%s does not belong here (accepted: %s)", describe(t), accepted)
}

// scalar fills n from a token.
func (n *Node) scalar(t *lexeme) {
	n.text = t.text
	switch t.kind {
	case token.SingleQuoteType, token.DoubleQuoteType:
		n.class = classQuoted
	case token.NullType:
		n.class, n.text = classNull, "null"
	case token.BoolType:
		n.class = classBool
	case token.StringType:
		n.class = classText
	default:
		n.class = classNumber
		if integer.MatchString(n.text) {
			n.class = classInteger
		}
	}
}
