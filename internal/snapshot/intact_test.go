package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
)

// further gives what compiling the intact part of a refused configuration adds to its problems, without file and line.
func further(t *testing.T, files map[string]string) (refused bool, more []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := config.Load(dir)
	var problems config.Problems
	if !errors.As(err, &problems) {
		return false, nil
	}
	for _, p := range Problems(config.LoadIntact(dir)) {
		if !slices.Contains(problems, p) {
			p.File, p.Line = "", 0
			more = append(more, p.String())
		}
	}
	return true, more
}

// What is refused is compiled without what is wrong, and that must not make further problems: in the texts that the config's own tests
// refuse there are none.
func TestIntactPartsHaveNoProblems(t *testing.T) {
	cases := 0
	for _, file := range []string{"syntax", "refused", "checked"} {
		data, err := os.ReadFile("../config/testdata/" + file + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split(string(data), "\n=== ")[1:] {
			name, text, _ := strings.Cut(text, "\n")
			text, _, _ = strings.Cut(text, "\n----\n")
			files, last := map[string]string{}, "menshen.yaml"
			for line := range strings.SplitAfterSeq(text+"\n", "\n") {
				if next, found := strings.CutPrefix(line, "-- "); found && strings.HasSuffix(next, " --\n") {
					last = strings.TrimSuffix(next, " --\n")
					continue
				}
				if len(line) > 0 {
					files[last] += line
				}
			}
			refused, more := further(t, files)
			if refused {
				cases++
			}
			for _, p := range more {
				t.Errorf("%s, %q: %s", file, name, p)
			}
		}
	}
	if cases < 50 {
		t.Errorf("only %d cases", cases)
	}
}

// A mistake in each line of the examples of the manual, one at a time: none makes another problem elsewhere.
func TestOneMistakeIsOneProblem(t *testing.T) {
	for _, name := range []string{"SHOP_PASSWORD", "APP_PASSWORD"} {
		t.Setenv(name, "x")
	}
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, mistakes := 0, 0
	for _, document := range append(documents, "../../README.md") {
		data, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split(string(data), "```yaml\n")[1:] {
			text, _, _ = strings.Cut(text, "\n```")
			c, err := config.Parse(config.File{Name: filepath.Join(t.TempDir(), "a.yaml"), Data: []byte(text)})
			if err != nil || Problems(c) != nil { // a fragment, or one that names files
				continue
			}
			examples++
			lines := strings.Split(text, "\n")
			for i, line := range lines {
				brace := strings.IndexByte(line, '{')
				if brace < 0 || strings.Contains(line[:brace], "#") || strings.Contains(line[:brace], `"`) {
					continue
				}
				for _, mistake := range []string{"zzz: 1, ", "address: [], match: 1, endpoints: 7, "} {
					broken := slices.Clone(lines)
					broken[i] = line[:brace+1] + mistake + line[brace+1:]
					refused, more := further(t, map[string]string{"a.yaml": strings.Join(broken, "\n")})
					if !refused {
						continue
					}
					mistakes++
					for _, p := range more {
						t.Errorf("%s: a mistake in %q makes %s", filepath.Base(document), line, p)
					}
				}
			}
		}
	}
	if examples < 5 || mistakes < 50 {
		t.Errorf("only %d mistakes in %d examples", mistakes, examples)
	}
}

// Beside a mistake that reading finds, those that only compiling finds are told, in parts that do not need what is wrong.
func TestFurtherProblems(t *testing.T) {
	t.Parallel()
	f := func(text string, want ...string) {
		t.Helper()
		refused, more := further(t, map[string]string{"a.yaml": text})
		for i := range more {
			more[i], _, _ = strings.Cut(more[i], ": ")
		}
		if !refused || !slices.Equal(more, want) {
			t.Errorf("%s\n got %v\nwant %v", text, more, want)
		}
	}
	const routes = `
services: {users: {endpoints: [a:1]}}
routes:
  a: {match: /a, service: users, policies: [{nothing: {}}]}
  b: {match: /b, respond: 200}
  c: {match: /b, respond: 200}
`
	f("listeners: {web: {address: x}}"+routes, "routes.a.policies[0].nothing", "routes.c.match.paths[0]")
	f("listeners: {web: {address: ':1', limit: 1, policies: [{cors: 1}]}}"+routes, "listeners.web.policies[0].cors", "routes.a.policies[0].nothing", "routes.c.match.paths[0]")
	f("listeners: {web: {address: ':1', policies: [x]}}"+routes, "routes.a.policies[0].nothing", "routes.c.match.paths[0]")
	f("listeners: {web: {address: ':1'}, raw: {address: ':2', protocol: tcp, service: nobody}}"+routes, "routes.a.policies[0].nothing", "routes.c.match.paths[0]")
	f("listeners: {web: {address: ':1'}}\nlimits: {}"+routes, "routes.a.policies[0].nothing", "routes.c.match.paths[0]")
	f("listeners: {web: {address: ':1'}}"+strings.Replace(routes, "[a:1]", "[a]", 1), "routes.c.match.paths[0]") // a needs the service
	f("listeners: {web: {address: ':1'}}"+strings.Replace(routes, "match: /b", "matc: /b", 1), "routes.a.policies[0].nothing")
	f("listeners: {web: {address: ':1'}}\npolicies: {edge: 1}"+strings.Replace(routes, "{nothing: {}}", "edge, {nothing: {}}", 1), "routes.c.match.paths[0]") // a needs the list

	f("listeners: {web: {address: ':1'}}\nconsumers: {app: {nothing: 1}}" + routes) // who refers to a consumer is not known
	f("listeners: {web: {address: ':1'}}\nconsumers: 1" + routes)
	f("listeners: 1" + routes)
	f("listeners: {web: {address: ':1'}}" + routes + "\t")
}
