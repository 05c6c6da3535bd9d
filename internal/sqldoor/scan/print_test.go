package scan

import "testing"

func TestPrint(t *testing.T) {
	t.Parallel()
	f := func(text, want string) {
		t.Helper()
		var p, again Print
		p.Scan([]byte(text), &Mode{MariaDB: true, Version: 101119})
		if string(p.Text) != want {
			t.Errorf("%s\n got %s\nwant %s", text, p.Text, want)
		}
		again.Scan(p.Text, &Mode{MariaDB: true, Version: 101119})
		if string(again.Text) != string(p.Text) || again.Hash != p.Hash {
			t.Errorf("%s\nprint %s\nagain %s", text, p.Text, again.Text)
		}
	}
	f("SELECT  c FROM sbtest1\tWHERE id=12345", "select c from sbtest1 where id = ?")
	f("select 1;", "select ?")
	f("select 1 ; ; ", "select ?")
	f(";; select 1;;select 2", ";; select ?;; select ?")
	f("select 1; select 'a'", "select ?; select ?")
	f("SELECT Count(*), count (*) FROM `T`.`x`", "select Count(*), count (*) from `T`.`x`")
	f("select a.Select, t .b, t.1e5 from t", "select a.Select, t .b, t.1e5 from t")
	f("select * from t where a in (1,2,'x') and b IN(-1)", "select * from t where a in (?) and b in (?)")
	f("select * from t where a in (?,?, ?)", "select * from t where a in (?)")
	f("select * from t where a in (1,2,now(),3)", "select * from t where a in (?, ?, now(), ?)")
	f("select * from t where a in (1,2,now())", "select * from t where a in (?, ?, now())")
	f("select * from t where a in (1,2", "select * from t where a in (?, ?")
	f("select * from t where a in (1,", "select * from t where a in (?,")
	f("select * from t where a in ('a' 'b', 1)", "select * from t where a in (? ?, ?)")
	f("select * from t where a in (select 1)", "select * from t where a in (select ?)")
	f("select * from t where (a,b) in ((1,2),(3,4),(5,6))", "select * from t where (a, b) in ((?, ?))")
	f("insert into t values (1,-2,NULL),(1,2,'x'),(null,3,4)", "insert into t values (?, ?, ?)")
	f("insert into T (a) values (now()), (1), (2), (now())", "insert into T (a) values (now()), (?), (now())")
	f("insert into t values (1,2),(3,4) on duplicate key update a=values(a), b=values(b)", "insert into t values (?, ?) on duplicate key update a = values (a), b = values (b)")
	f("insert into t values (f(1,2)),(f(3,4))", "insert into t values (f(?, ?))")
	f("insert into t values (1 in (1,2)),(5 in (3,4,6))", "insert into t values (? in (?))")
	f("select a - 1, a-1, -1, (-1), a = -1.5e3, - -1, -0x41, -1a", "select a - ?, a - ?, ?, (?), a = ?, - ?, - ?, - 1a")
	f("select a -- x\n from t # y\n where /* z */ b", "select a from t where b")
	f("select /*+ MAX_EXECUTION_TIME(5) */ 1", "select /*+ MAX_EXECUTION_TIME(5) */ ?")
	f("select /*!40101 1 */ + /*!99999 2 */ 3 /*M!100500 +4*/", "select ? + ? + ?")
	f("/* Menshen:replica */ select 1 /* menshen: primary*/", "select ? /* menshen: primary */")
	f("select _utf8mb4'a', N'b', x'41', 0x41, b'1', 0b1, \\N, 1., .5, 1e5, 0X41", "select _utf8mb4 ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0X41")
	f("select @a, @`b c`, @'d', @@session.sql_mode, @ e, @", "select @a, @`b c`, @'d', @@session.sql_mode, @ e, @")
	f("set @a:=1, b = on", "set @a := ?, b = on")
	f("select 1.e(2)", "select (?)")
	f("select 'unclosed", "select")
	f("select null is null", "select null is null")
}
