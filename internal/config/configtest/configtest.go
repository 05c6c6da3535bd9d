// Package configtest lets tests check configurations that stand in documents: that each loads, and that the JSON Schema
// accepts it. It is for tests only, since it brings a JSON Schema validator along.
package configtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/menshen-gateway/menshen/internal/config"
)

var schema = sync.OnceValues(func() (*jsonschema.Schema, error) { return compile() })

func compile(kinds ...config.PolicyKind) (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema(kinds...)))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("menshen.json", document); err != nil {
		return nil, err
	}
	return compiler.Compile("menshen.json")
}

// Validator gives a function like Validate, for the JSON Schema that knows these kinds of policies and no others.
func Validator(kinds ...config.PolicyKind) (func(document any) error, error) {
	s, err := compile(kinds...)
	if err != nil {
		return nil, fmt.Errorf("the schema itself: %w", err)
	}
	return s.Validate, nil
}

// Validate judges a document, as encoding/json would have read it, by the JSON Schema.
func Validate(document any) error {
	s, err := schema()
	if err != nil {
		return fmt.Errorf("the schema itself: %w", err)
	}
	return s.Validate(document)
}

// Example is a YAML block of a Markdown file.
type Example struct {
	Line int // of the block's opening fence
	YAML string
}

// Examples gives the blocks fenced as yaml whose first key at the left margin is a section of the configuration: those
// are whole configurations. Blocks that begin with anything else are fragments, or other programs' YAML. A block fenced
// as "yaml fragment" is skipped as well.
func Examples(markdown string) []Example {
	var examples []Example
	var open *Example
	for i, line := range strings.Split(markdown, "\n") {
		fence := strings.TrimSpace(line)
		switch {
		case open == nil && fence == "```yaml":
			open = &Example{Line: i + 1}
		case open != nil && fence == "```":
			if section.MatchString(open.YAML) {
				examples = append(examples, *open)
			}
			open = nil
		case open != nil:
			open.YAML += line + "\n"
		}
	}
	return examples
}

var (
	section   = regexp.MustCompile(`\A(#.*\n|\s*\n)*(listeners|services|routes|databases|consumers|policies|admin|log|access_log|trusted_proxies):`)
	reference = regexp.MustCompile(`\$\{(env|file):([^}]*)\}`)
)

// Markdown checks each whole configuration in a Markdown file: it loads, the schema accepts it, and it round-trips
// through Export. References get values of their own (an address when the name of a
// variable ends in ADDRESS, a port when it ends in PORT), so the test cannot run in parallel with others that set the
// environment. It gives how many there were.
func Markdown(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	examples := Examples(string(text))
	for _, e := range examples {
		t.Run(fmt.Sprintf("%s:%d", filepath.Base(path), e.Line), func(t *testing.T) { Check(t, e.YAML) })
	}
	return len(examples)
}

// sample gives a value that fits the name of an environment variable.
func sample(name string) string {
	switch {
	case strings.HasSuffix(name, "ADDRESS"):
		return "127.0.0.1:9"
	case strings.HasSuffix(name, "PORT"):
		return "9"
	default:
		return "value-of-" + name
	}
}

// Check loads one configuration whose references name anything, and fails t unless it loads, validates and round-trips.
func Check(t *testing.T, yaml string) *config.Config {
	t.Helper()
	folder := t.TempDir()
	for _, m := range reference.FindAllStringSubmatch(yaml, -1) {
		if m[1] == "env" {
			t.Setenv(m[2], sample(m[2]))
			continue
		}
		file := filepath.Join(folder, m[2])
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("content-of-"+filepath.Base(m[2])+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if filepath.IsAbs(m[2]) {
			yaml = strings.ReplaceAll(yaml, m[0], "${file:"+file+"}")
		}
	}
	name := filepath.Join(folder, "menshen.yaml")
	c, err := config.Parse(config.File{Name: name, Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("does not load:\n%v\n%s", err, yaml)
	}
	if err := Validate(c.Node().JSON()); err != nil {
		t.Errorf("the schema refuses it: %v\n%s", err, yaml)
	}
	again, err := config.Parse(config.File{Name: name, Data: c.Export(config.ExportOptions{})})
	if err != nil {
		t.Fatalf("its export does not load:\n%v\n%s", err, c.Export(config.ExportOptions{}))
	}
	if changes := config.Diff(c, again); len(changes) > 0 {
		t.Errorf("its export differs: %v", changes)
	}
	return c
}
