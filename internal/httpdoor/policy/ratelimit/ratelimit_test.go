package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/policytest"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// ask sends a request at a time after the start.
func ask(t testing.TB, p policy.Policy, at time.Duration, change func(x *policy.Exchange), fields ...string) (*policy.Exchange, bool) {
	t.Helper()
	x := policytest.Request(t, "GET /users/1", fields...)
	x.Now = policytest.Start + poll.Instant(at)
	if change != nil {
		change(x)
	}
	switch p.Request(x) {
	case policy.Continue:
		return x, true
	case policy.Refused:
		if x.Fault.Kind != fault.Limited || x.Fault.RetryWait < 1 {
			t.Errorf("%v, retry after %d", x.Fault, x.Fault.RetryWait)
		}
		return x, false
	}
	t.Fatal("answered")
	return nil, false
}

func TestTokenBucket(t *testing.T) {
	t.Parallel()
	p := policytest.Must(t, Kind, `{rate: 10/s, burst: 3}`, "")
	f := func(at time.Duration, want bool, wantRetry int, wantFields string) {
		t.Helper()
		x, got := ask(t, p, at, nil)
		if got != want {
			t.Fatalf("at %s: admitted %v", at, got)
		}
		if !got && x.Fault.RetryWait != wantRetry {
			t.Errorf("at %s: retry after %d, want %d", at, x.Fault.RetryWait, wantRetry)
		}
		if got := policytest.Answered(x); got != `RateLimit-Policy: "test";q=3;w=1; RateLimit: "test";`+wantFields {
			t.Errorf("at %s: %s, want %s", at, got, wantFields)
		}
	}
	f(0, true, 0, "r=2;t=1")
	f(0, true, 0, "r=1;t=1")
	f(0, true, 0, "r=0;t=1")
	f(0, false, 1, "r=0;t=1")
	f(99*time.Millisecond, false, 1, "r=0;t=1")
	f(100*time.Millisecond, true, 0, "r=0;t=1") // one token came back
	f(100*time.Millisecond, false, 1, "r=0;t=1")
	f(450*time.Millisecond, true, 0, "r=2;t=1")
	f(time.Hour, true, 0, "r=2;t=1")
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	f := func(settings string, used int, at time.Duration, want int) {
		t.Helper()
		p := policytest.Must(t, Kind, settings, "")
		for range used {
			if _, admitted := ask(t, p, 0, nil); !admitted {
				t.Fatal("refused too early")
			}
		}
		x, admitted := ask(t, p, at, nil)
		if admitted || x.Fault.RetryWait != want {
			t.Errorf("%s after %s: admitted %v, retry after %d, want %d", settings, at, admitted, x.Fault.RetryWait, want)
			return
		}
		// Whoever waits that long is let in, and whoever waits a second less is not.
		if _, admitted := ask(t, p, at+time.Duration(want-1)*time.Second, nil); admitted && want > 1 {
			t.Errorf("%s: admitted a second too early", settings)
		}
		if _, admitted := ask(t, p, at+time.Duration(want)*time.Second, nil); !admitted {
			t.Errorf("%s: refused after the wait", settings)
		}
	}
	f(`1/m`, 1, 0, 60)
	f(`1/m`, 1, 1500*time.Millisecond, 59)
	f(`6/m`, 6, 0, 10)
	f(`10/s`, 10, 0, 1)
	f(`1/h`, 1, time.Millisecond, 3600)
	// The start lies 40 s into a minute of the clock.
	f(`{rate: 6/m, algorithm: sliding_window}`, 6, 0, 30)
	f(`{rate: 1/m, algorithm: sliding_window}`, 1, 0, 80)
	f(`{rate: 6/m, algorithm: sliding_window}`, 6, 20*time.Second, 10)
}

// A sliding window never admits more than its number in the width that it estimates over, and all of it when spread out.
func TestSlidingWindow(t *testing.T) {
	t.Parallel()
	s := slidingWindow{limit: 10, width: int64(time.Minute)}
	word, at := int64(0), int64(policytest.Start)/s.width*s.width+s.width
	take := func(after time.Duration) verdict {
		next, v := s.take(word, at+int64(after))
		word = next
		return v
	}
	for i := range 10 {
		if v := take(0); !v.admitted || v.left != int64(9-i) {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if take(59 * time.Second).admitted {
		t.Error("an eleventh in the window")
	}
	if take(time.Minute).admitted {
		t.Error("a burst at the edge: a fixed window would admit it")
	}
	if v := take(time.Minute + 6*time.Second); !v.admitted || v.left != 0 {
		t.Errorf("a tenth of the window before has slid out: %+v", v)
	}
	if take(time.Minute + 6*time.Second).admitted {
		t.Error("two for one")
	}
	for range 1000 { // what is refused does not count
		take(time.Minute + 7*time.Second)
	}
	admitted := 0
	for second := 68; second < 120; second++ {
		if take(time.Duration(second) * time.Second).admitted {
			admitted++
		}
	}
	if admitted != 8 {
		t.Errorf("%d of the 8 that slid out were admitted", admitted)
	}
	if v := take(10 * time.Minute); !v.admitted || v.left != 9 {
		t.Errorf("after a long pause: %+v", v)
	}
	word = 0
	take(2 * time.Minute)
	if v := take(2*time.Minute - 1); !v.admitted || v.left != 8 { // a reading of the clock from before another's
		t.Errorf("a late one: %+v", v)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f := func(key string, same bool, first, second func(x *policy.Exchange), fields ...string) {
		t.Helper()
		p := policytest.Must(t, Kind, `{rate: 1/h, key: "`+key+`"}`, "")
		firstFields, secondFields := fields, fields
		if len(fields) == 2 {
			firstFields, secondFields = fields[:1], fields[1:]
		}
		if _, admitted := ask(t, p, 0, first, firstFields...); !admitted {
			t.Fatal("the first is refused")
		}
		if _, admitted := ask(t, p, 0, second, secondFields...); admitted == same {
			t.Errorf("%s: the second is admitted: %v", key, admitted)
		}
	}
	from := func(address string) func(*policy.Exchange) {
		return func(x *policy.Exchange) { x.Client = netip.MustParseAddr(address) }
	}
	as := func(name string) func(*policy.Exchange) {
		return func(x *policy.Exchange) { x.Consumer = &identity.Consumer{Name: name} }
	}
	at := func(path string) func(*policy.Exchange) { return func(x *policy.Exchange) { x.Path = []byte(path) } }
	f("client_address", true, from("192.0.2.1"), from("192.0.2.1"))
	f("client_address", false, from("192.0.2.1"), from("192.0.2.2"))
	f("client_address", true, from("2001:db8::1"), from("2001:db8::ffff:1:2:3")) // one /64
	f("client_address", false, from("2001:db8:0:1::1"), from("2001:db8:0:2::1"))
	f("consumer", true, as("a"), as("a"))
	f("consumer", false, as("a"), as("b"))
	f("consumer", false, as("a"), nil)
	f("consumer", true, nil, nil) // by address
	f("consumer", false, from("192.0.2.1"), from("192.0.2.2"))
	f("path", true, at("/a"), at("/a"))
	f("path", false, at("/a"), at("/b"))
	f("header:X-Tenant", true, nil, nil, "X-Tenant: a", "x-tenant: a")
	f("header:X-Tenant", false, nil, nil, "X-Tenant: a", "X-Tenant: b")
	f("header:X-Tenant", false, nil, nil, "X-Tenant: a", "X-Other: a")
	f("cookie:sid", true, nil, nil, "Cookie: a=b; sid=1", "Cookie: sid=1")
	f("cookie:sid", false, nil, nil, "Cookie: sid=1", "Cookie: sid=2")
}

func TestFields(t *testing.T) {
	t.Parallel()
	f := func(settings, want string) {
		t.Helper()
		x, _ := ask(t, policytest.Must(t, Kind, settings, ""), 0, nil)
		if got := policytest.Answered(x, "X-RateLimit-Limit: 5"); got != want {
			t.Errorf("%s: got %s, want %s", settings, got, want)
		}
	}
	f(`3/s`, `X-RateLimit-Limit: 5; RateLimit-Policy: "test";q=3;w=1; RateLimit: "test";r=2;t=1`)
	f(`600/m`, `X-RateLimit-Limit: 5; RateLimit-Policy: "test";q=600;w=60; RateLimit: "test";r=599;t=1`)
	f(`{rate: 600/m, burst: 50, scope: api}`, `X-RateLimit-Limit: 5; RateLimit-Policy: "api";q=50;w=5; RateLimit: "api";r=49;t=1`)
	f(`{rate: 100/h, headers: legacy}`, `X-RateLimit-Limit: 100; X-RateLimit-Remaining: 99; X-RateLimit-Reset: 36`)
	f(`{rate: 100/h, headers: "off"}`, `X-RateLimit-Limit: 5`)
	p := policytest.Must(t, Kind, `{rate: 1/h, status: 503, headers: "off"}`, "")
	ask(t, p, 0, nil)
	if x, admitted := ask(t, p, 0, nil); admitted || x.Status != 503 || policytest.Answered(x) != "" {
		t.Errorf("%v %d", admitted, x.Status)
	}
}

func TestRefusesSettings(t *testing.T) {
	t.Parallel()
	f := func(settings, want string) {
		t.Helper()
		if p, got := policytest.Compile(Kind, settings, ""); p != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", settings, got, want)
		}
	}
	f(`{}`, ".rate: is missing")
	f(`0/s`, ": 0/s is out of range")
	f(`fast`, `: "fast" is not understood`)
	f(`{rate: 1/s, burst: -1}`, ".burst: -1 is out of range")
	f(`{rate: 1/31d}`, `.rate: "1/31d" is not understood`)
	f(`{rate: 1/h, burst: 1000000}`, ".burst: 1000000 requests at 1/h take longer than a year")
	f(`{rate: 1/s, burst: 2, algorithm: sliding_window}`, ".burst: does not belong to sliding_window")
	f(`{rate: 1/s, algorithm: fixed_window}`, `.algorithm: "fixed_window" is not known`)
	f(`{rate: 1/s, key: address}`, `.key: "address" is no key (accepted: client_address, consumer, header:NAME, cookie:NAME, path)`)
	for _, key := range []string{"header", "header:", "cookie:a b", "path:x", ""} {
		f(`{rate: 1/s, key: "`+key+`"}`, `.key: "`+key+`" is no key`)
	}
	f(`{rate: 1/s, scope: "a b"}`, `.scope: "a b" is no name`)
	f(`{rate: 1/s, headers: both}`, `.headers: "both" is not known`)
	f(`{rate: 1/s, status: 200}`, ".status: 200 is out of range")
	f(`{rate: 1/s, entries: 1}`, ".entries: 1 is out of range")
}

// Many at once get what one after the other would get, to the last request.
func TestExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	for _, a := range []algorithm{newTokenBucket(1000, time.Hour, 1000), slidingWindow{1000, int64(time.Hour)}} {
		table := NewTable()
		var admitted [8]atomic.Int64
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for i := range 8 * 400 {
					// The clocks of workers differ a little, as those of requests do.
					if table.take(a, hash(table, byPath, []byte{byte(i % 8)}), int64(policytest.Start)+int64(rand.IntN(1000)), 1000).admitted {
						admitted[i%8].Add(1)
					}
				}
			})
		}
		workers.Wait()
		for i := range admitted {
			if n := admitted[i].Load(); n != 1000 {
				t.Errorf("%T: key %d: %d of 1000 were admitted", a, i, n)
			}
		}
	}
}

// Over a long time a bucket admits its rate and its burst, however requests come.
func TestTokenBucketRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		count, burst int
		per          time.Duration
	}{{10, 10, time.Second}, {3, 7, time.Second}, {600, 1, time.Minute}, {1_000_000, 5, time.Second}, {7, 7, time.Hour}} {
		b := newTokenBucket(c.count, c.per, c.burst)
		r := rand.New(rand.NewPCG(1, uint64(c.count)))
		now, word, admitted := int64(policytest.Start), int64(0), 0
		began := now
		for range 20000 {
			now += r.Int64N(b.interval)
			next, v := b.take(word, now)
			if v.admitted {
				admitted++
			}
			if v.left < 0 || v.left >= int64(c.burst) || v.wait <= 0 {
				t.Fatalf("%+v", v)
			}
			word = next
		}
		most := c.burst + int((now-began)/b.interval)
		if admitted > most || c.burst > 2 && admitted < most*95/100 {
			t.Errorf("%+v: %d admitted, at most %d are right", c, admitted, most)
		}
	}
}

// The table keeps its bound, and what it forgets first is what says nothing any more, then what says least.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	const entries = 640
	a := newTokenBucket(100, time.Hour, 100)
	table, now := NewTable(), int64(policytest.Start)
	heavy := hash(table, byHeader, []byte("heavy"))
	for range 100 {
		table.take(a, heavy, now, entries)
	}
	for i := range 100 * entries {
		table.take(a, hash(table, byHeader, fmt.Appendf(nil, "key %d", i)), now, entries)
		if i%entries == 0 && table.Len() > entries {
			t.Fatalf("%d keys", table.Len())
		}
	}
	if table.take(a, heavy, now, entries).admitted {
		t.Error("a flood of other keys made the table forget a client that is over its limit")
	}
	now += int64(2 * time.Hour)
	for i := range entries {
		table.take(a, hash(table, byHeader, fmt.Appendf(nil, "new %d", i)), now, entries)
	}
	if table.Len() > entries {
		t.Errorf("%d keys", table.Len())
	}
}

func TestAllocatesNothing(t *testing.T) {
	for _, settings := range []string{`1000000/s`, `{rate: 1000000/s, algorithm: sliding_window, headers: legacy, key: "header:X-A"}`, `{rate: 1000000/s, key: consumer}`, `{rate: 1000000/s, key: "cookie:a"}`} {
		p := policytest.Must(t, Kind, settings, "")
		x := policytest.Request(t, "GET /", "X-A: 1", "Cookie: a=b")
		x.Consumer = &identity.Consumer{Name: "app"}
		if n := testing.AllocsPerRun(100, func() {
			x.ToClient.Reset()
			x.Now += 1000
			if p.Request(x) != policy.Continue {
				t.Fatal("refused")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", settings, n)
		}
	}
}

// Whatever a word holds and whatever the clock says, the verdict makes sense and the word stays one.
func FuzzTake(f *testing.F) {
	f.Add(int64(0), int64(1), uint16(1), uint16(1), false)
	f.Add(int64(-1), int64(1e18), uint16(1000), uint16(3600), true)
	f.Fuzz(func(t *testing.T, word, now int64, count, seconds uint16, sliding bool) {
		now = max(1, now&(1<<60-1))
		n, per := int(count)+1, time.Duration(max(1, seconds))*time.Second
		var a algorithm = newTokenBucket(n, per, n)
		if sliding {
			a = slidingWindow{int64(n), int64(per)}
		} else if word < 0 {
			word = -(word + 1)
		}
		next, v := a.take(word, now)
		if !v.admitted && (next != word || v.wait <= 0) {
			t.Errorf("refused, but %d became %d, wait %d", word, next, v.wait)
		}
		if v.left < 0 && v.admitted || v.left >= int64(n) {
			t.Errorf("%d left of %d", v.left, n)
		}
		if !v.admitted {
			if _, later := a.take(word, now+v.wait); !later.admitted && v.wait < 1<<60 {
				if _, later = a.take(word, now+v.wait+int64(per)/int64(n)/1000+2); !later.admitted { // what a float rounds
					t.Errorf("refused after the wait of %s", time.Duration(v.wait))
				}
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	for name, a := range map[string]algorithm{"token_bucket": newTokenBucket(1_000_000, time.Second, 1_000_000), "sliding_window": slidingWindow{1_000_000, int64(time.Second)}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			table := NewTable()
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				key := []byte{byte(n.Add(1))}
				now := int64(policytest.Start)
				for pb.Next() {
					now += 1000
					table.take(a, hash(table, byHeader, key), now, 100000)
				}
			})
		})
	}
}
