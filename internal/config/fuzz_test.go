package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

// FuzzParse: no text breaks the parser; a refusal has a position for each problem; what is accepted is accepted by the
// JSON Schema too, and survives its own export.
func FuzzParse(f *testing.F) {
	f.Setenv("SHOP_PASSWORD", "hush")
	f.Setenv("APP_PASSWORD", "hush")
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 6 {
		f.Fatal(err, files)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "\n=== ") {
			_, body, _ := strings.Cut(part, "\n")
			input, result, _ := strings.Cut(body, "\n----\n")
			f.Add([]byte(input))
			if strings.HasPrefix(result, "listeners:") {
				f.Add([]byte(result))
			}
		}
	}
	f.Add([]byte(strings.Repeat("[", 100000)))
	f.Add([]byte(strings.Repeat("- ", 100000)))
	f.Add([]byte("a: &a [*a, *a]\nb: &b [*a, *a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "file:") {
			return // the fuzzer must not read this machine's files
		}
		c, err := config.Parse(config.File{Name: "f", Data: data})
		if err != nil {
			var problems config.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("an error without problems: %v", err)
			}
			for _, p := range problems {
				if p.File != "f" || p.Line < 1 || p.Column < 1 || p.Message == "" {
					t.Fatalf("a problem without a place: %#v", p)
				}
			}
			return
		}
		if err := configtest.Validate(c.Node().JSON()); err != nil {
			t.Fatalf("Parse accepts what the schema refuses: %v\n%s", err, data)
		}
		for _, o := range []config.ExportOptions{{}, {Defaults: true}} {
			text := c.Export(o)
			again, err := config.Parse(config.File{Name: "f", Data: text})
			if err != nil {
				t.Fatalf("the export %+v does not parse: %v\n%s", o, err, text)
			}
			if changes := config.Diff(c, again); len(changes) > 0 || c.SHA256() != again.SHA256() {
				t.Fatalf("the export %+v differs: %v\n%s", o, changes, text)
			}
		}
	})
}
