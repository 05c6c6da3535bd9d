//go:build !unix

package testenv

import (
	"errors"
	"os"
	"syscall"
)

// Elsewhere nothing can be started: there is no shell for the gate and the watchdog, so Lookup skips first. These only let the package build.

var errUnix = errors.New("real servers run on Unix only")

func ownGroup() *syscall.SysProcAttr      { return nil }
func killGroup(int, syscall.Signal) error { return errUnix }
func owner(os.FileInfo) int               { return os.Getuid() }
func lockFile(*os.File) error             { return nil }
func lockByte(*os.File, int64) error      { return nil }
func unlockByte(*os.File, int64) error    { return nil }
func bindable(int) bool                   { return true }
