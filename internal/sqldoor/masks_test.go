package sqldoor

import (
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// unspoken are the capabilities that change the form of packets in a way that is not followed here. Bit 28 is MySQL's sign-in with several
// factors, 29 MariaDB's progress reports, 30 and 31 are of the protocol's own use.
const unspoken = mysql.OptionalMetadata | mysql.QueryAttributes | mysql.ExpiredPasswords | mysql.NoSchema | 0xf<<28

// TestMasks: what is not spoken is announced to neither side, whatever the other one announces.
func TestMasks(t *testing.T) {
	asked := make(chan []byte, 100)
	address := faked(t, func(c *wire.Conn) {
		// MariaDB with all that it might ever know: the lowest bit is off, which says that extended capabilities follow.
		g := mysql.Greeting{Version: "11.8.1-MariaDB", ConnectionID: 7, Capabilities: ^mysql.TLS, Collation: 45, Status: mysql.Autocommit, Plugin: mysql.NativePassword}
		copy(g.Nonce[:], "01234567890123456789")
		all := func(dst []byte) []byte {
			start := len(dst)
			dst = g.AppendTo(dst)
			at := start + 1 + len(g.Version) + 1 + 4 + 8 + 1
			dst[at] &^= byte(mysql.LongPassword)
			binary.LittleEndian.PutUint32(dst[at+2+1+2+2+1+6:], ^uint32(0))
			return dst
		}
		if c.WriteMessage(0, all) != nil {
			return
		}
		payload, seq, err := c.ReadMessage(1, 1<<16)
		if err != nil {
			return
		}
		asked <- payload
		ok := mysql.OK{Status: mysql.Autocommit}
		_ = c.WriteMessage(seq, func(dst []byte) []byte { return ok.AppendTo(dst, 0) })
		_, _, _ = c.ReadMessage(0, 100)
	})
	c, err := backend.Open(t.Context(), address, &backend.Settings{User: "gate"}, backend.Session{Capabilities: ^mysql.Capability(0), Schema: "shop"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Capabilities & (unspoken | mysql.Compress | mysql.CompressZstd | mysql.ConnectAttributes); got != 0 {
		t.Errorf("the instance is asked for %s", got)
	}
	_ = c.Close()
	g := open(t, shop(address))
	for range cap(asked) {
		payload := <-asked
		var in mysql.SignIn
		if err := in.Decode(payload); err != nil || !in.Capabilities.Has(mysql.LongPassword) || in.Capabilities&unspoken != 0 {
			t.Fatalf("asked for %s (%#x), %v", in.Capabilities, uint32(in.Capabilities), err)
		}
		for _, b := range payload[9:32] { // the last four are MariaDB's extended capabilities
			if b != 0 {
				t.Fatalf("reserved bytes are %x", payload[9:32])
			}
		}
		if len(asked) == 0 {
			break
		}
	}

	// The greeting, and a client that takes what was never offered: it is treated as one that does not.
	greeting := greetingOf(t, g.Addr)
	if greeting.Capabilities&unspoken != 0 || !greeting.Capabilities.Has(mysql.LongPassword) || greeting.Extended != 0 {
		t.Errorf("offered: %s (%#x), extended %#x", greeting.Capabilities, uint32(greeting.Capabilities), greeting.Extended)
	}
	nc, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	client := wire.New(nc)
	defer client.Close()
	client.ReadBefore(poll.Now().Add(10 * time.Second))
	payload, seq, err := client.ReadMessage(0, 1000)
	if err == nil {
		err = greeting.Decode(payload)
	}
	if err != nil {
		t.Fatal(err)
	}
	in := mysql.SignIn{
		Capabilities: ^(mysql.TLS | mysql.Compress | mysql.CompressZstd | mysql.LongPassword), User: []byte("app"),
		Auth: mysql.SHA2Scramble("apple", greeting.Nonce[:]), Plugin: []byte(mysql.CachingSHA2), Attributes: []byte("\x04_pid\x011"),
	}
	_ = client.WriteMessage(seq, in.AppendTo)
	if payload, seq, err = client.ReadMessage(seq+1, 1000); err != nil || len(payload) != 2 || payload[1] != mysql.SHA2FastDone {
		t.Fatalf("%q, %v", payload, err)
	}
	if payload, _, err = client.ReadMessage(seq, 1000); err != nil || !mysql.IsOK(payload) {
		t.Fatalf("%q, %v", payload, err)
	}
	_ = client.Write(mysql.AppendCommand(nil, mysql.ComPing, ""))
	if payload, _, err = client.ReadMessage(1, 1000); err != nil || !mysql.IsOK(payload) {
		t.Errorf("%q, %v", payload, err)
	}
}

// TestProgramNames: what a client calls itself is shown, as far as it is fit to be.
func TestProgramNames(t *testing.T) {
	t.Parallel()
	pair := func(name, value string) string {
		return string(mysql.AppendLenencString(mysql.AppendLenencString(nil, name), value))
	}
	f := func(attributes, want string) {
		t.Helper()
		if got := programOf([]byte(attributes)); got != want {
			t.Errorf("%q: %q, want %q", attributes, got, want)
		}
	}
	f("", "")
	f(pair("_pid", "7")+pair("_client_name", "libmariadb")+pair("program_name", "mysql"), "mysql")
	f(pair("_client_name", "Go-MySQL-Driver")+pair("program_name", ""), "Go-MySQL-Driver")
	f(pair("_pid", "7"), "")
	f(pair("program_name", "a\r\n\x1b[31mb\xff"), "a???[31mb\uFFFD")
	f(pair("program_name", strings.Repeat("й", 500)), strings.Repeat("й", programMax/2))
	f(pair("_pid", "7")+"\x0cprogram_name\x7fcut", "")
	f("\xff\xff\xff", "")

	g := open(t, shop(testenv.FreeAddress(t)))
	c := g.one("app:apple", "", "connectionAttributes=program_name:watcher")
	rows, err := c.Query("SHOW MENSHEN SESSIONS")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	values := make([]string, len(columns))
	into := make([]any, len(columns))
	for i := range into {
		into[i] = &values[i]
	}
	if !rows.Next() || rows.Scan(into...) != nil || values[slices.Index(columns, "Program")] != "watcher" {
		t.Errorf("%q: %q", columns, values)
	}
}
