//go:build linux

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is what a process holds of the machine's, in bytes. The buffers of its sockets belong to the kernel and are not in it.
type memory struct {
	now  int64 // resident
	most int64 // resident, ever
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// memoryOf reads the present figures; none for process 0.
func memoryOf(t testing.TB, pid int) memory {
	t.Helper()
	if pid == 0 {
		return memory{}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var m memory
	for name, to := range map[string]*int64{"VmRSS": &m.now, "VmHWM": &m.most} {
		if *to, err = statusField(string(text), name); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// statusField reads a line like "VmRSS:	  1234 kB".
func statusField(status, name string) (int64, error) {
	for line := range strings.Lines(status) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == name+":" && words[2] == "kB" {
			n, err := strconv.ParseInt(words[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s", name)
}

// settled waits until a process has stopped giving memory back or taking it, and gives what is left; at most five seconds.
func settled(t testing.TB, pid int) memory {
	t.Helper()
	last := memoryOf(t, pid)
	for range 10 {
		time.Sleep(500 * time.Millisecond) // what memory does while nobody asks for anything is the question
		now := memoryOf(t, pid)
		if d := now.now - last.now; d < 64<<10 && d > -64<<10 {
			return now
		}
		last = now
	}
	return last
}

// descriptors is how many files a process may open here, after this one has raised its own bound, which its children inherit, to the most allowed.
func descriptors(t testing.TB) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(limit.Max, 1<<20))
}
