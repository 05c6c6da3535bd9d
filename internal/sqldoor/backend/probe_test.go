package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestGone(t *testing.T) {
	t.Parallel()
	f := func(err error, want bool) {
		t.Helper()
		if Gone(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
	f(fmt.Errorf("dial: %w", syscall.ECONNREFUSED), true)
	f(syscall.ECONNRESET, true)
	f(io.EOF, true)
	f(context.DeadlineExceeded, false)
	f(syscall.EMFILE, false) // that is our own trouble
	f(fmt.Errorf("%w: %w", io.EOF, &mysql.Error{Code: 1040}), false)
}

func TestWritesReadOnly(t *testing.T) {
	t.Parallel()
	f := func(grant, version string, want bool) {
		t.Helper()
		if writesReadOnly(grant, version) != want {
			t.Errorf("%s, %s: %v", grant, version, !want)
		}
	}
	const maria, old, mysql = "5.5.5-10.11.6-MariaDB", "5.5.5-10.6.12-MariaDB-log", "8.0.36"
	f("GRANT ALL PRIVILEGES ON *.* TO `gate`@`%` IDENTIFIED BY PASSWORD '*14E65567ABDB5135D0CFD9A70B3032C179A49EE7'", maria, true)
	f("GRANT SELECT, READ_ONLY ADMIN, INSERT ON *.* TO `gate`@`%`", maria, true)
	f("GRANT SELECT, SUPER ON *.* TO `gate`@`%`", maria, false)
	f("GRANT SELECT, SUPER ON *.* TO `gate`@`%`", "11.4.2-MariaDB", false)
	f("GRANT SELECT, SUPER ON *.* TO `gate`@`%`", old, true)
	f("GRANT SELECT, SUPER ON *.* TO `gate`@`%`", mysql, true)
	f("GRANT CONNECTION_ADMIN,SYSTEM_USER ON *.* TO `gate`@`%`", mysql, true)
	f("GRANT SELECT, REPLICA MONITOR ON *.* TO `gate`@`%`", maria, false)
	f("GRANT ALL PRIVILEGES ON `shop`.* TO `gate`@`%`", maria, false)
	f("GRANT `boss` TO `gate`@`%`", maria, false)
	f("GRANT SELECT ON *.* TO `READ_ONLY ADMIN, x ON *.* TO `@`%`", maria, false)
	f("", maria, false)
}

// answer is the packets of a result, as a server of either kind sends them.
func answer(caps mysql.Capability, names []string, rows ...[]string) (out []byte) {
	seq := uint8(1)
	packet := func(payload []byte) {
		out = append(mysql.Header{Length: len(payload), Sequence: seq}.AppendTo(out), payload...)
		seq++
	}
	end := func() { packet([]byte{0xfe, 0, 0, 2, 0}) }
	packet([]byte{byte(len(names))})
	for _, name := range names {
		def := mysql.AppendRow(nil, [][]byte{[]byte("def"), {}, {}, {}, []byte(name), {}})
		packet(append(def, 12, 33, 0, 1, 0, 0, 0, 253, 0, 0, 0, 0, 0))
	}
	if !caps.Has(mysql.DeprecateEOF) {
		end()
	}
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			if v != "NULL" {
				values[i] = []byte(v)
			}
		}
		packet(mysql.AppendRow(nil, values))
	}
	if caps.Has(mysql.DeprecateEOF) {
		packet([]byte{0xfe, 0, 0, 2, 0, 0, 0})
	} else {
		end()
	}
	return out
}

// What answers as no server does is an error, and breaks nothing.
func TestObserveStrangeAnswers(t *testing.T) {
	t.Parallel()
	f := func(version string, names []string, rows ...[]string) {
		t.Helper()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		done := make(chan struct{})
		go func() { // answers one command
			defer close(done)
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			defer nc.Close()
			if _, err := nc.Read(make([]byte, 1024)); err == nil {
				_, _ = nc.Write(answer(0, names, rows...))
			}
		}()
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{Conn: wire.New(nc), Version: version}
		defer c.Close()
		var o group.Observation
		if err := c.observe(&o); !errors.Is(err, mysql.ErrMalformed) {
			t.Errorf("%s, %v: %v", version, rows, err)
		}
		<-done
	}
	f("10.11.6-MariaDB", []string{"a", "b", "c"}, []string{"0", "1", "0-1-5"})
	f("10.11.6-MariaDB", []string{"a", "b", "c", "d", "e", "f"}, []string{"0", "1", "0-1-5", "", "", ""})
	f("8.0.36", []string{"a", "b"}, []string{"0", "1"})
	f("8.0.36", []string{"a", "b", "c"})
	f("8.0.36", []string{"a", "b", "c"}, []string{"0", "1", ""}, []string{"0", "1", ""})
}

func TestSources(t *testing.T) {
	t.Parallel()
	f := func(names, row string, want group.Source) {
		t.Helper()
		for _, caps := range []mysql.Capability{0, mysql.DeprecateEOF} {
			got, err := parseTable(answer(caps, strings.Fields(names), strings.Split(row, "|")), caps)
			if err != nil {
				t.Fatal(err)
			}
			if all := got.sources(); len(all) != 1 || !reflect.DeepEqual(all[0], want) {
				t.Errorf("%+v, want %+v", all, want)
			}
		}
	}
	mariadb := "Connection_name Slave_SQL_State Master_Host Master_Port Slave_IO_Running Slave_SQL_Running Last_Error Seconds_Behind_Master Last_IO_Error Last_SQL_Error Master_Server_Id"
	f(mariadb, "|x|10.0.0.1|3306|Yes|Yes||7|||1", group.Source{Address: "10.0.0.1:3306", ServerID: 1, IO: group.Connected, SQL: true, Behind: 7 * time.Second, Measured: true})
	f(mariadb, "dr|x|10.0.0.1|3306|Connecting|Yes||NULL|cannot connect||0", group.Source{Name: "dr", Address: "10.0.0.1:3306", IO: group.Connecting, SQL: true, Problem: "cannot connect"})
	f(mariadb, "|x|::1|3306|Preparing|Yes||NULL|||1", group.Source{Address: "[::1]:3306", ServerID: 1, IO: group.Connecting, SQL: true})
	f(mariadb, "|x|10.0.0.1|3306|Yes|No|dup|NULL||dup|1", group.Source{Address: "10.0.0.1:3306", ServerID: 1, IO: group.Connected, Problem: "dup"})
	f(mariadb, "|x|10.0.0.1|3306|No|No||NULL|||1", group.Source{Address: "10.0.0.1:3306", ServerID: 1})
	// MySQL 8.0.22 and later
	f("Replica_IO_State Source_Host Source_Port Replica_IO_Running Replica_SQL_Running Seconds_Behind_Source Source_Server_Id Last_IO_Error Last_SQL_Error Channel_Name",
		"x|db1|3307|Yes|Yes|0|11||| ", group.Source{Name: " ", Address: "db1:3307", ServerID: 11, IO: group.Connected, SQL: true, Measured: true})
	// and before
	f("Slave_IO_State Master_Host Master_Port Slave_IO_Running Slave_SQL_Running Seconds_Behind_Master Master_Server_Id",
		"x|db1|3307|Yes|Yes|3|11", group.Source{Address: "db1:3307", ServerID: 11, IO: group.Connected, SQL: true, Behind: 3 * time.Second, Measured: true})
}

func TestBadTables(t *testing.T) {
	t.Parallel()
	good := answer(0, []string{"a", "b"}, []string{"1", "2"})
	for n := range good {
		if _, err := parseTable(good[:n], 0); err == nil {
			t.Errorf("%d of %d bytes pass", n, len(good))
		}
	}
	var refused *mysql.Error
	e := mysql.Error{Code: 1227, State: "42000", Message: "no"}
	payload := e.AppendTo(nil)
	if _, err := parseTable(append(mysql.Header{Length: len(payload), Sequence: 1}.AppendTo(nil), payload...), 0); !errors.As(err, &refused) || refused.Code != 1227 {
		t.Errorf("%v", err)
	}
	if _, err := parseTable([]byte{7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, 0); err == nil {
		t.Error("an OK is a table")
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(answer(0, []string{"a", "b"}, []string{"1", "NULL"}), false)
	f.Add(answer(mysql.DeprecateEOF, []string{"Slave_IO_Running"}, []string{"Yes"}), true)
	f.Fuzz(func(t *testing.T, all []byte, deprecated bool) {
		caps := mysql.Capability(0)
		if deprecated {
			caps = mysql.DeprecateEOF
		}
		table, err := parseTable(all, caps)
		if err != nil {
			return
		}
		for _, row := range table.rows {
			if len(row) != len(table.names) {
				t.Errorf("%d values, %d names", len(row), len(table.names))
			}
		}
		table.sources()
	})
}

// The observer keeps its connection, survives its loss, and says what it may not see.
func TestObserver(t *testing.T) {
	db := testenv.MariaDB(t, "--server-id=7", "--log-bin=bin")
	db.Exec(t, "CREATE USER gate@'%' IDENTIFIED BY 'secret'", "CREATE DATABASE shop", "SET GLOBAL read_only=1")
	root := db.Open(t, "root", "")
	var ob Observer
	defer ob.Close()
	s := &Settings{User: "gate", Password: "secret", Connect: 5 * time.Second}
	look := func() group.Observation {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return ob.Observe(ctx, db.Addr, s, nil)
	}
	o := look()
	if o.Err != nil || o.Writable || o.ServerID != 7 || o.Position.Empty() || !errors.Is(o.SourceErr, ErrMayNotSee) || o.At.Before(o.Began) {
		t.Errorf("%+v", o)
	}
	db.Exec(t, "GRANT REPLICA MONITOR ON *.* TO gate@'%'", "SET GLOBAL read_only=0", "CHANGE MASTER TO master_host='127.0.0.1', master_port=1, master_user='x'")
	first := ob.conn
	if o = look(); o.Err != nil || !o.Writable || len(o.Sources) != 0 && o.SourceErr != nil || ob.conn != first {
		t.Errorf("%+v", o)
	}
	db.Exec(t, "KILL USER gate") // rights count from sign-in
	if o = look(); o.Err != nil || len(o.Sources) != 1 || o.Sources[0].IO != group.Stopped || o.Sources[0].Address != "127.0.0.1:1" || ob.conn == first {
		t.Errorf("after the connection was lost: %+v", o)
	}
	var connections int
	if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'gate'").Scan(&connections); err != nil || connections != 1 {
		t.Errorf("%d connections, %v", connections, err)
	}
	db.Exec(t, "SET PASSWORD FOR gate@'%' = PASSWORD('other')", "KILL USER gate")
	if o = look(); o.Err == nil || o.Gone || !strings.Contains(o.Err.Error(), "1045") {
		t.Errorf("refused: %+v", o)
	}
	db.Exec(t, "SET PASSWORD FOR gate@'%' = PASSWORD('secret')")
	if o = look(); o.Err != nil {
		t.Errorf("%+v", o)
	}
	if err := db.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("too late"))
	defer cancel()
	if o = ob.Observe(ctx, db.Addr, s, nil); o.Err == nil || o.Gone || o.Err.Error() != "too late" {
		t.Errorf("silent: %+v", o)
	}
	if err := db.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if o = look(); o.Err != nil {
		t.Errorf("%+v", o)
	}
	db.Kill()
	if o = look(); o.Err == nil || !o.Gone {
		t.Errorf("killed: %+v", o)
	}
}
