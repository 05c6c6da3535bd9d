package sqldoor

import "testing"

// What the replicas' own settings are does not show.
func TestReadsUnderOtherDefaults(t *testing.T) {
	servers, _ := split(t, "read_from: primary")
	for i := 1; i < 3; i++ {
		servers.DBs[i].Exec(t, "SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES', GLOBAL default_regex_flags = 'DOTALL', GLOBAL max_recursive_iterations = 2, GLOBAL group_concat_max_len = 4, GLOBAL div_precision_increment = 9")
	}
	g := open(t, splitConfig(servers.Addresses(), "read_from: replicas"))
	g.rotated(t, 2)
	c := g.session(t)
	for range 4 {
		var got string
		to := g.went(t, 1, func() {
			got = ask(c, `SELECT 'a\nb' RLIKE 'a.b', LENGTH('\\'), 1/3, (SELECT GROUP_CONCAT(name) FROM users WHERE id < 3), (WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT MAX(i) FROM n)`)
		})
		if want := "0|1|0.3333|ada,grace|9|\n"; got != want || to != "replica" {
			t.Errorf("%q from %s, want %q", got, to, want)
		}
	}
}

// SYSTEM is another time zone on another machine.
func TestReadsInAnotherZone(t *testing.T) {
	t.Setenv("TZ", "NEAR0")
	servers, g := split(t, "read_from: replicas")
	servers.Kill(1)
	servers.Kill(2)
	g.rotated(t, 0)
	t.Setenv("TZ", "FAR-9")
	servers.Restart(t, 2)
	g.rotated(t, 1)
	c := g.session(t)
	for range 3 {
		wantAnswer(t, c, "SELECT FROM_UNIXTIME(0)", "1970-01-01 00:00:00|\n")
	}
	for range 2 {
		if to := g.went(t, 1, func() { ask(c, "SELECT FROM_UNIXTIME(0)") }); to != "state" {
			t.Errorf("went to %s", to)
		}
	}
	wantAnswer(t, c, "SET time_zone = '+00:00'", "")
	if to := g.went(t, 1, func() { wantAnswer(t, c, "SELECT FROM_UNIXTIME(0)", "1970-01-01 00:00:00|\n") }); to != "replica" {
		t.Errorf("in a zone that has a name it went to %s", to)
	}
}
