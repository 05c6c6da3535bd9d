package sqldoor

import (
	"database/sql"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	wire "github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// readOnlyUnder has statements wait for a lock of all tables on the primary, and that become read-only under them: the server refuses them when they go on.
func (f *fleet) readOnlyUnder(t *testing.T, statements int, during func()) {
	t.Helper()
	db := f.DBs[0].Open(t, "root", "")
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantAnswer(t, c, "FLUSH TABLES WITH READ LOCK", "")
	during()
	testenv.Eventually(t, 10*time.Second, func() error {
		n := value[int](t, db, "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'Waiting for backup lock'")
		if n != statements {
			return fmt.Errorf("%d statements wait, not %d: %s", n, statements, strings.ReplaceAll(ask(c, "SELECT state, info FROM information_schema.processlist WHERE user = 'gate'"), "\n", "; "))
		}
		return nil
	})
	wantAnswer(t, c, "SET GLOBAL read_only = 1", "")
	wantAnswer(t, c, "UNLOCK TABLES", "")
}

// Statements that the old primary refuses because it has become read-only: rows that nothing else depends on wait for the new primary, everything else fails at once.
func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false, "--secure-file-priv=/usr", "--local-infile=1", "--log-bin-trust-function-creators=1")
	f.DBs[0].Exec(t, "GRANT FILE, EXECUTE ON *.* TO gate@'%'", "CREATE TABLE shop.m (name VARCHAR(50), server INT) ENGINE=MyISAM",
		"CREATE TABLE shop.other (n INT)", "CREATE FUNCTION shop.one() RETURNS INT RETURN 1", "CREATE PROCEDURE shop.twice(n VARCHAR(50)) SQL SECURITY INVOKER BEGIN INSERT INTO t (name) VALUES (n); INSERT INTO t (name) VALUES (n); END",
		"INSERT INTO shop.t (name) VALUES ('row')")
	if got := ask(f.session(t), "LOAD DATA INFILE '/etc/hostname' INTO TABLE t"); got != "error 1290" {
		t.Errorf("another option that prevents a statement: %q", got)
	}
	// A file whose name is shorter than the beginning of an error.
	r := connect(t, f.gate, wire.LocalFiles, "shop")
	for _, name := range []string{"", "a"} {
		r.send(wire.ComQuery, "LOAD DATA LOCAL INFILE '"+name+"' INTO TABLE t (name)")
		answer, _ := r.follow(wire.ComQuery, false)
		if !answer.WantsFile() {
			t.Fatalf("file %q: error %d", name, answer.Code)
		}
		end, _ := wire.AppendPacket(nil, answer.Sequence, nil)
		if err := r.Write(end); err != nil {
			t.Fatal(err)
		}
		if payload, _, err := r.ReadMessage(answer.Sequence+1, 1000); err != nil || !wire.IsOK(payload) {
			t.Fatalf("file %q: %q, %v", name, payload, err)
		}
	}
	type asked struct {
		before, statement string
		args              []any
		refused           bool
		answer            chan string
	}
	mysql.RegisterReaderHandler("refused", func() io.Reader { return strings.NewReader("loaded\t2\n") })
	all := []asked{
		{statement: "INSERT INTO t (name, server) VALUES ('text', @@server_id)"},
		{statement: "INSERT INTO t (name, server) VALUES (?, @@server_id)", args: []any{"prepared"}},
		{statement: "INSERT INTO m (name, server) VALUES ('myisam', @@server_id)"},
		{statement: "REPLACE INTO t (id, name, server) VALUES (1, 'row', @@server_id)"},
		{statement: "/* SELECT 1; */ INSERT INTO t (name, server) VALUES ('several', @@server_id); SELECT 'second'"},
		{before: "SELECT * FROM t", statement: "UPDATE t SET server = server WHERE name = 'none'"},
		{before: "INSERT INTO m VALUES ('x', 0)", statement: "DELETE FROM m WHERE name = 'none'"},
		{statement: "LOAD DATA LOCAL INFILE 'Reader::refused' INTO TABLE m"},
		{before: "SET time_zone = '+05:00'", statement: "INSERT INTO t (name, server) VALUES (CONCAT('zone', @@time_zone), @@server_id)"},

		{before: "BEGIN", statement: "INSERT INTO t (name) VALUES ('bad')", refused: true},
		{before: "SET autocommit = 0", statement: "INSERT INTO t (name) VALUES ('bad')", refused: true},
		{before: "SELECT @a := 1", statement: "INSERT INTO t (name) VALUES ('bad')", refused: true},
		{statement: "INSERT INTO t (name, id) VALUES ('bad', one() + 1000)", refused: true},
		{statement: "INSERT INTO t (name, id) VALUES ('bad', @b := 1000)", refused: true},
		{statement: "CALL twice('bad')", refused: true},
		{statement: "SELECT 'bad'; INSERT INTO t (name) VALUES ('bad')", refused: true},
		{statement: "TRUNCATE other", refused: true},
	}
	sessions := make([]*sql.Conn, len(all))
	for i := range all {
		sessions[i] = f.session(t, "multiStatements=true")
		if all[i].before != "" {
			if got := ask(sessions[i], all[i].before); strings.HasPrefix(got, "error") {
				t.Fatalf("%s: %s", all[i].before, got)
			}
		}
	}
	waiting := 0
	f.readOnlyUnder(t, len(all), func() {
		for i := range all {
			all[i].answer = make(chan string, 1)
			go func() { all[i].answer <- ask(sessions[i], all[i].statement, all[i].args...) }()
		}
	})
	for i := range all {
		if !all[i].refused {
			waiting++
			continue
		}
		select {
		case got := <-all[i].answer:
			if !strings.HasSuffix(got, "error 1290") {
				t.Errorf("%s; %s: %q", all[i].before, all[i].statement, got)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s; %s: it waits", all[i].before, all[i].statement)
		}
	}
	f.sees(t, group.Headless, 0)
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := f.database().keeper.waiting.Load(); n != int64(waiting) {
			return fmt.Errorf("%d statements wait, not %d", n, waiting)
		}
		return nil
	})
	f.Sync(t, 1, 0)
	f.Promote(t, 1)
	for i := range all {
		if all[i].refused {
			continue
		}
		if got, want := <-all[i].answer, map[bool]string{true: "second|\n"}[strings.Contains(all[i].statement, "second")]; strings.TrimLeft(got, "\n") != want {
			t.Errorf("%s: %q, want %q", all[i].statement, got, want)
		}
	}
	c, err := f.DBs[1].Open(t, "root", "shop").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantAnswer(t, c, "SELECT name, server FROM t UNION ALL SELECT name, server FROM m WHERE name <> 'x' ORDER BY name", "loaded|2|\nmyisam|2|\nprepared|2|\nrow|2|\nseveral|2|\ntext|2|\nzone+05:00|2|\n")
	f.Follow(t, 0, 1) // which it can only with nothing of its own
	f.Sync(t, 0, 1)
}

// A refused write waits as long as failover_wait says, and no longer.
func TestRefusedWriteGivesUp(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "    failover_wait: 600ms", false)
	for _, wait := range []string{"600ms", "0s"} {
		f.reload(f.config("    failover_wait: " + wait))
		f.sees(t, group.Ready, 0)
		c, answer := f.session(t), make(chan string, 1)
		f.readOnlyUnder(t, 1, func() { go func() { answer <- ask(c, "INSERT INTO t (name) VALUES ('never')") }() })
		if got, want := <-answer, map[string]string{"600ms": "error 2003", "0s": "error 1290"}[wait]; got != want {
			t.Errorf("failover_wait %s: %q", wait, got)
		}
		f.sees(t, group.Headless, 0) // else the check after the refusal may come later, and find what was
		f.DBs[0].Exec(t, "SET GLOBAL read_only = 0")
		f.sees(t, group.Ready, 0)
		wantAnswer(t, c, "SELECT COUNT(*) FROM t", "0|\n")
	}
	// Read-only for less than a check: the same instance gets it again.
	c, answer := f.session(t), make(chan string, 1)
	f.reload(f.config("    failover_wait: 10s"))
	f.readOnlyUnder(t, 1, func() { go func() { answer <- ask(c, "INSERT INTO t (name) VALUES ('once')") }() })
	f.DBs[0].Exec(t, "SET GLOBAL read_only = 0")
	if got := <-answer; got != "" {
		t.Error(got)
	}
	wantAnswer(t, c, "SELECT COUNT(*) FROM t", "1|\n")
}

// The list of messages tells whether a statement that failed has left something behind.
func TestOnlyError(t *testing.T) {
	t.Parallel()
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.kept (n INT) ENGINE=MyISAM", "CREATE TABLE shop.k (n INT PRIMARY KEY)", "CREATE TRIGGER shop.k BEFORE INSERT ON shop.k FOR EACH ROW INSERT INTO kept VALUES (1)", "INSERT INTO shop.k VALUES (1)")
	c, err := backend.Open(t.Context(), db.Addr, &backend.Settings{User: "gate", Password: "secret"}, backend.Session{Schema: "shop"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := func(statement string, code uint16, want bool) {
		t.Helper()
		if err := c.Do(wire.ComQuery, statement); code == 0 && err != nil {
			t.Fatal(err)
		}
		if got, err := c.OnlyError(code); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", statement, got, err, want)
		}
	}
	f("INSERT INTO users VALUES (1, 'x')", 1062, true)
	f("INSERT INTO users VALUES (1, 'x')", 1290, false)
	f("INSERT INTO k VALUES (1)", 1062, false) // 1196: the row that the trigger wrote stays
	f("SET max_error_count = 1", 0, false)
	f("INSERT INTO k VALUES (1)", 1062, false)
	f("INSERT INTO users VALUES (1, 'x')", 1062, true)
	f("SET max_error_count = 0", 0, false)
	f("INSERT INTO users VALUES (1, 'x')", 1062, false)
}
