package testenv

import (
	"net"
	"os/exec"
	"regexp"
	"testing"
)

// bindLine finds the addresses that an HAProxy configuration listens on.
var bindLine = regexp.MustCompile(`(?m)^\s*bind\s+([0-9.:]+)`)

// HAProxy starts one HAProxy process with the given configuration, which names its own addresses (see FreeAddress). Server.Address is that of the first
// bind line. The process stays in the foreground; "daemon" and "master-worker" must not be set.
func HAProxy(t testing.TB, conf string) *Server {
	t.Helper()
	program := Lookup(t, "haproxy")
	binds := bindLine.FindAllStringSubmatch(conf, -1)
	if len(binds) == 0 {
		t.Fatal("the HAProxy configuration has no line: bind ADDRESS:PORT")
	}
	s := &Server{Dir: Dir(t), Address: binds[0][1]}
	s.URL = "http://" + s.Address
	s.Process = Start(t, exec.Command(program, "-db", "-f", write(t, s.Dir, "haproxy.cfg", conf)))
	for _, bind := range binds {
		s.await(t, dialable(bind[1]))
	}
	return s
}

// portOf returns the port of host:port.
func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return port
}
