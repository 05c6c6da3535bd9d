package testenv

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// DB is a running MariaDB with a private data directory. root signs in without a password; there are no other users and no databases but the
// server's own. A restart keeps address, socket and data.
type DB struct {
	*Process
	Addr   string // host:port
	Socket string // Unix socket
	Dir    string // private directory: data, tmp, the socket

	program string
	options []string
}

// mariadbOptions are what every server here runs with: small, and without the disk syncs that only matter after a power cut.
var mariadbOptions = []string{
	"--innodb-buffer-pool-size=32M",
	"--innodb-log-file-size=16M",
	"--innodb-flush-log-at-trx-commit=2", // written at each commit, so that kill -9 loses nothing; synced by the way
	"--innodb-flush-method=fsync",
	"--sync-binlog=0",
	"--skip-name-resolve",
	"--performance-schema=OFF",
	"--character-set-server=utf8mb4",
}

// MariaDB starts a server. Further options come last on its command line, for example "--log-bin" or "--max-connections=20".
func MariaDB(t testing.TB, options ...string) *DB {
	t.Helper()
	d := newDB(t, options)
	d.run(t)
	return d
}

// newDB prepares a server that does not run yet.
func newDB(t testing.TB, options []string) *DB {
	t.Helper()
	program := Lookup(t, "mariadbd")
	template, err := mariadbTemplate(program, Lookup(t, "mariadb-install-db"))
	if err != nil {
		t.Fatalf("mariadb data directory: %v", err)
	}
	dir := Dir(t)
	d := &DB{Dir: dir, Addr: FreeAddress(t), Socket: filepath.Join(dir, "s"), program: program, options: options}
	if len(d.Socket) > 107 {
		t.Fatalf("%s is too long for a Unix socket: set TMPDIR to a shorter path", d.Socket)
	}
	if err := copyTree(filepath.Join(dir, "data"), template); err != nil {
		t.Fatalf("mariadb data directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *DB) run(t testing.TB) {
	t.Helper()
	d.start(t)
	d.ready(t)
}

// start starts the server without waiting for it.
func (d *DB) start(t testing.TB) {
	t.Helper()
	args := []string{
		"--no-defaults", // must be first
		"--datadir=" + filepath.Join(d.Dir, "data"),
		"--tmpdir=" + filepath.Join(d.Dir, "tmp"),
		"--socket=" + d.Socket,
		"--pid-file=" + filepath.Join(d.Dir, "pid"),
		"--bind-address=127.0.0.1",
		"--port=" + portOf(d.Addr),
	}
	args = append(append(append(args, asRoot()...), mariadbOptions...), d.options...)
	d.Process = Start(t, exec.Command(d.program, args...))
}

// ready waits until the server answers.
func (d *DB) ready(t testing.TB) {
	t.Helper()
	db := d.open(t, "root", "")
	defer db.Close()
	d.await(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return db.PingContext(ctx)
	})
}

// Restart starts the server again, after Kill or Stop or while it still runs (then it is killed), on the same data and address.
func (d *DB) Restart(t testing.TB) {
	t.Helper()
	d.Kill()
	d.run(t)
}

// DSN returns a data source name for go-sql-driver/mysql over TCP. user may be "name" or "name:password"; database may be empty.
func (d *DB) DSN(user, database string) string {
	return fmt.Sprintf("%s@tcp(%s)/%s", user, d.Addr, database)
}

// Open returns a pool of connections over TCP, closed at cleanup. user may be "name:password".
func (d *DB) Open(t testing.TB, user, database string) *sql.DB {
	t.Helper()
	db := d.open(t, user, database)
	t.Cleanup(func() { db.Close() })
	return db
}

func (d *DB) open(t testing.TB, user, database string) *sql.DB {
	t.Helper()
	c, err := mysql.ParseDSN(d.DSN(user, database))
	if err != nil {
		t.Fatal(err)
	}
	c.Logger = log.New(io.Discard, "", 0) // it reports refused connections while the server starts
	connector, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	return sql.OpenDB(connector)
}

// Exec runs statements as root, each in its own call but on one connection, and fails the test at the first error.
func (d *DB) Exec(t testing.TB, statements ...string) {
	t.Helper()
	db := d.open(t, "root", "")
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// mariadbTemplate returns a data directory to copy. It is made once per server version and user, under a lock, and kept in the shared directory: making it
// takes seconds, copying it a fraction of one.
func mariadbTemplate(program, install string) (string, error) {
	version, err := exec.Command(program, "--no-defaults", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	shared, err := sharedDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(version, "%q", mariadbOptions))
	dir := filepath.Join(shared, "mariadb-"+hex.EncodeToString(sum[:6]))
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := lockFile(lock); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Made under another name, so that a directory with the final name is always whole.
	half := dir + ".new"
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	args := append([]string{"--no-defaults", "--datadir=" + half, "--auth-root-authentication-method=normal", "--skip-test-db"}, asRoot()...)
	if out, err := exec.Command(install, append(args, mariadbOptions...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", install, err, tail(string(out), 20))
	}
	return dir, os.Rename(half, dir)
}

// asRoot returns the option without which the server refuses to run as root.
func asRoot() []string {
	if os.Getuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// copyTree copies a directory with its files; os.CopyFS would refuse the odd modes that servers give their files.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case entry.Type().IsRegular():
			return copyFile(target, path)
		default:
			return fmt.Errorf("%s: neither file nor directory", path)
		}
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
