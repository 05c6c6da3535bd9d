package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// Ports are taken from below the range from which kernels choose the local ports of outgoing connections (32768 and up on Linux, 49152 on others), so
// that no client connection can take a port between FreeAddress and the server's bind. Port+10000 is a valid port as well.
const portFirst, portLast = 18000, 31999

// ports records which ports this process gave away; a lock file records it between processes.
var ports struct {
	mu   sync.Mutex // guards all below
	used map[int]bool
	file *os.File
}

// FreeAddress returns "127.0.0.1:PORT" on which nothing listens. The port belongs to the test until its cleanups have run: neither this process nor
// another test binary of the same user gets it from FreeAddress meanwhile, so a server can be stopped and started again on it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := takePort()
	if err != nil {
		t.Fatalf("free port: %v", err)
	}
	t.Cleanup(func() { givePort(port) })
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func takePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.used == nil {
		dir, err := sharedDir()
		if err != nil {
			return 0, err
		}
		if ports.file, err = os.OpenFile(filepath.Join(dir, "ports"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return 0, err
		}
		ports.used = make(map[int]bool)
	}
	count := portLast - portFirst + 1
	start := rand.IntN(count)
	for i := range count {
		port := portFirst + (start+i)%count
		if ports.used[port] || lockByte(ports.file, int64(port)) != nil {
			continue
		}
		if !bindable(port) {
			_ = unlockByte(ports.file, int64(port))
			continue
		}
		ports.used[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("none left between %d and %d", portFirst, portLast)
}

func givePort(port int) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	delete(ports.used, port)
	_ = unlockByte(ports.file, int64(port))
}

// sharedDir returns the directory in which the test binaries of one user keep what they share: locks and data directory templates. It is refused when
// somebody else could have made it.
func sharedDir() (string, error) {
	dir := filepath.Join(os.TempDir(), "menshen-testenv-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || owner(info) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a directory of ours with mode 0700: remove it", dir)
	}
	return dir, nil
}
