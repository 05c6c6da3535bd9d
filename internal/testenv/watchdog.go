package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// guard is the watchdog of this test binary, started with the first server.
var guard watchdog

// watchdog is a shell process that outlives the test binary by a moment. It learns process groups and directories over its standard input; at end
// of input, which the kernel brings about however the binary dies, it kills and removes those that were not taken back.
//
// It sits in a process group of its own, so that neither Ctrl-C nor a kill of the test's group reaches it, and it holds none of the binary's
// descriptors, so that `go test` does not wait for it.
type watchdog struct {
	mu   sync.Mutex // guards all below
	pipe *os.File   // writing end; open until the binary dies
	err  error      // why it could not start
	cmd  *exec.Cmd  // kept so that the process handle lives; never waited for
}

// watchdogScript keeps two lists. Lines: "+ GROUP", "- GROUP", "d DIRECTORY", "x DIRECTORY" (the last takes a directory back).
// The names of directories come from os.MkdirTemp and hold no white space as long as TMPDIR holds none; one that does is not registered.
const watchdogScript = `
trap '' INT TERM HUP PIPE
groups=' '; dirs=' '
while read -r what name; do
  case $what in
    +) groups="$groups$name ";;
    -) groups="${groups%% $name *} ${groups#* $name }";;
    d) dirs="$dirs$name ";;
    x) dirs="${dirs%% $name *} ${dirs#* $name }";;
  esac
done
for g in $groups; do kill -s KILL -- "-$g" 2>/dev/null; done
for d in $dirs; do case ${d##*/} in ` + dirPrefix + `*) rm -rf -- "$d" 2>/dev/null || { sleep 1; rm -rf -- "$d"; };; esac; done
`

// add registers a process group ('+') or a directory ('d').
func (w *watchdog) add(t testing.TB, what byte, name string) {
	t.Helper()
	if err := w.tell(what, name); err != nil {
		t.Fatalf("watchdog: %v", err)
	}
}

// drop takes back what add registered.
func (w *watchdog) drop(what byte, name string) {
	if what == 'd' {
		what = 'x'
	} else {
		what = '-'
	}
	_ = w.tell(what, name) // A name left behind names something that is gone: harmless.
}

func (w *watchdog) tell(what byte, name string) error {
	if strings.ContainsAny(name, " \t\n\\") {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe == nil && w.err == nil {
		w.err = w.start()
	}
	if w.err != nil {
		return w.err
	}
	_, err := fmt.Fprintf(w.pipe, "%c %s\n", what, name)
	return err
}

func (w *watchdog) start() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	w.cmd = exec.Command("sh", "-c", watchdogScript, "menshen-test-watchdog")
	w.cmd.Stdin = read
	w.cmd.Dir = os.TempDir()
	w.cmd.SysProcAttr = ownGroup()
	if err := w.cmd.Start(); err != nil {
		write.Close()
		return err
	}
	w.pipe = write
	return nil
}

// pid returns the watchdog's process id as text.
func (w *watchdog) pid() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.cmd.Process.Pid)
}
