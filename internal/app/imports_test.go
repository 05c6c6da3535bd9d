package app

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/menshen-gateway/menshen/"

// lattice says who may import whom of our own: in "a, b < c, d" each of c and d may import a and b and whatever those
// may import. What cannot be derived is forbidden, and so a package that is not named. NONE is nothing at all. Names are
// folders of internal/, a * stands for one name. A new line needs its reason.
const lattice = `
# The core that knows nothing: kinds of failure, connections, and how to give way.
NONE < fault, poll, pause

# Codecs take bytes and give bytes, so that they can be fuzzed, measured and driven by any I/O.
NONE < h1, mysql, proxyproto, sqldoor/scan

# Pure choices: they are tested against a plain version of themselves, without a gateway around them.
NONE < traffic/balance, traffic/health, sqldoor/group
# A table of routes is as pure, but a large one takes long to compile.
pause < httpdoor/route

# The user's words know nobody who acts on them; those who compile know the words.
pause < config
config < identity, tlsconfig
fault, pause < observe

# What listeners of all kinds share; it knows no door.
config, observe, proxyproto < listener

# Governance is blind to protocols: no codec below it.
fault, traffic/balance, traffic/health < traffic/upstream
poll < traffic/tunnel
config, proxyproto, tlsconfig, traffic/upstream < traffic/services

# The HTTP door. A stream of HTTP/2 reads like a connection of HTTP/1, so its package stands on the codec of that.
h1, poll < h2
h2, traffic/services < httpdoor/forward
config, fault, h1, identity, poll, httpdoor/route < httpdoor/policy
# A policy knows the contract and none of its neighbours: deleting its folder and its line removes it.
httpdoor/policy < httpdoor/policy/*
listener, traffic/tunnel, httpdoor/forward, httpdoor/policy/* < httpdoor

# TCP listeners go from the lease straight to the tunnel.
listener, traffic/services, traffic/tunnel < tcpdoor

# The SQL door. The doors never import each other.
mysql, poll < sqldoor/wire
fault, proxyproto, sqldoor/group, sqldoor/wire < sqldoor/backend
identity, listener, tlsconfig, traffic/upstream, sqldoor/backend, sqldoor/scan < sqldoor

# One snapshot of both doors; status above it; and app, which alone knows everything. The admin API sees the gateway through an
# interface of its own, and no door.
config, observe, traffic/upstream < admin
httpdoor, sqldoor, tcpdoor < snapshot
admin, snapshot < app
app < cmd/menshen

# For tests only; see bans.
config < config/configtest
NONE < testenv
`

// bans are imports from outside that a package must not have, each with its reason.
var bans = []struct{ who, whom, reason string }{
	{"h1, mysql, proxyproto, sqldoor/scan, httpdoor/route, traffic/balance", "net, net/http, os, sync, context, log/slog", "what is pure owns no socket, no file, no goroutine and no log"},
	{"poll, listener, h1, h2, httpdoor, httpdoor/*, httpdoor/policy/*, tcpdoor, mysql, sqldoor, sqldoor/*, traffic/upstream, traffic/tunnel, traffic/services, identity, fault, tlsconfig, snapshot", "net/http", "the data path has its own engine"},
	{"config", "net/http, log/slog, context", "it opens no socket and starts no goroutine"},
	{"*, */*, */*/*", "log, math/rand, io/ioutil, unsafe", "slog, math/rand/v2, io and os; unsafe has one home (see allowed)"},
	{"*, */*, */*/*", "testing, github.com/menshen-gateway/menshen/internal/testenv, github.com/menshen-gateway/menshen/internal/config/configtest, github.com/menshen-gateway/menshen/internal/httpdoor/policy/policytest", "tests only"},
	{"*, */*, */*/*, cmd/*", "github.com/go-sql-driver/mysql, github.com/coder/websocket, github.com/santhosh-tekuri/jsonschema/v6, github.com/rogpeppe/go-internal/testscript", "peers and validators of tests; the gateway has no use for them"},
	{"*, */*, */*/*", "github.com/spf13/cobra", "the command line is cmd's"},
}

// allowed are exceptions from bans: "who whom".
var allowed = []string{
	"poll unsafe",    // the address of a buffer in a system call
	"observe unsafe", // the import that linkname demands, for the number of the processor
	"cmd/menshen github.com/spf13/cobra",
	"testenv testing", "testenv log", "testenv github.com/go-sql-driver/mysql",
	"httpdoor/policy/policytest testing",
	"config/configtest testing", "config/configtest github.com/santhosh-tekuri/jsonschema/v6",
}

// pkg is what go list tells.
type pkg struct {
	ImportPath, Dir, Doc string
	GoFiles, Imports     []string
}

// packages lists the module's packages by their folder, internal/ left out.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-pgo=off", "-json=ImportPath,Dir,Doc,GoFiles,Imports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all[short(p.ImportPath)] = p
	}
	return all
}

func short(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "internal/")
}

// matches says whether a name is in a list of names, which may have stars.
func matches(list []string, name string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok })
}

func names(list string) []string {
	var all []string
	for _, n := range strings.Split(list, ",") {
		all = append(all, strings.TrimSpace(n))
	}
	return all
}

func TestImports(t *testing.T) {
	all := packages(t)
	type rule struct{ lower, upper []string }
	var rules []rule
	for line := range strings.Lines(lattice) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		lower, upper, ok := strings.Cut(line, "<")
		if !ok {
			t.Fatalf("lattice: %q", line)
		}
		rules = append(rules, rule{names(lower), names(upper)})
		for _, n := range append(names(lower), names(upper)...) {
			if n != "NONE" && !slices.ContainsFunc(keys(all), func(have string) bool { return matches([]string{n}, have) }) {
				t.Errorf("lattice: there is no package %s", n)
			}
		}
	}
	var may func(who, whom string, seen map[string]bool) bool
	may = func(who, whom string, seen map[string]bool) bool {
		if seen[who] {
			return false
		}
		seen[who] = true
		for _, r := range rules {
			if !matches(r.upper, who) {
				continue
			}
			for have := range all {
				if matches(r.lower, have) && (have == whom || may(have, whom, seen)) {
					return true
				}
			}
		}
		return false
	}
	for name, p := range all {
		if name == "bench" || name == "test" || name == "test/clients" { // tests of the whole
			continue
		}
		if !slices.ContainsFunc(rules, func(r rule) bool { return matches(r.upper, name) }) {
			t.Errorf("%s is not in the lattice", name)
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module) && !may(name, short(i), map[string]bool{}) {
				t.Errorf("%s imports %s: the lattice does not allow it", name, short(i))
			}
			for _, b := range bans {
				if matches(names(b.who), name) && matches(names(b.whom), i) && !slices.Contains(allowed, name+" "+i) {
					t.Errorf("%s imports %s: %s", name, i, b.reason)
				}
			}
		}
	}
}

func keys(all map[string]pkg) []string {
	var list []string
	for name := range all {
		list = append(list, name)
	}
	return list
}

// Each package says what it is for, in the file with its name.
func TestPackageComments(t *testing.T) {
	for name, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		home := filepath.Base(p.Dir) + ".go"
		if strings.HasPrefix(name, "cmd/") {
			home = "main.go"
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", name)
		} else if text, err := os.ReadFile(filepath.Join(p.Dir, home)); err != nil || !regexp.MustCompile(`(?m)^// (Package|Command) `).Match(text) {
			t.Errorf("%s: its package comment is not in %s", name, home)
		}
	}
}

// A file beyond 800 lines says in its first lines why it is so long: "long because ...".
func TestFileLengths(t *testing.T) {
	sources(t, func(file string, text []byte) {
		if n := strings.Count(string(text), "\n"); n > 800 && !strings.Contains(string(text[:min(len(text), 2000)]), "long because") {
			t.Errorf("%s has %d lines, and does not say why", file, n)
		}
	})
}

// Tests poll; they do not sleep, but for one that is slow on purpose and says so in a comment on the line.
func TestNoSleeps(t *testing.T) {
	sources(t, func(file string, text []byte) {
		if !strings.HasSuffix(file, "_test.go") || file == "internal/app/imports_test.go" || strings.Contains(string(text), "testing/synctest") {
			return
		}
		for i, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "time.Sleep(") && !strings.Contains(line, " // ") {
				t.Errorf("%s:%d sleeps, and does not say why", file, i+1)
			}
		}
	})
}

// sources calls f for each Go file of the repository, the demo included.
func sources(t *testing.T, f func(file string, text []byte)) {
	t.Helper()
	root := "../.."
	err := filepath.WalkDir(root, func(file string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".") && e.Name() != "..") {
			return filepath.SkipDir
		}
		if filepath.Ext(file) != ".go" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		f(filepath.ToSlash(name), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// folder is a path in backquotes that means a place in the repository.
var folder = regexp.MustCompile("`((?:cmd|internal|demo|bench|test|docs|scripts)/[a-zA-Z0-9_./-]*|(?:demo|bench|test|docs|scripts)/)`")

// The documents name only what there is.
func TestDocumentsNameWhatExists(t *testing.T) {
	found := 0
	for _, document := range []string{"ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "DECISIONS.md"} {
		text, err := os.ReadFile("../../" + document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range folder.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, err := os.Stat("../../" + m[1]); err != nil {
				t.Errorf("%s names %s, which does not exist", document, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d folders are named: the pattern finds too little", found)
	}
	architecture, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(architecture), "\n"); n >= 300 {
		t.Errorf("ARCHITECTURE.md has %d lines: it is a map, below 300", n)
	}
	for name, p := range packages(t) {
		if len(p.GoFiles) > 0 && !strings.Contains(string(architecture), fmt.Sprintf("`%s/", strings.TrimPrefix(p.ImportPath, module))) && !matches([]string{"config/configtest", "httpdoor/policy/*", "bench", "test"}, name) {
			t.Errorf("ARCHITECTURE.md does not name %s", name)
		}
	}
}
