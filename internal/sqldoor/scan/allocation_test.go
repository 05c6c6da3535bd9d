package scan

import (
	"strings"
	"testing"
)

// TestAllocations holds the promise of the package: nothing here allocates once the buffers of a Print have grown.
func TestAllocations(t *testing.T) {
	texts := []string{
		"SELECT id, name, email FROM users WHERE id = 12345 LIMIT 1",
		"insert into t (a, b) values " + strings.Repeat("(1, 'it''s'), ", 100) + "(2, null)",
		"select * from t where a in (" + strings.Repeat("1, ", 1000) + "2) for update",
		"set @@session.sql_mode = 'ANSI', autocommit = 0, @a = f(1), names gbk /* menshen: primary */",
		"with recursive x as (select 1) select count(*), get_lock('a', 1) from x; begin; select @@identity",
	}
	var p Print
	settings := make([]Setting, 0, 16)
	for _, text := range texts {
		b := []byte(text)
		f := func() {
			p.Scan(b, maria)
			Classify(b, maria)
			settings, _ = AppendSettings(settings[:0], b, maria)
		}
		f()
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%.40s...: %v allocations", text, n)
		}
	}
}
