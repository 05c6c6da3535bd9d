package observe

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// when is 2026-11-22 12:31:05.000042 UTC, in another zone.
var when = time.Date(2026, 11, 22, 14, 31, 5, 42_999, time.FixedZone("", 2*3600))

func httpRecord() *Record {
	return &Record{
		Time: when, Door: DoorHTTP, Listener: "web", Consumer: "app", ClientAddress: netip.MustParseAddr("::ffff:192.0.2.7"),
		Service: "users", Endpoint: "10.0.0.1:9001", Generation: 3,
		Total: 1234567 * time.Nanosecond, Upstream: 1001 * time.Microsecond, BytesIn: 120, BytesOut: 4096,
		Protocol: "HTTP/1.1", RequestID: []byte("01J9ZQ"), Route: "users", Method: []byte("GET"),
		Host: []byte("api.example.com"), Path: []byte("/users/1"), UserAgent: []byte("curl/8.5.0"), Status: 200, Retries: 1,
		// Not HTTP's: must not show.
		Session: 9, Database: "shop", Command: "query", SQLCode: 1, SQLState: "HY000",
	}
}

func sqlRecord() *Record {
	return &Record{
		Time: when, Door: DoorSQL, Listener: "sql", Consumer: "app", ClientAddress: netip.MustParseAddr("2001:db8::1"),
		Service: "databases.shop", Endpoint: "10.0.1.1:3306", Generation: 3, Fault: "upstream_broken",
		Total: 2 * time.Second, Upstream: 0, BytesIn: 30, BytesOut: 7,
		Session: 9, Database: "shop", Command: "query", SQLCode: 2013, SQLState: "HY000", Split: "own write",
		// Not SQL's: must not show.
		Protocol: "HTTP/1.1", RequestID: []byte("x"), Route: "users", Method: []byte("GET"), Host: []byte("h"),
		Path: []byte("/"), UserAgent: []byte("u"), Status: 200, Retries: 1,
	}
}

func TestAppendRecord(t *testing.T) {
	t.Parallel()
	f := func(r *Record, want string) {
		t.Helper()
		var c clock
		if got := string(appendRecord(nil, r, &c)); got != want+"\n" {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	f(httpRecord(), `{"time":"2026-11-22T12:31:05.000042Z","door":"http","listener":"web","client_address":"192.0.2.7",`+
		`"consumer":"app","request_id":"01J9ZQ","protocol":"HTTP/1.1","method":"GET","host":"api.example.com","path":"/users/1",`+
		`"user_agent":"curl/8.5.0","route":"users","service":"users","endpoint":"10.0.0.1:9001","status":200,"duration_ms":1.235,`+
		`"upstream_ms":1.001,"bytes_in":120,"bytes_out":4096,"retries":1,"generation":3}`)
	f(sqlRecord(), `{"time":"2026-11-22T12:31:05.000042Z","door":"sql","listener":"sql","client_address":"2001:db8::1",`+
		`"consumer":"app","session":9,"database":"shop","command":"query","split":"own write","endpoint":"10.0.1.1:3306","sql_code":2013,`+
		`"sql_state":"HY000","fault":"upstream_broken","duration_ms":2000.000,"upstream_ms":0.000,"bytes_in":30,"bytes_out":7,"generation":3}`)
	f(&Record{Time: when, Door: DoorTCP, Listener: "raw", Service: "echo", Endpoint: "10.0.0.9:7", Generation: 1, BytesIn: 1, BytesOut: 1},
		`{"time":"2026-11-22T12:31:05.000042Z","door":"tcp","listener":"raw","service":"echo","endpoint":"10.0.0.9:7",`+
			`"duration_ms":0.000,"upstream_ms":0.000,"bytes_in":1,"bytes_out":1,"generation":1}`)
	// A request that got no answer, and whose client is not known: status says 0, upstream_ms says nothing.
	f(&Record{Door: DoorHTTP}, `{"time":"0001-01-01T00:00:00.000000Z","door":"http","status":0,"duration_ms":0.000,"bytes_in":0,"bytes_out":0,"retries":0,"generation":0}`)
}

func TestClock(t *testing.T) {
	t.Parallel()
	var c clock
	f := func(at time.Time, want string) {
		t.Helper()
		if got := string(c.append(nil, at)); got != want {
			t.Errorf("%v: got %s, want %s", at, got, want)
		}
	}
	f(when, "2026-11-22T12:31:05.000042Z")
	f(when.Add(time.Millisecond), "2026-11-22T12:31:05.001042Z") // same second, from the cache
	f(when.Add(time.Second), "2026-11-22T12:31:06.000042Z")
	f(when, "2026-11-22T12:31:05.000042Z") // records may go back in time
	f(time.Unix(0, 999_999_999), "1970-01-01T00:00:00.999999Z")
	f(time.Unix(-1, 0), "1969-12-31T23:59:59.000000Z")
	f(time.Time{}, "0001-01-01T00:00:00.000000Z")
	f(time.Unix(1<<40, 5000), "0001-01-01T00:00:00.000000Z") // year 36812
	f(time.Unix(1<<40, 5000), "0001-01-01T00:00:00.000000Z") // the stand-in is not cached as that second
}

func TestMilliseconds(t *testing.T) {
	t.Parallel()
	f := func(d time.Duration, want string) {
		t.Helper()
		if got := string(milliseconds(nil, d)); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
	f(0, "0.000")
	f(499, "0.000")
	f(500, "0.001")
	f(1_500_000, "1.500")
	f(time.Hour, "3600000.000")
	f(-time.Second, "0.000")
	f(math.MaxInt64, "9223372036854.775") // saturates instead of wrapping
}

func TestEscape(t *testing.T) {
	t.Parallel()
	f := func(in, want string) {
		t.Helper()
		if got := string(escape(nil, in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
		if got := string(escape(nil, []byte(in))); got != want {
			t.Errorf("%q as bytes: got %s, want %s", in, got, want)
		}
	}
	f("", "")
	f("/a?b=<c>&d", "/a?b=<c>&d") // no HTML escaping
	f(`"\`, `\"\\`)
	f("\x00\n\r\t\x1f\x7f", `\u0000\n\r\t\u001f\u007f`)
	f("grüße 世界 🎈", "grüße 世界 🎈")
	f("\u0085\u009f\u00a0", `\u0085\u009f`+"\u00a0") // C1 controls move a terminal's cursor
	f("\u2028\u2029\u2030", `\u2028\u2029`+"\u2030")
	f("a\xffb\xc3", `a\ufffdb\ufffd`)
	f("\xed\xa0\x80", `\ufffd\ufffd\ufffd`) // a surrogate in UTF-8
	f("\xc0\xaf", `\ufffd\ufffd`)           // an over-long slash
	f("\uFFFD", "\uFFFD")                   // the real one stays
}

func TestLongFieldsAreCut(t *testing.T) {
	t.Parallel()
	f := func(in string, want string) {
		t.Helper()
		got := string(text(nil, `"k":`, in))
		if got != `"k":"`+want+`"` {
			t.Errorf("%d bytes: got %d, want %d: …%s", len(in), len(got), len(want)+6, got[max(0, len(got)-20):])
		}
	}
	a := strings.Repeat("a", fieldBytesMax)
	f(a, a)
	f(a+"b", a+"…")
	f(a[1:]+"é", a[1:]+"…") // not inside a character
	f(a[2:]+"éb", a[2:]+"é…")
	f(strings.Repeat("\x80", fieldBytesMax+9), strings.Repeat(`\ufffd`, fieldBytesMax-utf8.UTFMax)+"…") // nothing but middles of characters
}

// The line that the fast encoder makes must read back as what the standard library makes of the same values.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "/users/1", "\"\\\n\x00", "\xff\xed\xa0\x80", "\u2028é🎈\x7f", "a\xf0\x9f\x8e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > fieldBytesMax {
			s = s[:fieldBytesMax]
		}
		r := httpRecord()
		r.Path, r.Consumer, r.Time = []byte(s), s, time.Unix(0, int64(len(s))*1234567)
		var c clock
		line := appendRecord(nil, r, &c)
		if !utf8.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line of UTF-8: %q", line)
		}
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		std, _ := json.Marshal(s)
		var want string
		if err := json.Unmarshal(std, &want); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"path", "consumer"} {
			if value, _ := got[key].(string); value != want {
				t.Fatalf("%s: got %q, want %q", key, value, want)
			}
		}
		if at, err := time.Parse(time.RFC3339Nano, got["time"].(string)); err != nil || !at.Equal(r.Time.Truncate(time.Microsecond)) {
			t.Fatalf("time: %v, %v", got["time"], err)
		}
	})
}

// Every field of a Record shows in a line, under one door or another.
func TestEveryFieldIsWritten(t *testing.T) {
	t.Parallel()
	kind := reflect.TypeFor[Record]()
	for i := range kind.NumField() {
		shown := false
		for _, door := range []string{DoorHTTP, DoorSQL, DoorTCP} {
			var c clock
			plain, with := &Record{Door: door}, &Record{Door: door}
			field := reflect.ValueOf(with).Elem().Field(i)
			switch v := field.Addr().Interface().(type) {
			case *string:
				*v += "x"
			case *[]byte:
				*v = []byte("x")
			case *int, *int64, *time.Duration:
				field.SetInt(1e9)
			case *uint64:
				*v = 1
			case *time.Time:
				*v = when
			case *netip.Addr:
				*v = netip.MustParseAddr("192.0.2.1")
			default:
				t.Fatalf("%s: what is a %T?", kind.Field(i).Name, v)
			}
			shown = shown || !bytes.Equal(appendRecord(nil, plain, &c), appendRecord(nil, with, &c))
		}
		if !shown {
			t.Errorf("%s is written by no door", kind.Field(i).Name)
		}
	}
}

func TestAllPlainAgreesWithTheTable(t *testing.T) {
	t.Parallel()
	want := func(b []byte) bool {
		for _, c := range b {
			if !plain[c] {
				return false
			}
		}
		return true
	}
	f := func(b []byte) {
		t.Helper()
		if got := allPlain(b); got != want(b) {
			t.Errorf("%q: %v", b, got)
		}
		if got := allPlain(string(b)); got != want(b) {
			t.Errorf("the text %q: %v", b, got)
		}
	}
	for length := range 20 {
		b := bytes.Repeat([]byte("a"), length)
		f(b)
		for i := range b {
			for c := range 256 { // behind a byte that borrows, and before one
				b[i] = byte(c)
				f(b)
			}
			b[i] = ' '
		}
	}
}
