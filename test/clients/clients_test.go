package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// binary is the gateway, built with the race detector.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "menshen-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "menshen")
	if out, err := exec.Command("go", "build", "-race", "-pgo=off", "-o", binary, "../../cmd/menshen").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		return 2
	}
	return m.Run()
}

// house is a gateway with a database behind it.
type house struct {
	*testenv.Process
	db          *testenv.DB
	host, port  string // of the SQL listener
	admin       string
	certificate *testenv.Certificate
	file        string // for LOAD DATA LOCAL
	errors      string // path of the gateway's log
}

// poolMax is how many connections to the instance all clients share.
const poolMax = 12

// schema is what the programs work with.
var schema = []string{
	"CREATE USER gate@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON *.* TO gate@'%'",
	"CREATE DATABASE shop CHARACTER SET utf8mb4", "CREATE DATABASE stock_0",
	"CREATE TABLE stock_0.stock_one (n INT)", "INSERT INTO stock_0.stock_one VALUES (7)",
	`CREATE TABLE shop.kinds (who VARCHAR(20), ti TINYINT, us SMALLINT UNSIGNED, i INT, bi BIGINT, ub BIGINT UNSIGNED, f FLOAT, d DOUBLE, de DECIMAL(40,10),
		da DATE, tm TIME(6), dt DATETIME(6), vc VARCHAR(200), bl VARBINARY(300), st SET('x','y','z'))`,
	"CREATE TABLE shop.blobs (who VARCHAR(20) PRIMARY KEY, b LONGBLOB)",
	"CREATE TABLE shop.ledger (who VARCHAR(20), n INT)",
	"CREATE TABLE shop.texts (who VARCHAR(20) PRIMARY KEY, t VARCHAR(200))",
	"CREATE TABLE shop.loaded (n INT, t VARCHAR(100), who VARCHAR(20), KEY (who))",
	"CREATE TABLE shop.unique_one (n INT PRIMARY KEY)",
	"CREATE TABLE shop.numbered (id INT PRIMARY KEY AUTO_INCREMENT)",
	"CREATE PROCEDURE shop.both_ways(IN i INT, OUT o INT) BEGIN SELECT i; SET o = i + 1; SELECT i + 2; END",
}

func build(t testing.TB) *house {
	t.Helper()
	h := &house{db: testenv.MariaDB(t, "--max-allowed-packet=64M", "--local-infile=1"), certificate: testenv.NewCertificate(t)}
	h.db.Exec(t, schema...)
	if os.Getenv("CLIENTS_DIRECT") != "" {
		h.db.Exec(t, "CREATE USER app@'%' IDENTIFIED BY 'apple'", "CREATE USER other@'%' IDENTIFIED BY 'orange'", "GRANT ALL ON *.* TO app@'%'", "GRANT ALL ON *.* TO other@'%'", "CREATE DATABASE stock")
	}
	dir := testenv.Dir(t)
	h.file = filepath.Join(dir, "rows.txt")
	var rows bytes.Buffer
	for i := 1; i <= 100000; i++ {
		fmt.Fprintf(&rows, "%d\t%s\n", i, strings.Repeat("r", i%91))
	}
	must(t, os.WriteFile(h.file, rows.Bytes(), 0o600))
	config := filepath.Join(dir, "menshen.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
admin: "127.0.0.1:0"
access_log: none
log: {level: warn}
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql, tls: {cert: %q, key: %q}}
databases:
  shop:
    login: {user: gate, password: secret}
    pool: {max_connections: %d, queue_timeout: 30s}
    shards: {s0: {primary: %q}}
  stock:
    login: {user: gate, password: secret}
    shards: {s0: {primary: %[4]q, schema: stock_0}}
consumers:
  app: {mysql: apple}
  other: {mysql: orange}
`, h.certificate.CertFile, h.certificate.KeyFile, poolMax, h.db.Addr), 0o600))
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	must(t, err)
	defer stdout.Close()
	h.errors = filepath.Join(dir, "stderr")
	stderr, err := os.Create(h.errors)
	must(t, err)
	defer stderr.Close()
	cmd := exec.Command(binary, "run", "-c", config)
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	t.Cleanup(func() { // after the process has ended
		text, _ := os.ReadFile(h.errors)
		for _, bad := range []string{"DATA RACE", "BUG", "panic:"} {
			if bytes.Contains(text, []byte(bad)) {
				t.Errorf("the gateway's log has %q:\n%s", bad, text)
				return
			}
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", text)
		}
	})
	h.Process = testenv.Start(t, cmd)
	testenv.Eventually(t, time.Minute, func() error {
		text, _ := os.ReadFile(stdout.Name())
		line, _, whole := strings.Cut(string(text), "\n")
		if !whole {
			return errors.New("the gateway is not ready")
		}
		_, list, _ := strings.Cut(line, " ready: ")
		for field := range strings.FieldsSeq(list) {
			switch name, address, _ := strings.Cut(field, "="); name {
			case "sql":
				h.host, h.port, err = net.SplitHostPort(address)
			case "admin":
				h.admin = address
			}
		}
		return err
	})
	if os.Getenv("CLIENTS_DIRECT") != "" { // to see whether a failure is the client's own; those about TLS, caching_sha2_password and the database stock are expected
		var err error
		h.host, h.port, err = net.SplitHostPort(h.db.Addr)
		must(t, err)
	}
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// missing skips the test, or fails it when CI=true.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// program is one client.
type program struct {
	name    string
	command func(t *testing.T) *exec.Cmd
	checks  string // that it has to print
}

// common are the checks of every client but where its library has no way to do it; then the program's list leaves it out.
const common = "connect_sha2 connect_tls wrong_password types blob transaction results procedure charsets load_data errors stream kill"

var programs = []program{
	{"python", python, common + " disconnect settings"},
	{"node", node, common + " disconnect connect_native pipelined compressed change_user reset"},
	{"c", compiled, common + " disconnect connect_native cursor change_user reset commands compressed"},
	{"php-mysqli", php("mysqli"), common + " disconnect compressed change_user persistent"},
	{"php-pdo", php("pdo"), common + " compressed"},
}

func TestClients(t *testing.T) {
	h := build(t)
	before := h.weigh(t)
	t.Run("programs", func(t *testing.T) {
		for _, p := range programs {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				h.run(t, p)
			})
		}
		t.Run("go", func(t *testing.T) {
			t.Parallel()
			goDriver(t, h)
		})
		t.Run("mariadb", func(t *testing.T) {
			t.Parallel()
			commandLine(t, h)
		})
	})
	h.clean(t, before)
}

// run starts a program, and reads what it says.
func (h *house) run(t *testing.T, p program) {
	cmd := p.command(t)
	cmd.Env = append(cmd.Environ(), "MENSHEN_HOST="+h.host, "MENSHEN_PORT="+h.port, "MENSHEN_CA="+h.certificate.AuthorityFile, "MENSHEN_FILE="+h.file)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", time.Since(begun).Round(time.Millisecond))
	said := string(out)
	if err != nil || strings.Contains(said, "FAIL") {
		t.Errorf("%v:\n%s", err, said)
	}
	lines := strings.Split(said, "\n")
	for name := range strings.FieldsSeq(p.checks) {
		if !slices.Contains(lines, "ok "+name) && !strings.Contains(said, "FAIL "+name) {
			t.Errorf("%s was not checked", name)
		}
	}
	if t.Failed() {
		t.Logf("all that it said:\n%s", said)
	}
}

func python(t *testing.T) *exec.Cmd {
	// Debian's own interpreter is the one that Debian's package of pymysql is for.
	interpreter := "/usr/bin/python3"
	if err := exec.Command(interpreter, "-c", "import pymysql").Run(); err != nil {
		missing(t, "%s has no pymysql (Debian package python3-pymysql): %v", interpreter, err)
	}
	return exec.Command(interpreter, "-u", "python/client.py")
}

func node(t *testing.T) *exec.Cmd {
	path, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node is not installed (Debian package nodejs)")
	}
	if err := installed(t); err != nil {
		missing(t, "mysql2 cannot be installed: %v", err)
	}
	cmd := exec.Command(path, "client.mjs")
	cmd.Dir = "node"
	return cmd
}

// installed makes sure that mysql2 is there in the version of package-lock.json.
func installed(t *testing.T) error {
	lock, err := os.ReadFile("node/package-lock.json")
	must(t, err)
	const stamp = "node/node_modules/.menshen-lock" // the lock file that was installed
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, lock) {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts")
	cmd.Dir = "node"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return os.WriteFile(stamp, lock, 0o600)
}

func compiled(t *testing.T) *exec.Cmd {
	flags, err := exec.Command("mariadb_config", "--cflags", "--libs").Output()
	if err != nil {
		missing(t, "mariadb_config: %v (Debian package libmariadb-dev)", err)
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		missing(t, "no C compiler (Debian package gcc)")
	}
	path := filepath.Join(testenv.Dir(t), "client")
	args := append([]string{"-std=gnu11", "-O1", "-Wall", "-Werror", "-o", path, "c/client.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	return exec.Command(path)
}

func php(extension string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		modules, err := exec.Command("php", "-m").Output()
		if err != nil || !strings.Contains(string(modules), "mysqli") || !strings.Contains(string(modules), "pdo_mysql") {
			missing(t, "php with mysqli and PDO is not installed (Debian packages php-cli and php-mysql): %v", err)
		}
		return exec.Command("php", "-d", "display_errors=stderr", "-d", "mysqli.allow_local_infile=1", "php/client.php", extension)
	}
}

// weight is what the gateway holds.
type weight struct{ goroutines, descriptors float64 }

// metrics reads the values of some metrics, by their text before the value.
func (h *house) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + h.admin + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	all := map[string]float64{}
	var text bytes.Buffer
	_, err = text.ReadFrom(resp.Body)
	must(t, err)
	for line := range strings.Lines(text.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var v float64
		if _, err := fmt.Sscan(value, &v); err == nil {
			all[name] = v
		}
	}
	return all
}

func (h *house) weigh(t testing.TB) weight {
	m := h.metrics(t)
	return weight{m["go_goroutines"], m["process_open_fds"]}
}

// workersMax bounds what rests on the poller, which keeps a goroutine for each statement that ran at the same time: the programs have no
// more at a time, and far more sessions one after the other, whose goroutines would be noticed.
const workersMax = 48

// clean waits until nothing of the clients is left: no session, no running statement on the instance, no connection in use, and no more
// goroutines and descriptors than the pool accounts for.
func (h *house) clean(t *testing.T, before weight) {
	t.Helper()
	db := h.db.Open(t, "root", "")
	testenv.Eventually(t, 20*time.Second, func() error {
		m := h.metrics(t)
		if n := m[`menshen_sql_sessions_open{listener="sql"}`]; n != 0 {
			return fmt.Errorf("%v sessions are open", n)
		}
		if n := m[`menshen_sql_pool_connections{database="shop",state="used"}`]; n != 0 {
			return fmt.Errorf("%v connections are in use", n)
		}
		var busy, all int
		if err := db.QueryRow("SELECT COALESCE(SUM(command <> 'Sleep'), 0), COUNT(*) FROM information_schema.processlist WHERE user = 'gate'").Scan(&busy, &all); err != nil {
			return err
		}
		if busy > 0 || all > 2*poolMax {
			return fmt.Errorf("the instance has %d connections of the gateway, %d busy", all, busy)
		}
		var transactions int
		if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.innodb_trx").Scan(&transactions); err != nil {
			return err
		}
		if transactions > 0 {
			return fmt.Errorf("%d transactions are open", transactions)
		}
		after := h.weigh(t)
		if after.goroutines > before.goroutines+5+workersMax || after.descriptors > before.descriptors+2*poolMax+5 {
			return fmt.Errorf("the gateway holds %+v, before %+v", after, before)
		}
		return nil
	})
}
