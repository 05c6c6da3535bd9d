//go:build unix

package testenv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get returns status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestNginxServesTheDefaultSite(t *testing.T) {
	t.Parallel()
	s := Nginx(t, NginxConf{Server: `location = /own { return 200 "mine"; }`})
	f := func(path string, status int, body string) {
		t.Helper()
		gotStatus, gotBody := get(t, s.URL+path)
		if gotStatus != status || gotBody != body {
			t.Errorf("%s: %d, %d bytes; want %d, %d bytes", path, gotStatus, len(gotBody), status, len(body))
		}
	}
	f("/healthz", 200, "ok\n")
	f("/own", 200, "mine")
	f("/close", 200, "bye\n")
	f("/chunked", 200, string(Body("/10k")))
	f("/status/204", 204, "")
	for path := range Bodies {
		f(path, 200, string(Body(path)))
	}
	if status, _ := get(t, s.URL+"/status/503"); status != 503 {
		t.Errorf("/status/503: %d", status)
	}
	if _, body := get(t, s.URL+"/echo/x?y=1"); !strings.HasPrefix(body, "request: GET /echo/x?y=1 HTTP/1.1\nhost: "+s.Address+"\n") {
		t.Errorf("echo: %s", body)
	}
	Eventually(t, 5*time.Second, func() error {
		if n := len(s.Requests()); n != 10 {
			return fmt.Errorf("%d requests logged, want 10", n)
		}
		return nil
	})
}

func TestNginxStoresFiles(t *testing.T) {
	t.Parallel()
	s := Nginx(t, NginxConf{})
	want := string(Body("/1m"))
	req, err := http.NewRequest("PUT", s.URL+"/files/a/b", strings.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if _, got := get(t, s.URL+"/files/a/b"); res.StatusCode != 201 || got != want {
		t.Errorf("PUT: %d, and GET gave %d bytes", res.StatusCode, len(got))
	}
}

func TestHAProxyForwards(t *testing.T) {
	t.Parallel()
	origin := Nginx(t, NginxConf{})
	s := HAProxy(t, fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen web
  bind %s
  server a %s
`, FreeAddress(t), origin.Address))
	if status, body := get(t, s.URL+"/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("%d %q", status, body)
	}
}

func TestMariaDBKeepsDataOverRestart(t *testing.T) {
	t.Parallel()
	d := MariaDB(t)
	d.Exec(t, "create database shop", "create table shop.t (a int primary key)", "insert into shop.t values (7)",
		"create user 'app'@'%' identified by 'secret'", "grant all on shop.* to 'app'@'%'")
	check := func() {
		t.Helper()
		var a int
		if err := d.Open(t, "app:secret", "shop").QueryRow("select a from t").Scan(&a); err != nil || a != 7 {
			t.Errorf("%d, %v", a, err)
		}
	}
	check()
	address := d.Addr
	d.Restart(t)
	check()
	if d.Addr != address {
		t.Errorf("address changed from %s to %s", address, d.Addr)
	}
	if err := d.Open(t, "app:wrong", "shop").Ping(); err == nil || !strings.Contains(err.Error(), "1045") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestCertificateIsTrusted(t *testing.T) {
	t.Parallel()
	cert := NewCertificate(t)
	s := Nginx(t, NginxConf{TLS: cert})
	out, err := exec.Command(Lookup(t, "curl"), "-sS", "--cacert", cert.AuthorityFile, "https://"+s.AddressTLS+"/healthz").CombinedOutput()
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := exec.Command(Lookup(t, "curl"), "-sS", "https://"+s.AddressTLS+"/healthz").CombinedOutput(); err == nil {
		t.Error("trusted without the authority")
	}
}

func TestFreeAddressIsNeverGivenTwice(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]bool{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				address := FreeAddress(t)
				ln, err := net.Listen("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				ln.Close()
				mu.Lock()
				if seen[address] {
					t.Errorf("%s twice", address)
				}
				seen[address] = true
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

func TestAddressTakenByAnotherProcessIsNotGiven(t *testing.T) {
	t.Parallel()
	child := helper(t, "address")
	line, err := bufio.NewReader(child.out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portOf(strings.TrimSpace(line)))
	if err != nil {
		t.Fatal(err)
	}
	ports.mu.Lock()
	file := ports.file
	ports.mu.Unlock()
	if file == nil {
		FreeAddress(t) // opens the lock file
		file = ports.file
	}
	if err := lockByte(file, int64(port)); err == nil {
		t.Errorf("port %d is reserved by the other process, and could be had", port)
	}
	if err := child.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, func() error { return lockByte(file, int64(port)) }) // its death gives it back
	if err := unlockByte(file, int64(port)); err != nil {
		t.Error(err)
	}
}

// exists tells whether a process runs; one that has ended and is not waited for yet does not.
func exists(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err) || (syscall.Kill(pid, 0) == nil && !isDir("/proc/self"))
	}
	after := stat[bytes.LastIndexByte(stat, ')')+1:]
	return !bytes.HasPrefix(after, []byte(" Z"))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// family starts a shell with two children, one of which ignores polite signals, and returns all three process ids.
func family(t testing.TB) (*Process, []int) {
	t.Helper()
	dir := Dir(t)
	file := filepath.Join(dir, "pids")
	p := Start(t, exec.Command("sh", "-c", `sleep 1000 & a=$!; (trap '' INT TERM HUP; sleep 1000; sleep 1000) & echo $$ $a $! >`+file+`.new; mv `+file+`.new `+file+`; wait`))
	var pids []int
	Eventually(t, 10*time.Second, func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		return nil
	})
	if pids[0] != p.PID {
		t.Errorf("the shell is process %d, Start said %d", pids[0], p.PID)
	}
	return p, pids
}

func gone(pids []int) error {
	for _, pid := range pids {
		if exists(pid) {
			return fmt.Errorf("process %d still runs", pid)
		}
	}
	return nil
}

func TestCleanupKillsTheWholeGroup(t *testing.T) {
	t.Parallel()
	var pids []int
	t.Run("start", func(t *testing.T) { _, pids = family(t) })
	Eventually(t, 10*time.Second, func() error { return gone(pids) })
}

func TestChildrenGoWithTheirLeader(t *testing.T) {
	t.Parallel()
	p, pids := family(t)
	if _, err := p.Stop(syscall.SIGKILL, time.Minute); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, func() error { return gone(pids) })
}

func TestStopReportsExitCode(t *testing.T) {
	t.Parallel()
	p := Start(t, exec.Command("sh", "-c", `trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done`))
	p.await(t, func() error {
		if p.Log() == "" {
			return errors.New("silent")
		}
		return nil
	})
	if code, err := p.Stop(syscall.SIGTERM, time.Minute); code != 7 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
	stubborn := Start(t, exec.Command("sh", "-c", `trap '' TERM; echo up; while :; do sleep 0.01; done`))
	stubborn.await(t, func() error {
		if stubborn.Log() == "" {
			return errors.New("silent")
		}
		return nil
	})
	if code, err := stubborn.Stop(syscall.SIGTERM, 50*time.Millisecond); code != -1 || err == nil {
		t.Errorf("stubborn: %d, %v", code, err)
	}
}

func TestExtraFilesAndEnvironmentReachTheProgram(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", `echo "$WHO" >&3; if [ -e /proc/self/fd/4 ]; then echo "the gate is open" >&3; fi`)
	cmd.Env = append(os.Environ(), "WHO=me")
	cmd.ExtraFiles = []*os.File{w}
	Start(t, cmd)
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "me\n" {
		t.Errorf("%q, %v", got, err)
	}
}

type child struct {
	cmd *exec.Cmd
	out io.Reader
}

// helper runs TestHelper of this test binary in another process.
func helper(t *testing.T, what string) child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHelper$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "TESTENV_HELPER="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return child{cmd, out}
}

// TestHelper is not a test: other tests run it in a process that they kill.
func TestHelper(t *testing.T) {
	switch os.Getenv("TESTENV_HELPER") {
	case "address":
		fmt.Println(FreeAddress(t))
	case "servers":
		_, pids := family(t)
		nginx := Nginx(t, NginxConf{Main: "", HTTP: ""})
		db := MariaDB(t)
		pids = append(pids, nginx.PID, db.PID)
		words := []string{guard.pid(), nginx.Dir, db.Dir}
		for _, pid := range pids {
			words = append(words, strconv.Itoa(pid))
		}
		fmt.Println(strings.Join(words, " "))
	default:
		t.Skip("only run by other tests")
	}
	select {} // until killed
}

func TestNothingStaysWhenTheTestBinaryIsKilled(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"nginx", "mariadbd", "mariadb-install-db"} {
		Lookup(t, program)
	}
	child := helper(t, "servers")
	line, err := bufio.NewReader(child.out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	var pids []int
	for _, word := range words[3:] {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !exists(pid) {
			t.Errorf("process %d does not run", pid)
		}
		pids = append(pids, pid)
	}
	if len(pids) != 5 {
		t.Fatalf("%d processes, want 5: %q", len(pids), line)
	}
	if err := child.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	watchdog, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, func() error { return gone(append(slices.Clone(pids), watchdog)) })
	for _, dir := range words[1:3] {
		if isDir(dir) {
			t.Errorf("%s was left behind", dir)
		}
	}
}

func TestMissingProgramIsNamedWithItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	old := sbin
	sbin = nil
	defer func() { sbin = old }()
	_, err := Find("mariadbd")
	if err == nil || !strings.Contains(err.Error(), "Debian package mariadb-server") {
		t.Errorf("%v", err)
	}
	f := func(ci string, skipped, failed bool) {
		t.Helper()
		t.Setenv("CI", ci)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Lookup(r, "mariadbd")
		}()
		<-done
		if r.skipped != skipped || r.failed != failed {
			t.Errorf("CI=%q: skipped %v, failed %v", ci, r.skipped, r.failed)
		}
	}
	f("", true, false)
	f("true", false, true)
}

// recorder is a test that notes how it ended.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Skip(...any)  { r.skipped = true; runtime.Goexit() }
func (r *recorder) Fatal(...any) { r.failed = true; runtime.Goexit() }
