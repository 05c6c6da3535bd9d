//go:build unix

package testenv

import (
	"os"
	"syscall"
)

// ownGroup makes the child the leader of a new process group.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int, signal syscall.Signal) error { return syscall.Kill(-pid, signal) }

// owner returns the user id that owns a file.
func owner(info os.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

// lockFile waits for the exclusive lock on an open file; closing the file, or the death of the process, gives it back.
func lockFile(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			return err
		}
	}
}

// lockByte tries to lock one byte of a file against other processes. Not against this one: the caller keeps its own record. Closing any descriptor of
// the file in this process would give all its locks back, so it stays open for ever.
func lockByte(file *os.File, at int64) error {
	return syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Start: at, Len: 1})
}

func unlockByte(file *os.File, at int64) error {
	return syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_UNLCK, Start: at, Len: 1})
}

// bindable tells whether a server could bind to a port of 127.0.0.1. No child is forked meanwhile: it would hold a copy of the socket until it execs, and
// the port would still be taken when the server comes.
func bindable(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return false
	}
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}) == nil
}
