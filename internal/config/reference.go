package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// referenceBytesMax bounds the file behind ${file:...}: a secret, a key, a small body.
const referenceBytesMax = 1 << 20

const referencesAccepted = "accepted: ${env:NAME}, ${file:path}; $${ is a literal ${"

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expander replaces references in scalars.
type expander struct {
	problems Problems
	files    map[string]bool // named by ${file:}, absolute or relative to the working folder
}

// tree expands every scalar value under n. Keys are never expanded: what a config is about must be visible in it.
func (e *expander) tree(n *Node) {
	for _, item := range n.items {
		pause.Moment()
		e.tree(item)
	}
	if n.kind != kindScalar || !strings.Contains(n.text, "${") {
		return
	}
	expanded, referred, problem := e.text(n.text, n.doc)
	if problem != "" {
		e.problems = append(e.problems, n.Problem("%s", problem))
		expanded = "" // a wrong text would be reported once more by whoever reads it
		n.raw, n.text, n.class = n.text, expanded, classBroken
		return
	}
	n.raw, n.text = n.text, expanded
	if referred {
		n.class = classExpanded
	}
}

// text expands one text. The result of a reference is taken as it is and never expanded again, so a secret cannot name
// another one; one that tries is refused, because its author expects something else.
func (e *expander) text(text string, doc *document) (expanded string, referred bool, problem string) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), referred, ""
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			text = rest
			continue
		}
		b.WriteString(before)
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", true, fmt.Sprintf("has a reference without its closing brace (%s)", referencesAccepted)
		}
		value, problem := e.reference(name, doc)
		if problem != "" {
			return "", true, problem
		}
		if strings.Contains(value, "${env:") || strings.Contains(value, "${file:") {
			return "", true, fmt.Sprintf("refers to ${%s}, whose value holds a reference itself (accepted: a value without ${env: or ${file:)", name)
		}
		b.WriteString(value)
		text, referred = after, true
	}
}

func (e *expander) reference(name string, doc *document) (value, problem string) {
	scheme, what, _ := strings.Cut(name, ":")
	switch scheme {
	case "env":
		if !envName.MatchString(what) {
			return "", fmt.Sprintf("refers to ${%s}, which names no environment variable (%s)", name, referencesAccepted)
		}
		value, set := os.LookupEnv(what)
		if !set {
			return "", fmt.Sprintf("refers to the environment variable %s, which is not set", what)
		}
		return value, ""
	case "file":
		if what == "" {
			return "", fmt.Sprintf("refers to ${%s}, which names no file (%s)", name, referencesAccepted)
		}
		path := doc.resolve(what)
		e.files[path] = true
		data, err := readBounded(path, referenceBytesMax)
		if err != nil {
			return "", fmt.Sprintf("refers to a file that cannot be read: %v", err)
		}
		text := strings.TrimSuffix(string(data), "\n")
		return strings.TrimSuffix(text, "\r"), ""
	default:
		return "", fmt.Sprintf("has the unknown reference ${%s} (%s)", name, referencesAccepted)
	}
}

// resolve gives the path of a file that the document names: relative ones start in the document's folder.
func (d *document) resolve(path string) string {
	if filepath.IsAbs(path) || d == nil {
		return path
	}
	return filepath.Join(d.dir, path)
}

// readBounded reads a regular file (or a link to one) of at most limit bytes: neither a pipe nor a device can hold up
// or flood a reload.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}

// escapeReferences makes literal text safe to stand in a config.
func escapeReferences(text string) string { return strings.ReplaceAll(text, "${", "$${") }
