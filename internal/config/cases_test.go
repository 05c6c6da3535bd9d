package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite expected results in testdata")

// cases runs the text cases of a file. A case is a line "=== name", the input, a line "----", and the result. With
// -rewrite the results are replaced by what came out.
func cases(t *testing.T, path string, run func(t *testing.T, input string) string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut("\n"+string(text), "\n=== ")
	out := strings.TrimPrefix(head, "\n") + "\n"
	for rest != "" {
		var body string
		body, rest, _ = strings.Cut(rest, "\n=== ")
		name, body, _ := strings.Cut(body, "\n")
		input, want, _ := strings.Cut("\n"+body, "\n----\n")
		input = strings.TrimPrefix(input, "\n")
		want = strings.Trim(want, "\n")
		var got string
		t.Run(name, func(t *testing.T) {
			got = strings.Trim(run(t, input+"\n"), "\n")
			if got != want && !*rewrite {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
		out += "=== " + name + "\n" + strings.TrimPrefix(input+"\n----\n", "\n") + got + "\n\n"
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(strings.TrimRight(out, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// caseFiles splits an input at lines "-- name --"; what stands before the first is menshen.yaml.
func caseFiles(input string) []File {
	files := []File{{Name: "menshen.yaml"}}
	for line := range strings.SplitAfterSeq(input, "\n") {
		if name, found := strings.CutPrefix(line, "-- "); found && strings.HasSuffix(name, " --\n") {
			files = append(files, File{Name: strings.TrimSuffix(name, " --\n")})
			continue
		}
		last := &files[len(files)-1]
		last.Data = append(last.Data, line...)
	}
	if len(files) > 1 && len(files[0].Data) == 0 {
		files = files[1:]
	}
	return files
}

// must parses what is right.
func must(t testing.TB, yaml string) *Config {
	t.Helper()
	c, err := Parse(File{Name: "menshen.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	return c
}
