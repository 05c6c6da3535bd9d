package sqldoor

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
)

// compressedShop is shop with compression towards the instance.
func compressedShop(address, compression string) string {
	return strings.ReplaceAll(shop(address), "login:", fmt.Sprintf("compression: %s\n    login:", compression))
}

// compressed signs in as a client that asks for a compression.
func compressed(t *testing.T, g *gate, how mysql.Compression, secure *tls.Config, caps mysql.Capability) *raw {
	t.Helper()
	caps |= mysql.MultiResults | mysql.PrepareMultiResults
	s := &backend.Settings{User: "app", Password: "apple", Connect: 10 * time.Second, Compression: how, TLS: secure}
	c, err := backend.Open(t.Context(), g.Addr, s, backend.Session{Capabilities: caps, Schema: "shop"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &raw{Conn: c, t: t, caps: caps}
}

// TestCompression goes through every kind of exchange, with compression on neither, one or both sides, in whatever way.
func TestCompression(t *testing.T) {
	config, certificate := serverTLS(t)
	client := &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.lines (l VARCHAR(200))",
		"CREATE PROCEDURE shop.twice() BEGIN SELECT 1; SELECT name FROM users; SELECT REPEAT('x', 100000); END")
	for _, instance := range []string{"off", "zlib"} {
		g := open(t, compressedShop(db.Addr, instance), func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } })
		for _, how := range []mysql.Compression{mysql.Uncompressed, mysql.Zlib, mysql.Zstd} {
			secure := client
			if (how == mysql.Zlib) == (instance == "zlib") {
				secure = nil
			}
			if instance == "zlib" && how == mysql.Zstd && os.Getenv("MENSHEN_TEST_LONG") == "" {
				continue // each side is there already with another on the other one
			}
			t.Run(fmt.Sprintf("instance %s, client %s, TLS %v", instance, how, secure != nil), func(t *testing.T) {
				exchanges(t, compressed(t, g, how, secure, mysql.MultiStatements|mysql.LocalFiles))
			})
		}
	}
}

// exchanges has one of each kind.
func exchanges(t *testing.T, r *raw) {
	want := func(c mysql.Command, argument string, rows uint64) mysql.Response {
		t.Helper()
		a, first := r.ask(c, argument)
		if a.Code != 0 || a.Rows != rows {
			t.Errorf("%s %.30q: error %d, %d rows, want %d (%q)", c, argument, a.Code, a.Rows, rows, first)
		}
		return a
	}
	want(mysql.ComPing, "", 0)
	want(mysql.ComQuery, "SELECT name FROM users LIMIT 3", 3)
	want(mysql.ComQuery, "SELECT 1; SELECT name FROM users LIMIT 2; SELECT REPEAT('long ', 50000); DO 1; SELECT 2", 5)
	want(mysql.ComQuery, "CALL twice()", want(mysql.ComQuery, "SELECT id FROM users", 3).Rows+2)
	want(mysql.ComQuery, "SELECT seq, MD5(seq), REPEAT('y', 50) FROM seq_1_to_20000", 20000)
	want(mysql.ComQuery, "SELECT REPEAT(MD5(1), 600000)", 1) // over 16 MB

	// A statement over 16 MB, of which some does not compress.
	noise := make([]byte, 17<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	for i := range noise {
		noise[i] = "0123456789abcdef "[noise[i]%17]
	}
	b, next := mysql.AppendPacket(nil, 0, append([]byte("\x03SELECT LENGTH('"), append(noise, "')"...)...))
	for len(b) > 0 { // in pieces that are not frames, as they come from a socket
		n := min(len(b), 100_000)
		if err := r.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if a, err := r.followAfter(mysql.ComQuery, next); err != nil || a.Code != 0 || a.Rows != 1 {
		t.Errorf("a large statement: %+v, %v", a, err)
	}

	// The client's file, alone and after other results; the second time it is denied.
	for _, before := range []string{"", "SELECT 1; SELECT name FROM users; "} {
		r.send(mysql.ComQuery, before+"LOAD DATA LOCAL INFILE 'x' INTO TABLE shop.lines (l); SELECT 7")
		a, _ := r.follow(mysql.ComQuery, false)
		if !a.WantsFile() {
			t.Fatalf("no wish for a file: %+v", a)
		}
		rows := a.Rows
		sequence := a.Sequence
		for i := range 400 { // more than a byte counts
			part, next := mysql.AppendPacket(nil, sequence, fmt.Appendf(nil, "line %d %s\n", i, strings.Repeat("z", i%100)))
			if err := r.Write(part); err != nil {
				t.Fatal(err)
			}
			sequence = next
		}
		part, next := mysql.AppendPacket(nil, sequence, nil)
		if err := r.Write(part); err != nil {
			t.Fatal(err)
		}
		a.FileSent(next)
		for !a.Done() {
			if len(r.Buffered()) == 0 {
				if err := r.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			n, err := a.Feed(r.Buffered())
			if err != nil {
				t.Fatal(err)
			}
			r.Skip(n)
		}
		if a.Code != 0 || a.Rows != rows+1 {
			t.Errorf("load: error %d, %d rows", a.Code, a.Rows)
		}
	}
	want(mysql.ComQuery, "SELECT 1 FROM shop.lines GROUP BY 1 HAVING COUNT(*) = 800", 1)
	want(mysql.ComQuery, "TRUNCATE shop.lines", 0)

	// Prepared, with long data and commands that have no answer.
	a := want(mysql.ComStmtPrepare, "SELECT id, ? FROM users ORDER BY id LIMIT 3", 0)
	id := string([]byte{byte(a.Prepared.Statement), byte(a.Prepared.Statement >> 8), 0, 0})
	for range 300 {
		r.send(mysql.ComStmtLongData, id+"\x00\x00"+strings.Repeat("data", 20))
	}
	want(mysql.ComStmtExecute, id+"\x00\x01\x00\x00\x00\x00\x01\xfc\x00", 3)
	r.send(mysql.ComStmtClose, id)
	want(mysql.ComQuery, "SELECT 1", 1)
	if a, _ := r.ask(mysql.ComQuery, "SELEKT"); a.Code != 1064 {
		t.Errorf("error %d", a.Code)
	}
	want(mysql.ComQuery, "BEGIN", 0)
	want(mysql.ComQuery, "INSERT INTO users (name) VALUES ('rolled back')", 0)
	want(mysql.ComQuery, "ROLLBACK", 0)
	want(mysql.ComReset, "", 0)
	r.changeUser("other", "orange", "shop", 0)
	want(mysql.ComQuery, "SELECT 1", 1)
	r.Release()
	if !r.Alive() {
		t.Error("something is left")
	}
}

// TestCompressionOfOthers: clients that were written by others, on either side of the switch.
func TestCompressionOfOthers(t *testing.T) {
	db := mariadb(t)
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, bytes.Repeat([]byte("1\n22\n333\n"), 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "CREATE TABLE shop.lines (l VARCHAR(200))")
	for _, instance := range []string{"off", "zlib"} {
		g := open(t, compressedShop(db.Addr, instance))
		for _, options := range [][]string{nil, {"--compress"}} {
			out, err := g.cli("app", "apple", "shop", "SELECT 1; SELECT LENGTH(REPEAT('abc', 6000000)); LOAD DATA LOCAL INFILE '"+file+"' INTO TABLE `lines`; SELECT COUNT(*) FROM `lines`; TRUNCATE `lines`; SELECT seq FROM seq_1_to_3", append(options, "--local-infile=1")...)
			if want := "1\n18000000\n150000\n1\n2\n3\n"; err != nil || out != want {
				t.Errorf("instance %s, %v: %.100q, %v", instance, options, out, err)
			}
		}
		c := g.one("app:apple", "shop", "compress=true", "multiStatements=true", "maxAllowedPacket=0")
		long := strings.Repeat("0123456789", 2_000_000)
		var got string
		if err := c.QueryRow("SELECT ?", long).Scan(&got); err != nil || got != long {
			t.Errorf("go-sql-driver: %d bytes, %v", len(got), err)
		}
		rows, err := c.Query("SELECT seq FROM seq_1_to_1000; SELECT 2; SELECT seq FROM seq_1_to_10")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				n++
			}
		}
		if err := rows.Err(); err != nil || n != 1011 {
			t.Errorf("go-sql-driver: %d rows, %v", n, err)
		}
		_ = rows.Close()
	}
}

// A client whose window is too large is told so.
func TestWindowTooLarge(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	r := compressed(t, g, mysql.Zstd, nil, 0)
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(32<<20), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	statement := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT 1 /* "+strings.Repeat("a", 9<<20)+" */")
	for _, part := range [][]byte{statement[:1000], statement[1000:]} {
		_, _ = w.Write(part)
		_ = w.Flush()
	}
	_ = w.Close()
	r.ReadBefore(poll.Now().Add(10 * time.Second))
	if _, err := r.Plain().Write(append(mysql.Envelope{Length: b.Len(), Inflated: len(statement)}.AppendTo(nil), b.Bytes()...)); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r.Plain())
	if err != nil {
		t.Fatal(err)
	}
	h, _ := mysql.ParseEnvelope(all)
	answer := all[mysql.EnvelopeLen:]
	if h.Inflated != 0 {
		d, _ := zstd.NewReader(nil)
		defer d.Close()
		if answer, err = d.DecodeAll(answer, nil); err != nil {
			t.Fatal(err)
		}
	}
	var e mysql.Error
	if err := e.Decode(answer[mysql.HeaderLen:]); err != nil || e.Code != 1157 || !strings.Contains(e.Message, "a window of more than 8 MiB") {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestCompressionThatIsNotOffered: the config is not silently ignored.
func TestCompressionThatIsNotOffered(t *testing.T) {
	db := mariadb(t)
	_, err := backend.Open(t.Context(), db.Addr, &backend.Settings{User: "gate", Password: "secret", Compression: mysql.Zstd}, backend.Session{}, nil)
	if err == nil || !strings.Contains(err.Error(), "offers no zstd compression") {
		t.Error(err)
	}
}
