//go:build linux

package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

var (
	flagRecord      = flag.Bool("record", false, "append the tables to results.md")
	flagRounds      = flag.Int("rounds", 4, "visits to each subject, alternately in forward and backward order")
	flagVisit       = flag.Duration("visit", 2*time.Second, "length of one visit")
	flagConnections = flag.String("connections", "64,512", "connections of the http-proxy scenario")
	flagBodies      = flag.String("bodies", "100,10k,1m", "bodies of the http-proxy scenario")
	flagProfile     = flag.String("profile", "", "file for the profile of the Profile scenario")
	flagMenshen     = flag.String("menshen", "", "binaries to measure, as PATH or LABEL=PATH with commas between; built from this tree when empty")
)

// roleVariable makes this test binary play a part of a scenario in a process of its own, so that it can be pinned and accounted for.
const roleVariable = "MENSHEN_BENCH_ROLE"

// roles are the parts; arguments come after "--".
var roles = map[string]func(arguments []string) error{
	"origin":     runOrigin,
	"relay":      runRelay,
	"tls-client": runTLSClient,
	"web-client": runWebClient,
	"sql-server": runSQLServer,
	"sql-client": runSQLClient,
	"sql-idle":   runSQLIdle,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// cores returns the two processors that scenarios use: the first for the subject, the second for client and server. The benchmark is skipped when there is
// only one.
func cores(t testing.TB) (subject, load int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var found []int
	for core := range 1024 {
		if set.IsSet(core) {
			found = append(found, core)
		}
	}
	if len(found) < 2 {
		t.Skip("needs two processors: one for the subject, one for the load")
	}
	return found[0], found[1]
}

// pinned returns a command that runs on one core. taskset becomes the program, so the process id is the program's.
func pinned(t testing.TB, core int, program string, arguments ...string) *exec.Cmd {
	t.Helper()
	all := append([]string{"-c", strconv.Itoa(core), program}, arguments...)
	cmd := exec.Command(testenv.Lookup(t, "taskset"), all...)
	// One scheduler thread for Go programs, which otherwise count the processors of the machine.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	return cmd
}

// role returns a pinned command that plays a part of this binary.
func role(t testing.TB, core int, name string, arguments ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := pinned(t, core, program, arguments...)
	cmd.Env = append(cmd.Env, roleVariable+"="+name)
	return cmd
}

// pin moves all threads of a running process to one core.
func pin(t testing.TB, pid, core int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(core)
	folder := fmt.Sprintf("/proc/%d/task", pid)
	// Threads may be born meanwhile, on the cores of their parent: until a pass finds none to move.
	for moved := true; moved; {
		moved = false
		tasks, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			var now unix.CPUSet
			if unix.SchedGetaffinity(tid, &now) != nil || now == set {
				continue
			}
			moved = unix.SchedSetaffinity(tid, &set) == nil || moved
		}
	}
}

// build is one build of the gateway.
type build struct{ label, path string }

// gateways returns the builds to measure: those of the flag, or one of this tree. None when the tree has no command yet.
func gateways(t testing.TB) []build {
	t.Helper()
	if *flagMenshen != "" {
		var all []build
		for word := range strings.SplitSeq(*flagMenshen, ",") {
			label, path, ok := strings.Cut(word, "=")
			if !ok {
				label, path = "menshen", word
			}
			path, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, build{label, path})
		}
		return all
	}
	if sources, _ := filepath.Glob("../cmd/menshen/*.go"); len(sources) == 0 {
		progress("no cmd/menshen in this tree: only the peers are measured")
		return nil
	}
	path := filepath.Join(testenv.Dir(t), "menshen")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", path, "../cmd/menshen").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return []build{{"menshen", path}}
}

// startGateway runs one build with a configuration and waits until it listens.
func startGateway(t testing.TB, core int, b build, address, configuration string) *testenv.Process {
	t.Helper()
	path := writeFile(t, "menshen.yaml", configuration)
	p := testenv.Start(t, pinned(t, core, b.path, "run", "-c", path))
	awaitAddress(t, p, address)
	return p
}

// writeFile puts text into a new directory of the test.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(testenv.Dir(t), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// progress tells what goes on; tables come at the end only.
func progress(format string, a ...any) { fmt.Fprintf(os.Stderr, "# "+format+"\n", a...) }
