package backend

import (
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

func TestPositions(t *testing.T) {
	t.Parallel()
	f := func(mariadb bool, has, wants string, covers bool) {
		t.Helper()
		p, q := ParsePosition(has, mariadb), ParsePosition(wants, mariadb)
		if p.Covers(q) != covers {
			t.Errorf("%q covers %q: %v, want %v", has, wants, !covers, covers)
		}
	}
	f(true, "0-1-10", "0-1-10", true)
	f(true, "0-1-10", "0-1-9", true)
	f(true, "0-2-10", "0-1-9", true) // after a failover
	f(true, "0-1-9", "0-1-10", false)
	f(true, "0-1-9,1-1-100", "1-7-100,0-1-8", true)
	f(true, "0-1-9", "0-1-9,1-1-1", false)
	f(true, "0-1-9,1-1-1", "0-1-9", true)
	f(true, "", "0-1-1", false)
	f(true, "0-1-1", "", false)
	f(true, "", "", false)
	f(true, "0-1-18446744073709551615", "0-1-9", true)
	f(false, "a1b2-c3:1-5", "a1b2-c3:1-5", true)
	f(false, "a1b2-c3:1-5", "a1b2-c3:1-4", false) // cannot be told
	for _, bad := range []string{"0-1", "0-1-", "-1-1", "0-1-1,", "0-1-1-1", "0-1-x", "0-1-1'", "4294967296-1-1", "0-1-18446744073709551616", " 0-1-1"} {
		if p := ParsePosition(bad, true); p != nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
	for _, bad := range []string{"a:1'", "a:1\\", "a:1\x00", "é"} {
		if p := ParsePosition(bad, false); p != nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add("0-1-10,1-1-2", true)
	f.Add("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n3e11fa47-71ca-11e1-9e33-c80aa9429563:1", false)
	f.Fuzz(func(t *testing.T, text string, mariadb bool) {
		p := ParsePosition(text, mariadb)
		if p == nil {
			return
		}
		if !p.Covers(p) || p.String() != text || !plain([]byte(text)) && mariadb {
			t.Errorf("%q", text)
		}
	})
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var p Progress
	a, b := ParsePosition("0-1-5", true), ParsePosition("0-1-6", true)
	now := poll.Now()
	if p.Written(0) != nil || p.Reached(a) || p.Patience(now, time.Second) != time.Second {
		t.Error("the zero value knows something")
	}
	p.SetWritten(b, now)
	p.SetWritten(a, now-1) // asked earlier, answered later
	p.SetWritten(nil, now+5)
	if p.Written(now) != b || p.Written(now-9) != b || p.Written(now+1) != nil {
		t.Error("what was written is wrong")
	}
	p.SetReached(a)
	if !p.Reached(a) || p.Reached(b) {
		t.Error("what was reached is wrong")
	}
	p.SetReached(nil)
	if p.Reached(a) {
		t.Error("an instance that may be a new one has something")
	}
	p.behind.Store(int64(now.Add(lookEvery)))
	if p.Patience(now, time.Second) != 0 {
		t.Error("it is waited for in vain")
	}
	if p.Patience(now.Add(4*lookEvery), time.Second) != time.Second/5 || p.Patience(now.Add(4*lookEvery), time.Second) != 0 {
		t.Error("one asks at a time")
	}
}
