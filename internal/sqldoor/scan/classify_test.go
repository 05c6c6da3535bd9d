package scan

import (
	"strings"
	"testing"
)

var maria = &Mode{MariaDB: true, Version: 101119}

func TestClassify(t *testing.T) {
	t.Parallel()
	// want is "statement; effects" with a + before the statement when it is read-only, and ++ when a replica may answer it.
	f := func(text, want string) {
		t.Helper()
		facts := Classify([]byte(text), maria)
		got := facts.Kind.String()
		if facts.Effects != 0 {
			got += ": " + facts.Effects.String()
		}
		if facts.Replica() {
			got = "+" + got
		}
		if facts.ReadOnly {
			got = "+" + got
		}
		if got != want {
			t.Errorf("%s\n got %s (%s)\nwant %s", text, got, facts.Why, want)
		}
	}
	// Reads that any instance can answer.
	f("select 1", "++select")
	f("SELECT id, name FROM users WHERE id = 5 LIMIT 1", "++select")
	f("(select 1) union (select 2) order by 1", "++select")
	f("select count(*), max(a), now(), date_format(b, '%Y') from t group by c having sum(d) > 3", "++select")
	f("select if(a, 1, 2), replace(a, 'x', 'y'), insert('a', 1, 1, 'b'), left(a, 2), char(65) from t", "++select")
	f("with recursive x (a, b) as (select 1, 2) select * from x", "++select")
	f("select sum(a) over (partition by b), match(a) against ('x') from t use index (i) where a in (1) and b = any (select 1)", "++select")
	f("select * from t as x(a)", "++select")
	f("values (1, 2), (3, 4)", "++select")
	f("select cast(a as decimal(10, 2)), convert(a, char(5)), interval(1, 2), timestampdiff(day, a, b), extract(day from a) from t", "++select")
	f("select /*+ NO_INDEX_MERGE(t) */ * from t", "++select")
	f("select sleep(1), benchmark(1, 1), rand(), uuid(), now(), sysdate(), current_timestamp, unix_timestamp()", "++select")
	f("select * from t for system_time as of '2020-01-01'", "++select")
	f("select * from (select a from t union all select 1) x join lateral_t y using (a) where exists (select 1 from z)", "++select")
	f("with x as (select 1) select * from x, (with y as (select 2) select * from y) z", "++select")
	f("select 'get_lock(1,2) for update', `for update` from t", "++select")
	f("select t.update, t.lock from t", "++select")
	// Reads that the primary, or the session's connection, must answer.
	f("select @a", "+select: reads user variables")
	f("select @@session.sql_mode, @@version", "+select: reads variables")
	f("select last_insert_id()", "+select: reads last insert id")
	f("select @@identity, @@LAST_INSERT_ID", "+select: reads last insert id")
	f("select found_rows(), row_count(), connection_id()", "+select: reads found rows, reads row count, reads connection id")
	f("select @@warning_count, @@error_count", "+select: reads diagnostics")
	f("select user(), current_user, current_user()", "+select: reads login") // with the host that this instance sees
	f("select version()", "+select: asks instance")
	f("select des_encrypt('a')", "+select: asks instance") // with the keys of this instance
	f("select * from information_schema.tables", "+select: asks instance")
	f("select * from `Performance_Schema`.x", "+select: asks instance")
	f("select is_free_lock('a'), master_pos_wait('a', 1)", "+select: asks instance")
	f("select previous value for s", "+select: reads last insert id")
	f("show tables", "+show: asks instance")
	f("show warnings", "+show diagnostics: reads diagnostics, asks instance")
	f("show count(*) errors", "+show diagnostics: reads diagnostics, asks instance")
	f("show full processlist", "+show processes: asks instance")
	f("SHOW MENSHEN SESSIONS", "+show menshen: asks instance")
	f("desc t", "+describe: asks instance")
	f("explain select 1", "+explain: asks instance")
	f("explain format=json select * from t", "+explain: asks instance")
	// Selects that change something.
	f("select * from t for update", "select: locks rows")
	f("select * from t where a = 1 FOR UPDATE NOWAIT", "select: locks rows")
	f("select * from t for /* x */ share of t skip locked", "select: locks rows")
	f("select * from t lock in share mode", "select: locks rows")
	f("(select * from t for update)", "select: locks rows")
	f("select a into @x from t", "select: sets user variables, reads user variables")
	f("select a into outfile '/tmp/x' from t", "select: writes file")
	f("select a from t into dumpfile '/tmp/x'", "select: writes file")
	f("select @a := 1", "select: sets user variables, reads user variables")
	f("select @`a b`:=@c+1", "select: sets user variables, reads user variables")
	f("select Get_Lock('a', 1)", "select: takes user lock")
	f("select release_all_locks()", "select: takes user lock")
	f("select last_insert_id(5)", "select: sets last insert id")
	f("select last_insert_id(id + 1) from t", "select: sets last insert id")
	f("select next value for s", "select: sets last insert id")
	f("select nextval(s), setval(s, 5)", "select: sets last insert id")
	f("select lastval(s)", "+select: reads last insert id")
	f("select load_file('/etc/passwd')", "select: asks instance")
	f("select sql_calc_found_rows * from t limit 1", "select: calculates found rows")
	f("select f(1)", "select: calls unknown")
	f("select * from t where a in (select f(b) from u)", "select: calls unknown")
	f("with x as (select f(1)) select * from x", "select: calls unknown")
	f("select 1 union select a from t for update", "select: locks rows")
	f("select * from (select a from t for update) x", "select: locks rows")
	f("select * from t where a = (select b from u lock in share mode)", "select: locks rows")
	f("select (select get_lock('a', 1))", "select: takes user lock")
	f("select 1 union select 2 into @x", "select: sets user variables, reads user variables")
	f("select a from t where b = @x", "+select: reads user variables")
	f("select a from t where b = @@server_id", "+select: reads variables")
	f("with x as (select 1) insert into t select * from x", "insert")
	f("select 1; update t set a = 1; select 2", "select")
	f("select 1; set @x = 1", "select: sets user variables, reads user variables")
	f("select 1; call p()", "select: calls unknown")
	f("select 1; begin", "select: begins transaction")
	f("select db.count(1)", "select: calls unknown")
	f("select `count`(1)", "select: calls unknown")
	f("select count (1)", "select: calls unknown")
	f("select count/**/(1)", "select: calls unknown")
	f("select a.f (1) from t", "select: calls unknown")
	f("select regexp_like('a', 'b')", "select: calls unknown") // MySQL only: a stored function here
	f("select * from t procedure analyse()", "select: unknown effect, calls unknown")
	f("select 1.e(2)", "select: unknown effect")
	f("select 'a", "select: unknown effect")
	f("select 1 /*! into outfile 'x' */", "select: writes file")
	f("select 1 /*!50700 for update */", "++select") // meant for MySQL
	f("select 1 from t /*!40101 for update */", "select: locks rows")
	f("select 1 /*!99999 for update */", "++select")
	f("select 1 /*M!100100 for update */", "select: locks rows")
	f("explain update t set a = 1", "explain: asks instance")
	f("analyze select 1", "explain")
	f("explain analyze select 1", "explain: asks instance")
	// Writes.
	f("insert into t (a, b) values (1, 2)", "insert")
	f("insert ignore into db.t (a) select f(1)", "insert: calls unknown")
	f("insert into t values (@a)", "insert: reads user variables")
	f("replace low_priority t(a) values (last_insert_id(7))", "replace: sets last insert id")
	f("insert into t set a = get_lock('x', 1)", "insert: takes user lock")
	f("update t set a = 1", "update")
	f("update t set a = (@n := @n + 1)", "update: sets user variables, reads user variables")
	f("delete from t", "delete")
	f("with x as (select 1) delete from t", "delete")
	f("with x as (select 1) update t set a = 1", "update")
	f("load data local infile 'x' into table t (a, @b) set c = @b", "load data: reads user variables")
	f("call p(1, @out)", "call: calls unknown, reads user variables")
	f("do get_lock('a', 1)", "do: takes user lock")
	// Transactions.
	f("begin", "begin: begins transaction")
	f("BEGIN WORK;", "begin: begins transaction")
	f("start transaction with consistent snapshot", "begin: begins transaction")
	f("commit", "commit: ends transaction")
	f("commit and chain", "commit: begins transaction, ends transaction")
	f("commit and no chain release", "commit: ends transaction, releases connection")
	f("rollback work", "rollback: ends transaction")
	f("rollback no release", "rollback: ends transaction")
	f("rollback to savepoint x", "rollback to")
	f("rollback to x", "rollback to")
	f("savepoint a", "savepoint")
	f("release savepoint a", "release savepoint")
	f("xa start 'x'", "xa: begins transaction")
	f("xa prepare 'x'", "xa: ends transaction")
	f("xa recover", "xa: asks instance")
	// Session.
	f("set autocommit = 0", "set: sets autocommit, sets variables")
	f("set @@session.autocommit=1, names utf8mb4", "set: sets autocommit, sets variables, reads variables")
	f("set @a = 1", "set: sets user variables, reads user variables")
	f("set @a := @b", "set: sets user variables, reads user variables")
	f("set global max_connections = 5", "set: sets globals")
	f("set persist x = 5", "set: sets globals")
	f("set sql_mode = ''", "set: sets variables")
	f("set sql_mode = (select @x := 5)", "set: sets variables, sets user variables, reads user variables")
	f("set names gbk collate gbk_bin", "set: sets variables")
	f("set character set utf8", "set: sets variables")
	f("set transaction isolation level read committed", "set: sets variables")
	f("set session transaction read only", "set: sets variables")
	f("set global transaction read only", "set: sets globals")
	f("set global a = 1, b = 2", "set: unknown effect, sets variables, sets globals")
	f("set garbage", "set: unknown effect, sets variables")
	f("set password = 'x'", "set password: commits implicitly, changes login")
	f("set role none", "set role: changes login")
	f("set statement max_statement_time=1 for select 1", "select")
	f("set statement max_statement_time=1.5, lock_wait_timeout = 3 for select @a, last_insert_id()", "select: reads user variables, reads last insert id")
	f("set statement MAX_STATEMENT_TIME=1 for insert into t values (1)", "insert")
	f("set statement max_statement_time=1 for update t set a = f()", "update: calls unknown")
	f("set statement max_statement_time=@a for select 1", "set statement: unknown effect, reads user variables")
	f("set statement max_statement_time=1, sql_mode='' for select 1", "set statement: unknown effect")
	f("set statement sql_mode='', max_statement_time=1 for select 1", "set statement: unknown effect")
	f("set statement max_statement_time=1 for set @a = 1", "set statement: unknown effect, reads user variables")
	f("set statement max_statement_time=1 for call p()", "set statement: unknown effect, calls unknown")
	f("set statement max_statement_time=1", "set statement: unknown effect")
	f("set statement max_statement_time=1 for", "set statement: unknown effect")
	f("use db", "use: changes schema")
	f("prepare s from 'select 1'", "prepare: prepares statement")
	f("execute s using @a", "execute: unknown effect, reads user variables, prepares statement")
	f("execute immediate 'select 1'", "execute immediate: unknown effect")
	f("deallocate prepare s", "deallocate: prepares statement")
	f("drop prepare s", "deallocate: prepares statement")
	f("create temporary table t (a int)", "definition: creates temporary")
	f("create or replace temporary table t select @a := 1", "definition: sets user variables, reads user variables, creates temporary")
	f("create table t (a int)", "definition: commits implicitly")
	f("drop temporary table t", "definition")
	f("drop table t", "definition: commits implicitly")
	f("create user x@localhost", "account: commits implicitly")
	f("grant select on *.* to x", "account: commits implicitly")
	f("lock tables t write", "lock tables: commits implicitly, locks tables")
	f("unlock tables", "unlock tables: commits implicitly, unlocks tables")
	f("flush tables with read lock", "flush: commits implicitly, locks tables")
	f("flush privileges", "flush: commits implicitly")
	f("handler t open", "handler: locks tables")
	f("handler t close", "handler: unlocks tables")
	f("get diagnostics @n = number", "get diagnostics: sets user variables, reads user variables, reads diagnostics")
	f("kill query 5", "kill: asks instance")
	f("shutdown", "server admin: commits implicitly")
	f("optimize table t", "table admin: commits implicitly")
	f("analyze table t", "table admin: commits implicitly")
	f("begin not atomic select 1; end", "compound: unknown effect")
	f("if 1 then select 1; end if", "compound: unknown effect")
	f("l: loop leave l; end loop", "compound: unknown effect")
	// Several.
	f("select 1; select 2", "++select")
	f("select 1; delete from t", "select")
	f("select 1; -- x", "++select")
	f("", "++empty")
	f("/* x */", "++empty")
	f("gibberish", "unknown: unknown effect")
	f("(gibberish)", "unknown: unknown effect")
	f("\x00", "unknown: unknown effect")
}

func TestFactsMore(t *testing.T) {
	t.Parallel()
	name := func(text, want string) {
		t.Helper()
		facts := Classify([]byte(text), maria)
		if got := text[facts.Name.Start:facts.Name.End]; got != want {
			t.Errorf("%s: name %q, want %q", text, got, want)
		}
	}
	name("use `a b`", "`a b`")
	name(" /* x */ ; use db", "db")
	name("prepare s1 from @a", "s1")
	name("execute s1", "s1")
	name("deallocate prepare s1", "s1")
	name("savepoint x", "x")
	name("release savepoint x", "x")
	name("rollback work to savepoint x", "x")
	name("rollback to savepoint", "savepoint")
	name("kill 17", "17")
	name("kill hard query 17;", "17")
	name("kill query id 17", "17")
	name("kill user foo", "foo")
	name("show menshen pools", "pools")
	if !Classify([]byte("kill query 5"), maria).QueryOnly || Classify([]byte("kill 5"), maria).QueryOnly || Classify([]byte("kill connection 5"), maria).QueryOnly {
		t.Error("KILL QUERY against KILL")
	}
	if !Classify([]byte("start transaction read only"), maria).TransactionReadOnly || Classify([]byte("start transaction read write"), maria).TransactionReadOnly {
		t.Error("START TRANSACTION READ ONLY")
	}
	hint := func(text string, want Target) {
		t.Helper()
		if got := Classify([]byte(text), maria).Hint; got != want {
			t.Errorf("%s: hint %d, want %d", text, got, want)
		}
		var p Print
		if p.Scan([]byte(text), maria); p.Hint != want {
			t.Errorf("%s: print's hint %d, want %d", text, p.Hint, want)
		}
	}
	hint("/* menshen: primary */ select 1", Primary)
	hint("select /*MENSHEN:Replica*/ 1", Replica)
	hint("select 1 /* menshen: replica */ /* menshen: primary */", Primary)
	hint("select 1; /* menshen: replica */ select 2", Replica)
	hint("set a = 1 /* menshen: primary */", Primary)
	hint("select '/* menshen: primary */'", NoHint)
	hint("select 1 -- menshen: primary", NoHint)
	hint("select 1 /* menshen: elsewhere */", NoHint)
	hint("select 1 /*!99999 menshen: primary */", NoHint)
}

func TestStatements(t *testing.T) {
	t.Parallel()
	f := func(text string, want int) {
		t.Helper()
		if got := Classify([]byte(text), maria).Statements; got != want {
			t.Errorf("%s: %d statements, want %d", text, got, want)
		}
	}
	f("select 1", 1)
	f("select 1;", 1)
	f("select 1;; ; \n", 1)
	f("select 1; select 2", 2)
	f("select 1; -- x", 2)
	f("select ';'; select \";\"; select `;`", 3)
	f("select 1 -- ;\n; select 2 # ;", 2)
	f("select /* ; */ 1", 1)
	f("select 1 -- ;", 1)
	f("; select 1", 1)
	f("select 1; ; select 2", 2)
	f(strings.Repeat("/**/;", 5000), 1000)
	f("select 1"+strings.Repeat(";", 5000)+"select 2", 2)
	f("begin; select 1; end", 3)
	f("create procedure p() begin select 1; select 2; end; select 3", 2)
	f("create procedure p() begin if a then select 1; else select 2; end if; case a when 1 then set b = case 1 when 2 then 3 end; end case; end; select 3", 2)
	f("create trigger t before insert on x for each row begin set @a = 1; end; select 3", 2)
	f("create trigger t before insert on x for each row set @a = 1; select 3", 2)
	f("create event e on schedule every 1 day do begin l: loop leave l; end loop; end; select 3", 2)
	f("begin not atomic select 1; end; select 2", 2)
	f("create table t (a int); create table u (b int)", 2)
	f("create function f() returns int return 1; select 1", 2)
	f("create procedure p() while a do set a = 0; end while; select 1", 2)
}

func TestAppendSettings(t *testing.T) {
	t.Parallel()
	f := func(text, want string) {
		t.Helper()
		settings, ok := AppendSettings(nil, []byte(text), maria)
		var all []string
		for _, s := range settings {
			one := []string{"session", "global", "persist", "user", "next"}[s.Scope] + " " + string(s.Name) + "=" + string(s.Value)
			if s.Collation != nil {
				one += " collate " + string(s.Collation)
			}
			if !s.Literal() {
				one += " (expression)"
			}
			all = append(all, one)
		}
		got := strings.Join(all, ", ")
		if !ok {
			got = "?"
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
	f("set a = 1", "session a=1")
	f("SET a=-1, `b` := 'x', @@c=ON;", "session a=-1, session `b`='x', session c=ON")
	f("set session a = 1", "session a=1")
	f("set local a = default", "session a=default")
	f("set global a = 1", "global a=1")
	f("set @@global.a = 1, @@session . b = 2, @@local.c = 3", "global a=1, session b=2, session c=3")
	f("set persist_only a = 1", "persist a=1")
	f("set @a = 1, @`b c` = 'x'", "user a=1, user `b c`='x'")
	f("set a = concat(@@a, ',b'), b = 2", "session a=concat(@@a, ',b') (expression), session b=2")
	f("set a = - 1", "session a=- 1")
	f("set a = 1 + 1", "session a=1 + 1 (expression)")
	f("set a = ?", "session a=? (expression)")
	f("set names utf8mb4", "session names=utf8mb4")
	f("set names 'gbk' collate 'gbk_bin', a = 1", "session names='gbk' collate 'gbk_bin', session a=1")
	f("set names default", "session names=default")
	f("set charset latin1", "session character set=latin1")
	f("set character set 'latin1'", "session character set='latin1'")
	f("set character_set_client = gbk", "session character_set_client=gbk")
	f("set transaction isolation level repeatable read, read only", "next transaction_isolation=repeatable read, next transaction_read_only=only")
	f("set session transaction isolation level serializable", "session transaction_isolation=serializable")
	f("set global transaction read write", "global transaction_read_only=write")
	f("set session global = 1", "session global=1")
	f("set global = 1", "session global=1")
	f("set global hot.key_buffer_size = 5", "global hot.key_buffer_size=5")
	f("set global a = 1, b = 2", "?")
	f("set a", "?")
	f("set a =", "?")
	f("set a = 1,", "?")
	f("set = 1", "?")
	f("set a = 1; set b = 2", "?")
	f("set a = 'x", "?")
	f("set names", "?")
	f("set password = 'x'", "?")
	f("set session a = 1, b = 2", "session a=1, session b=2")
	f("set role none", "?")
	f("set transaction isolation level chaos", "?")
	f("select 1", "?")
}
