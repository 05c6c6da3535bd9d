package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// compareLexemes fails when simple takes a text for something else than the library. It says whether it takes it at all.
func compareLexemes(t *testing.T, text string) bool {
	t.Helper()
	text, _, _, bad := clean([]byte(text))
	if bad != "" {
		return false
	}
	s := simple{text: text}
	var got []lexeme
	for s.more() {
		got = s.fill(got)
	}
	if s.failed {
		return false
	}
	want, problems := libraryLexemes(&document{name: "f"}, text)
	if len(problems) > 0 {
		t.Fatalf("taken, but refused by the library: %v\n%s", problems, text)
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("lexeme %d\ngot  %v\nwant %v\n%s", i, got[min(i, len(got)):min(i+4, len(got))], want[min(i, len(want)):min(i+4, len(want))], text)
		}
	}
	return true
}

// compareTrees fails when it makes a difference for the tree, or for what is told about it, that simple lines are read by simple.
func compareTrees(t *testing.T, text string) {
	t.Helper()
	clear, _, _, bad := clean([]byte(text))
	if bad != "" {
		return
	}
	doc := &document{name: "f"}
	got, gotProblems := parseYAML(doc, []byte(text))
	defer func() {
		if recover() != nil { // the library's lexer on odd input: see parseYAML
			return
		}
	}()
	tokens, wantProblems := libraryLexemes(doc, clear)
	var want *Node
	if len(wantProblems) == 0 {
		r := reader{doc: doc, tokens: tokens}
		want, wantProblems = r.document(), r.problems
	}
	if !slices.Equal(gotProblems, wantProblems) {
		t.Errorf("got  %v\nwant %v\n%s", gotProblems, wantProblems, text)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the trees differ\n%s", text)
	}
}

// TestSimpleLexemes: what configurations are made of is simple, and means what the library says.
func TestSimpleLexemes(t *testing.T) {
	t.Parallel()
	f := func(text string, simple bool) {
		t.Helper()
		compareTrees(t, text)
		if compareLexemes(t, text) != simple {
			t.Errorf("simple: %t, want %t\n%s", !simple, simple, text)
		}
	}
	for _, text := range []string{
		"", "\n\n", "# nothing\n", "a: b", "a:\n  b: c\n", "a: b # c", "a: b#c", "a: 'b # c' # d", "  # in front\na: 1\n  # behind\nb: 2\n",
		"routes:\n  r1: {match: \"GET a.example/x/{id}/*\", service: s1}\n", "r: {match: GET a.example/x, service: s1}", "match: a.example/x/{id}/*",
		"services:\n  a: {endpoints: [10.0.0.1:9001, 10.0.0.2:9001]}\n", "a: [b, [c, {d: e}], \"f\", 'g']", "a: {b: {}, c: []}", "a: { b: c , d: e }",
		"a:\n- b\n- c: d\n  e: f\n-\n  g: h\n- {i: j}\n- - k\n  - l\n", "a:\n  - b: c\n", "- a\n- 1\n- null\n", "a: 10\nb: 1.5\nc: 0x10\nd: 007\ne: .inf\nf: ~\ng: null\nh: true\ni: yes\nj: 1_000\n",
		"a: b:c:d\nb: http://a.example:80/x\n", "a: {b: c:d, e: http://a.example:80/x}", "\"a\": b\n'c': d\n", "a: {\"b\": c}", "a: ~^/x$\nb: $${x}\nc: ${env:X}\n", "a: 10s\nb: 1MiB\nc: 99.9%\n",
		"a: b|c\n", "a: \"b\"  \n", "a: b\r\nc: d\r\n",
	} {
		f(text, true)
	}
	for _, text := range lineBreakTexts {
		f(text, true)
	}
	for _, text := range []string{
		"a: b\n  c\n", "a: b\n  c: d\n", "a\n", "a: |\n  b\n", "a: [\n b]\n", "a: &b c", "a: *b", "a: !b c", "<<: a", "? a", "---\na: b", "a: b\n...", "%YAML 1.2", "a: \"\\n\"", "a: 'b''c'", "a: 'b\n  c'",
		"a:\tb", "ä: b", "a: b: c", "a: b:", "a: {b: c: d}", "a: {b: c", "a: [b}", "a: -1", "a: {b:c}x", "a: \"b\" c", "a: \"b\": c", "a : b", "a: {b : c}", "a: {b:}", "a: [::1]", "{a: b}", "[a]", "\"a\"", "a: {b: [c}", "a: @b", "a: `b`", "a: ]", "a: b \n",
		"a: b\n c: d\ne: &f g", strings.Repeat("- ", 3) + "...x", "a: " + strings.Repeat("[", depthMax+1) + strings.Repeat("]", depthMax+1),
	} {
		f(text, false)
	}
}

// lineBreakTexts hold a key d behind a comment that ends with a line break other than \n.
var lineBreakTexts = []string{
	"a: b # c\rd: e\n", "# c\rd: e\n", "a: {b: c} # x\rd: e\n", "# c\r\nd: e", "a: b # c\r\r\nd: e\r", "a: # b\r\n  c: 1 # \r\n\r\nd: e\r\n", "# c\n\rd: e",
}

// TestLineBreaks: each of YAML's line breaks ends a comment, and counts as one line.
func TestLineBreaks(t *testing.T) {
	t.Parallel()
	for _, text := range append(slices.Clone(lineBreakTexts), "a: 'b\r\n  c' # x\r\nd: e", "a: [b, # x\rc]\rd: e", "a: |\r\n  b\r  c\r\n# x\r\nd: e") {
		before, _, _ := strings.Cut(text, "d: e")
		want := 1 + strings.Count(before, "\n") + strings.Count(before, "\r") - strings.Count(before, "\r\n")
		root, problems := parseYAML(&document{name: "f"}, []byte(text))
		if len(problems) > 0 {
			t.Errorf("%q: %v", text, problems)
			continue
		}
		if d := root.get("d"); d == nil || d.text != "e" || d.keyLine != want || d.keyColumn != 1 {
			t.Errorf("%q: d is %+v, want it on line %d", text, d, want)
		}
	}
	// The library and clean, which name the place of a problem, count the same lines.
	for text, want := range map[string]int{"# c\r\nd: &x e": 2, "# c\rd: &x e": 2, "a: b # c\r\r\nd: &x e": 3, "# c\r\nd: \x01": 2, "# c\rd: \x01": 2, "# c\r\nd: \xff": 2} {
		_, problems := parseYAML(&document{name: "f"}, []byte(text))
		if len(problems) != 1 || problems[0].Line != want {
			t.Errorf("%q: %v, want one problem on line %d", text, problems, want)
		}
	}
}

// TestSimpleConfigurations: the configurations of this repository are simple but for a few.
func TestSimpleConfigurations(t *testing.T) {
	t.Parallel()
	taken, all := 0, 0
	for _, text := range goldenTexts(t) {
		compareTrees(t, text)
		if strings.HasPrefix(text, "listeners:") || strings.HasPrefix(text, "routes:") {
			all++
			if compareLexemes(t, text) {
				taken++
			}
		}
	}
	if all < 50 || taken < all/2 {
		t.Errorf("%d of %d", taken, all)
	}
}

// goldenTexts gives the configurations of the golden files, and what came of them.
func goldenTexts(t testing.TB) (texts []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 6 {
		t.Fatal(err, files)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "\n=== ") {
			_, body, _ := strings.Cut(part, "\n")
			input, result, _ := strings.Cut(body, "\n----\n")
			texts = append(texts, input, result)
		}
	}
	return slices.Compact(texts)
}

// FuzzSimpleLexemes: what simple takes, it takes for what the library takes it for.
func FuzzSimpleLexemes(f *testing.F) {
	for _, text := range goldenTexts(f) {
		f.Add(text)
		for line := range strings.Lines(text) {
			f.Add(line)
		}
	}
	for _, text := range lineBreakTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		compareLexemes(t, text)
		compareTrees(t, text)
	})
}
