package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Process is a program started by Start, with the process group that it leads. Its methods may be called from several goroutines.
type Process struct {
	PID  int // also the id of its process group
	name string
	log  string // file with what it wrote to stdout and stderr, unless the caller had redirected them
	done chan struct{}
	cmd  *exec.Cmd
}

// Start runs cmd in a process group of its own and kills the whole group at cleanup. Stdout and Stderr go to a file that Log reads, unless cmd sets
// them. When the test failed, the end of that file is logged.
//
// The program is started through a gate: it becomes itself only after the watchdog knows its group, so that there is no moment in which the death
// of the test binary would leave it behind.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	if cmd.Err != nil {
		t.Fatal(cmd.Err)
	}
	p := &Process{name: cmd.Path, done: make(chan struct{}), cmd: cmd}
	if cmd.Stdout == nil || cmd.Stderr == nil {
		file, err := os.CreateTemp(Dir(t), "log")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		p.log = file.Name()
		if cmd.Stdout == nil {
			cmd.Stdout = file
		}
		if cmd.Stderr == nil {
			cmd.Stderr = file
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if len(cmd.ExtraFiles) > 6 {
		t.Fatal("BUG: more extra files than the shell of the gate can count past") // one digit
	}
	gate := strconv.Itoa(3 + len(cmd.ExtraFiles))
	// "exec" keeps the process id; the gate is closed before, so that the program does not inherit it.
	script := "read -r go <&" + gate + " || exit 127; exec " + gate + "<&-; exec \"$@\""
	cmd.ExtraFiles = append(cmd.ExtraFiles, read)
	cmd.Args = append([]string{"sh", "-c", script, "menshen-test-gate", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = Lookup(t, "sh")
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	p.PID = cmd.Process.Pid
	guard.add(t, '+', strconv.Itoa(p.PID))
	if _, err := write.WriteString("go\n"); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() { // ends with the process, which cleanup waits for
		defer close(p.done)
		_ = cmd.Wait() // The exit status stays in cmd.ProcessState.
		// What a server leaves behind goes with it, here and not later: the group's id may be given to a stranger once the group is empty.
		_ = killGroup(p.PID, syscall.SIGKILL)
		guard.drop('+', strconv.Itoa(p.PID))
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() && p.log != "" {
			t.Logf("%s (pid %d) wrote:\n%s", p.name, p.PID, tail(p.Log(), 40))
		}
	})
	return p
}

// Kill kills the process group with SIGKILL and waits for the process. It may be called again.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default:
		_ = killGroup(p.PID, syscall.SIGKILL)
		<-p.done
	}
}

// Stop sends a signal to the process alone and waits until it has ended, at most for the given time; then it is killed and the error says so.
func (p *Process) Stop(signal syscall.Signal, deadline time.Duration) (exit int, err error) {
	if err := p.Signal(signal); err != nil {
		return p.Exit(), err
	}
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.Exit(), nil
	case <-timer.C:
		p.Kill()
		return -1, fmt.Errorf("%s did not end within %s of %s", p.name, deadline, signal)
	}
}

// Signal sends a signal to the process alone, not to its group. SIGSTOP makes a server hang, SIGCONT lets it go on.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return p.cmd.Process.Signal(signal)
	}
}

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns the exit code, or -1 while the process runs or when a signal ended it.
func (p *Process) Exit() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Log returns everything the process wrote so far; empty when the caller redirected its output.
func (p *Process) Log() string {
	if p.log == "" {
		return ""
	}
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// await polls ready until it returns nil. A process that ends before that fails the test with what it wrote.
func (p *Process) await(t testing.TB, ready func() error) {
	t.Helper()
	err := poll(startDeadline, func() error {
		select {
		case <-p.done:
			return nil
		default:
			return ready()
		}
	})
	select {
	case <-p.done:
		t.Fatalf("%s ended at once (%s):\n%s", p.name, p.cmd.ProcessState, tail(p.Log(), 40))
	default:
	}
	if err != nil {
		t.Fatalf("%s is not ready after %s: %v\n%s", p.name, startDeadline, err, tail(p.Log(), 40))
	}
}

// startDeadline is how long a server may take until it answers: long, because a continuous integration machine may be busy with other tests.
const startDeadline = 60 * time.Second
