package scan

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// server is one connection to a real MariaDB, and the mode in which it reads.
type server struct {
	*sql.Conn
	t    testing.TB
	mode Mode
}

func connect(t testing.TB, db *testenv.DB, parameters string) *server {
	t.Helper()
	pool, err := sql.Open("mysql", db.DSN("root", "")+parameters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	c, err := pool.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &server{Conn: c, t: t, mode: Mode{MariaDB: true}}
	var version string
	if err := c.QueryRowContext(context.Background(), "select version()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	var major, minor, patch uint32
	fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	s.mode.Version = major*10000 + minor*100 + patch
	return s
}

// become changes sql_mode and character set on both sides. What comes back is bytes as they are.
func (s *server) become(charset, sqlMode string) {
	s.t.Helper()
	for _, q := range []string{"set sql_mode='" + sqlMode + "'", "set character_set_connection=" + charset, "set character_set_results=binary", "set character_set_client=" + charset} {
		if _, err := s.ExecContext(context.Background(), q); err != nil {
			s.t.Fatalf("%s: %v", q, err)
		}
	}
	s.mode.SetSQLMode(sqlMode)
	if s.mode.Charset = CharsetNamed(charset); s.mode.Charset == nil {
		s.t.Fatalf("no character set %s", charset)
	}
}

// ask runs a query and returns the first column's name and the values of its first row.
func (s *server) ask(q string) (column string, values [][]byte, err error) {
	rows, err := s.QueryContext(context.Background(), q)
	if err != nil {
		return "", nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || len(columns) == 0 {
		return "", nil, err
	}
	values = make([][]byte, len(columns))
	to := make([]any, len(columns))
	for i := range to {
		to[i] = &values[i]
	}
	if rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return "", nil, err
		}
	}
	return columns[0], values, rows.Err()
}

// syntax says that the error is that of a parser: a statement that was not understood and not run.
func syntax(err error) bool {
	var e *mysql.MySQLError
	return errors.As(err, &e) && (e.Number == 1064 || e.Number == 1065 || e.Number == 1149 || e.Number == 1300)
}

// TestCharsetsAgree asks the server about every byte in every character set: whether it begins an identifier, is whitespace, or ends the -- of a comment.
func TestCharsetsAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "")
	for _, c := range charsets {
		if c.Name == "gb18030" {
			continue // MySQL only
		}
		s.become(c.Name, "")
		for b := 1; b < 0x100; b++ {
			x := string([]byte{byte(b)})
			if b >= 0x80 && c.class[b] == cMulti {
				continue // the lengths are for TestStringsAgree
			}
			_, _, err := s.ask("select 1" + x + "+ 1")
			_, _, err2 := s.ask("select 1 " + x)
			_, _, err3 := s.ask("select 1 --" + x + ")")
			space := err == nil && err2 == nil
			if got := c.class[b] == cSpace; got != space && b != '#' {
				t.Errorf("%s: %#x is whitespace: server %v, scan %v (%v, %v)", c.Name, b, space, got, err, err2)
			}
			if got := c.class[b] <= cIdentLast && c.class[b] != cDigit; got != (err2 == nil || !strings.Contains(err2.Error(), "1064")) && !space && !strings.Contains(";#-", x) {
				t.Errorf("%s: %#x is a letter: server %v, scan %v", c.Name, b, err2, got)
			}
			if got := c.spaceOrControl(byte(b)); got != (err3 == nil) && b != '\n' {
				t.Errorf("%s: --%#x begins a comment: server %v, scan %v", c.Name, b, err3, got)
			}
		}
	}
}

// TestStringsAgree sends literals made of the bytes that matter, and compares what the server takes them for with what the scanner does: the same number of
// columns, the same values; and where the server sees a syntax error, an odd statement.
func TestStringsAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "")
	random := rand.New(rand.NewPCG(4, 1))
	alphabet := []string{"'", "'", "\"", "\\", "\\", "`", "a", "n", "%", "_", " ", "-- ", "/*", "*/", "#", "\x81", "\x95", "\xbf", "\xe0", "\xfe", "\xa1", "\x5c", "\x8e", "\x8f", "\x80", "\xff", "0", "\n"}
	agreed, values := 0, 0
	for _, charset := range []string{"gbk", "sjis", "cp932", "big5", "euckr", "gb2312", "ujis", "eucjpms", "utf8mb4", "utf8mb3", "latin1", "cp1251", "binary"} {
		for _, sqlMode := range []string{"", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"} {
			s.become(charset, sqlMode)
			for range 250 {
				var b strings.Builder
				quote := []string{"'", "'", "\"", "N'"}[random.IntN(4)]
				b.WriteString(quote)
				for range random.IntN(8) {
					b.WriteString(alphabet[random.IntN(len(alphabet))])
				}
				b.WriteString(quote[len(quote)-1:])
				text := "select binary " + b.String() // binary: the bytes, not what they would mean
				if quote == "N'" {
					text = "select " + b.String()
				}
				ours, ok := s.values(text)
				_, theirs, err := s.ask(text)
				if err != nil {
					if !syntax(err) && !strings.Contains(err.Error(), "1054") {
						t.Fatalf("%s %s %q: %v", charset, sqlMode, text, err)
					}
					agreed++ // the server refuses it: the scanner may think what it likes
					continue
				}
				if !ok {
					t.Fatalf("%s %s %q: the server answers %q, the scanner cannot read it", charset, sqlMode, text, theirs)
				}
				if len(ours) == 0 || quote == "N'" {
					continue // an identifier under ANSI_QUOTES; or converted to utf8
				}
				if len(theirs) != 1 || string(theirs[0]) != string(ours) {
					t.Fatalf("%s %s %q: the server says %q, the scanner %q", charset, sqlMode, text, theirs, ours)
				}
				values++
			}
		}
	}
	t.Logf("%d values equal, %d refused", values, agreed)
}

// values returns the strings of a statement behind each other, which is what a server does with adjacent ones; nothing if there is more than SELECT BINARY and
// strings. ok is false when the statement is odd.
func (s *server) values(text string) (all []byte, ok bool) {
	var scanner Scanner
	scanner.Reset([]byte(text), &s.mode)
	for others := 0; ; {
		tok, _ := scanner.next()
		switch tok.Kind {
		case End:
			if others > 2 { // not just SELECT BINARY and strings
				all = nil
			}
			return all, !scanner.Odd
		case Bad:
			return nil, false
		case Text:
			all = AppendValue(all, []byte(text), tok, &s.mode)
		default:
			others++
		}
	}
}

// TestCommentsAgree compares which comments the server runs.
func TestCommentsAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "")
	s.become("utf8mb4", "")
	f := func(text string) {
		t.Helper()
		_, values, err := s.ask(text)
		var p Print
		p.Scan([]byte(text), &s.mode)
		if err != nil {
			if !syntax(err) {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		if p.Opaque {
			t.Errorf("%s: the server says %s, the scanner does not understand", text, values)
			return
		}
		sum := 0
		for _, slot := range p.Slots {
			n := 0
			fmt.Sscan(text[slot.Start:slot.End], &n)
			sum += n
		}
		if want := string(values[0]); want != fmt.Sprint(sum) {
			t.Errorf("%s: the server says %s, the scanner %d (%s)", text, want, sum, p.Text)
		}
	}
	versions := []string{"", "0", "1234", "00000", "32302", "40101", "50699", "50700", "50799", "80000", "99999", "000000", "050000", "099999", "100000", "100500", "101119", "101199", "120000", "999999", "1000000", "5069", "506991"}
	for _, v := range versions {
		for _, bang := range []string{"!", "M!", "m!", " !"} {
			for _, inside := range []string{" +2", "+2", " + 2 /* +4 */ +8", " + 2 /*! +4 */ +8", " +2 -- +4\n+8", " + 2 /* '*/ +4", " # */\n +2"} {
				f("select 1 /*" + bang + v + inside + " */ + 16")
				f("select 1 /*" + bang + v + inside + " */ */ + 16")
				f("select 1 /*" + bang + v + inside)
			}
		}
	}
	f("select 1 /**/+2")
	f("select 1 /*/+2*/+4")
	f("select 1 /*!99999/*/ +2 */ +4 */ +8")
	f("select 1 /*!99999 */ +4")
	f("select 1 --+2")
	f("select 1 -- +2")
	f("select 1 --\t+2")
	f("select 1 --\x01+2")
	f("select 1 --\x7f+2")
	f("select 1 --")
	f("select 1 #+2")
	f("select 1 #+2\n+4")
	f("select 1 #+2\r+4")
	f("select 1 #+2\x00\n+4")
	f("select 1 /*+ +2 */ +4")
}

// pieces are what the mutated statements are made of.
var pieces = []string{
	"select", "1", "'a'", "\"b\"", "`c`", "a", "from", "t", "where", "=", "!", "<", ">", "<=", ">=", "<>", "<=>", "!=", "=!", ":=", ":", "&&", "||", "&", "|", "<<", ">>", "(", ")", ",", ".", "..", ";",
	"@", "@a", "@`a`", "@'a'", "@@", "@@version", "@@session", "-", "--", "-- ", "#", "\n", "/*", "*/", "/*!", "/*!40101", "/*!99999", "/*M!", "+", "*", "/", "%", "^", "~", "?", "\\N", "\\",
	"1.", "1.5", ".5", "1e5", "1e", "1.e", "1.e5", "1e+", "0x41", "0x", "0xg", "0b1", "0b", "x'41'", "x'4'", "x'", "b'1'", "n'a'", "N'a", "_utf8'a'", "1a", "t.1a", "t.a", "`t`.5", "t.5", "{", "}", "[", "]", "$a", "$",
	"limit", "null", "count(*)", "order by", "as", "union", "in (1,2)", "values (1),(2)", "é", "\xff", "'", "\"", "`", "\x00", " ", "\t", "\x0b", "\x1f", "\u00a0",
}

// TestPiecesAgree makes statements of pieces and asks the server to prepare them. The scanner must see parameters where the server does: as many as it counts.
// And a statement that the server can prepare must not be one the scanner calls bad, nor may its normalised text be one the server cannot prepare.
func TestPiecesAgree(t *testing.T) {
	t.Parallel()
	db := testenv.MariaDB(t)
	db.Exec(t, "create database d", "create table d.t (a int, c int, `1a` int, `5` int)")
	s := connect(t, db, "")
	if _, err := s.ExecContext(context.Background(), "use d"); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(4, 2))
	good, parameters := 0, 0
	prepare := func(text string) (n int, err error) {
		err = s.Raw(func(c any) error {
			stmt, err := c.(interface {
				PrepareContext(context.Context, string) (driver.Stmt, error)
			}).PrepareContext(context.Background(), text)
			if err != nil {
				return err
			}
			n = stmt.NumInput()
			return stmt.Close()
		})
		return n, err
	}
	templates := []string{"select a , c from t where a = 1 and c in ( 1 , 'x' , ? ) limit 1", "select 1", "select 'a' as b , \"c\" d , `t` . `a` from d . t", "select @a , @@version , @`b` := 5 , - 1 + ? * 2 / 3", "insert into t ( a , c ) values ( 1 , 2 ) , ( ? , null ) on duplicate key update a = values ( a )", "update t set a = ? where t . c <=> 1", "set @a = 1 , autocommit = 1"}
	for range 6000 {
		words := strings.Fields(templates[random.IntN(len(templates))])
		for range random.IntN(4) {
			i := random.IntN(len(words))
			switch random.IntN(3) {
			case 0:
				words[i] = pieces[random.IntN(len(pieces))]
			case 1:
				words = append(words[:i], append([]string{pieces[random.IntN(len(pieces))]}, words[i:]...)...)
			default:
				if len(words) > 1 {
					words = append(words[:i], words[i+1:]...)
				}
			}
		}
		var b strings.Builder
		for i, w := range words {
			if i > 0 && random.IntN(4) > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(w)
		}
		text := b.String()
		sqlMode := []string{"", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"}[random.IntN(3)]
		if s.mode.ANSIQuotes != (sqlMode == "ANSI_QUOTES") || s.mode.NoBackslashEscapes != (sqlMode == "NO_BACKSLASH_ESCAPES") {
			s.become("utf8mb4", sqlMode)
		}
		n, err := prepare(text)
		var p Print
		p.Scan([]byte(text), &s.mode)
		if err != nil || strings.HasSuffix(text, "\x00") { // refused, if only because a name is unknown that the parser met before the rest
			continue
		}
		good++
		var scanner Scanner
		scanner.Reset([]byte(text), &s.mode)
		for {
			tok := scanner.Next()
			if tok.Kind == Bad {
				if !strings.Contains(text, "@@version\u00a0") && !strings.Contains(text, "@@versioné") {
					t.Errorf("%s %q: the server prepares it, the scanner calls it bad at %d", sqlMode, text, tok.Start)
				}
			}
			if tok.Kind == Bad || tok.Kind == End {
				break
			}
		}
		parameters += n
		if p.Parameters != n {
			t.Errorf("%s %q: the server sees %d parameters, the scanner %d", sqlMode, text, n, p.Parameters)
		}
		if len(p.Text) == 0 || p.Opaque || strings.Contains(text, "limit") && strings.Contains(string(p.Text), "limit") && strings.ContainsAny(text, ".-+@'") {
			continue
		}
		if _, err := prepare(string(p.Text)); syntax(err) && !aliased(p.Text, &s.mode) {
			t.Errorf("%s %q: prepared, but not its print %q: %v", sqlMode, text, p.Text, err)
		}
	}
	t.Logf("%d statements prepared, %d parameters", good, parameters)
}

// aliased says that a literal stood where a parameter cannot: as an alias, behind another string, behind _utf8.
func aliased(text []byte, m *Mode) bool {
	var scanner Scanner
	scanner.Reset(text, m)
	operand := false
	for {
		tok, _ := scanner.next()
		switch tok.Kind {
		case End, Bad:
			return false
		case Parameter:
			if operand {
				return true
			}
			operand = true
		case Word:
			w, _ := wordOf(text[tok.Start:tok.End])
			operand = !w.reserved() || w == wAs || w == wNull
		case Operator:
			operand = text[tok.Start] == ')' || text[tok.Start] == '}'
		default:
			operand = true
		}
	}
}

// TestCountsAgree sends several statements at once and counts the results.
func TestCountsAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "?multiStatements=true")
	s.become("utf8mb4", "")
	f := func(text string) {
		t.Helper()
		rows, err := s.QueryContext(context.Background(), text)
		results := 0
		if err == nil {
			for more := true; more; more = rows.NextResultSet() {
				if columns, _ := rows.Columns(); len(columns) > 0 {
					results++
				}
				for rows.Next() {
				}
			}
			err = rows.Err()
			rows.Close()
		}
		// The driver skips over results without columns: count those of selects, and stop like the server at what it does not understand.
		selects := 0
		for rest := Trim([]byte(text), &s.mode); len(rest) > 0; {
			end, next, _ := Split(rest, &s.mode)
			if Classify(rest[:end], &s.mode).Kind == Select {
				selects++
			}
			rest = rest[next:]
		}
		if err != nil { // the server stops at the first statement that fails
			if results > selects {
				t.Errorf("%q: %d results before %v, the scanner sees %d selects", text, results, err, selects)
			}
			return
		}
		if results != selects {
			t.Errorf("%q: %d results, the scanner sees %d selects", text, results, selects)
		}
	}
	f("select 1")
	f("select 1;")
	f("select 1;;; ")
	f("select 1; select 2;")
	f("select 1; -- x")
	f("select 1; /* x */")
	f("select 1; /* x */; select 2")
	f("select 1;\n\n; select 2")
	f("select ';', \";\", `a;b` from (select 1 `a;b`) x; select 2 -- ;\n; select 3 /* ; */; # ;")
	f("select 1 /*!40101 ; select 2 */; select 3")
	f("select 1 /*!40101 +1 */; select 2")
	f("do 1; select 1; do 2; select 3")
	f("begin; select 1; commit; select 2")
	f("select 1;\x00select 2")
	random := rand.New(rand.NewPCG(4, 3))
	parts := []string{"select 1", ";", ";", "'", "\"", "`", "-- ", "\n", "#", "/*", "*/", "/*!", "do 1", " ", "select 'a;b'", "\\", "x"}
	for range 1500 {
		var b strings.Builder
		for range 1 + random.IntN(9) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		f(b.String())
	}
}

// TestReservedAgree asks whether the reserved words are.
func TestReservedAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "")
	s.become("utf8mb4", "")
	for _, word := range strings.Fields(reservedWords) {
		if _, _, err := s.ask("select 1 from (select 1) as " + word); !syntax(err) {
			t.Errorf("%s is not reserved: %v", word, err)
		}
	}
}

// TestFunctionsAgree asks whether the functions said to be built in are: a name that is not one ends in error 1305, "FUNCTION x does not exist". Wrong arguments are
// other errors.
func TestFunctionsAgree(t *testing.T) {
	t.Parallel()
	s := connect(t, testenv.MariaDB(t), "")
	s.become("utf8mb4", "")
	var missing []string
	for name, f := range functions {
		if !f.mariadb || name == "json_table" {
			continue
		}
		known := false
		for _, arguments := range []string{"(')')", "(1, 2)"} {
			_, _, err := s.ask("select " + name + arguments)
			var e *mysql.MySQLError
			known = known || !errors.As(err, &e) || e.Number != 1305 && e.Number != 1630 && e.Number != 1046
		}
		if !known {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		t.Errorf("not built in: %v", missing)
	}
	_, _, err := s.ask("select function from information_schema.sql_functions limit 1")
	if err != nil {
		t.Skip("no list of functions before MariaDB 10.6")
	}
	rows, err := s.QueryContext(context.Background(), "select lower(function) from information_schema.sql_functions")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if known, _ := builtin([]byte(name), true); !known && name != "concat_operator_oracle" && !word(mustWord(name)).reserved() {
			t.Errorf("%s is not known here", name)
		}
	}
}

func mustWord(s string) word {
	w, _ := wordOf([]byte(s))
	return w
}
