package sqldoor

import "testing"

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
