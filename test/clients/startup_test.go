package clients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// tool is a block of testdata/startup.txt.
type tool struct {
	name       string
	statements []string
	pins       string
}

func tools(t *testing.T) (all []tool) {
	text, err := os.ReadFile("testdata/startup.txt")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch name, found := strings.CutPrefix(line, "== "); {
		case found:
			all = append(all, tool{name: name})
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "pins: "):
			all[len(all)-1].pins = line[len("pins: "):]
		default:
			last := &all[len(all)-1]
			last.statements = append(last.statements, line)
		}
	}
	return all
}

// What tools say when they start pins no session, and is answered as by the instance.
func TestStartOfTools(t *testing.T) {
	h := build(t)
	open := func(user, address string) *sql.DB {
		db, err := sql.Open("mysql", fmt.Sprintf("%s@tcp(%s)/shop", user, address))
		must(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	direct, through := open("gate:secret", h.db.Addr), open("app:apple", net.JoinHostPort(h.host, h.port))
	watch := open("app:apple", net.JoinHostPort(h.host, h.port))
	statements := 0
	for _, tool := range tools(t) {
		t.Run(tool.name, func(t *testing.T) {
			want, err := direct.Conn(t.Context())
			must(t, err)
			defer discard(want)
			got, err := through.Conn(t.Context())
			must(t, err)
			defer discard(got)
			var id string
			must(t, got.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id))
			for _, statement := range tool.statements {
				statement, volatile := strings.CutPrefix(statement, "~ ")
				if own := strings.HasPrefix(statement, "! "); own {
					if columns, _ := ask(got, statement[2:]); strings.HasPrefix(columns, "error") {
						t.Errorf("%s: %s", statement, columns)
					}
					continue
				}
				columns, rows := ask(got, statement)
				wantColumns, wantRows := ask(want, statement)
				if columns != wantColumns || rows != wantRows && !volatile {
					t.Errorf("%s\nthrough the gateway: %s\n%s\ndirectly: %s\n%s", statement, columns, rows, wantColumns, wantRows)
				}
				statements++
				if pins := pinsOf(t, watch, id); pins != "" && tool.pins == "" && os.Getenv("CLIENTS_PINS") != "" {
					t.Logf("after %s: %s", statement, pins)
				}
			}
			testenv.Eventually(t, 5*time.Second, func() error { // the last answer is there a moment before the session has let go
				if pins := pinsOf(t, watch, id); pins != tool.pins {
					return fmt.Errorf("pins are %q, want %q (CLIENTS_PINS=1 shows the statement)", pins, tool.pins)
				}
				return nil
			})
		})
	}
	t.Logf("%d statements", statements)
}

// discard closes a session instead of giving it to the next tool.
func discard(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.Close()
}

// ask gives an answer as text: names and types of columns, and rows; or an error.
func ask(c *sql.Conn, statement string) (columns, all string) {
	rows, err := c.QueryContext(context.Background(), statement)
	if err != nil {
		return failure(err), ""
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return failure(err), ""
	}
	for _, c := range types {
		columns += fmt.Sprintf("%s %s, ", c.Name(), c.DatabaseTypeName())
	}
	values := make([]sql.NullString, len(types))
	into := make([]any, len(types))
	for i := range into {
		into[i] = &values[i]
	}
	var text strings.Builder
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return failure(err), ""
		}
		for _, v := range values {
			fmt.Fprintf(&text, "%q %t|", v.String, v.Valid)
		}
		text.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		return failure(err), ""
	}
	return columns, text.String()
}

// failure is an error without the numbers of sessions.
func failure(err error) string {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return fmt.Sprintf("error %d (%s)", e.Number, e.SQLState)
	}
	return err.Error()
}

// pinsOf asks the gateway for the pins of a session.
func pinsOf(t *testing.T, watch *sql.DB, id string) string {
	t.Helper()
	rows, err := watch.Query("SHOW MENSHEN SESSIONS")
	must(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	must(t, err)
	at, number := slices.Index(columns, "Pins"), slices.Index(columns, "Id")
	if at < 0 || number < 0 {
		t.Fatalf("columns of SHOW MENSHEN SESSIONS: %s", strconv.Quote(strings.Join(columns, " ")))
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range into {
		into[i] = &values[i]
	}
	for rows.Next() {
		must(t, rows.Scan(into...))
		if values[number].String == id {
			return values[at].String
		}
	}
	t.Fatalf("session %s is not there", id)
	return ""
}
