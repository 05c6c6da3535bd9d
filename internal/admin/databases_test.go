package admin

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/observe"
)

// fakeSQL stands in for the SQL door.
type fakeSQL struct{ resets int }

func (g *fakeGateway) Databases() SQL { return &g.sql }

func (f *fakeSQL) ResetDigests() { f.resets++ }

func (f *fakeSQL) OpenSessions(most int) ([]observe.SQLSession, int) {
	all := []observe.SQLSession{
		{ID: 1, Listener: "sql", Consumer: "app", Address: netip.MustParseAddr("192.0.2.8"), Database: "shop", Command: "query", Running: 1500 * time.Millisecond, Statement: "select sleep(?)",
			Instance: "10.0.1.1:3306", Pins: []observe.SQLPin{{Reason: "transaction", Age: 3 * time.Second}, {Reason: "user lock", Age: time.Second}}},
		{ID: 2, Listener: "sql", Consumer: "app", Database: "shop", Pins: []observe.SQLPin{{Reason: "transaction", Age: 5 * time.Second}}},
		{ID: 7, Listener: "sql", Consumer: "app", Statement: strings.Repeat("x", 3*textMax)},
	}
	return all[:min(most, len(all))], len(all)
}

func (f *fakeSQL) Pools() []observe.SQLPool {
	return []observe.SQLPool{{Database: "shop", Instance: "10.0.1.1:3306", Open: 5, Idle: 2, Waiting: 1, Max: 50, MinIdle: 2, Waits: 9, Timeouts: 3}}
}

func (f *fakeSQL) Digests(in func(database, text string) bool) (all []observe.DigestStatus) {
	for _, d := range []observe.DigestStatus{{ID: "00000000000000ab", Database: "shop", Text: "select name from users where id = ?"}, {Database: "shop", Text: observe.Other}, {ID: "1", Database: "gone", Text: "x"}} {
		if !in(d.Database, d.Text) {
			continue
		}
		d.First = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		var e observe.Executions
		for i := range 4 {
			e.Observe(&observe.Execution{Begun: d.First.Add(time.Minute), Total: time.Duration(i+1) * time.Millisecond, Rows: 2, Affected: 1, BytesIn: 10, BytesOut: 20, Failed: i == 0})
		}
		d.ExecutionSum = e.Sum()
		all = append(all, d)
	}
	return all
}

func TestDatabasePoolsAndPins(t *testing.T) {
	t.Parallel()
	type databases struct {
		Generation uint64
		Databases  []databaseView
	}
	v := decode[databases](t, ask(t, "GET", server(t, newGateway(t))+"/api/v1/databases", ""), 200)
	shop, other := v.Databases[0], v.Databases[1]
	if p := shop.Shards[0].Primary.Pool; p == nil || *p != (poolView{5, 3, 2, 1, 50, 2, 9, 3}) {
		t.Errorf("%+v", p)
	}
	if len(shop.Pins) != 2 || shop.Pins[0] != (pinView{"transaction", 2, 5}) || shop.Pins[1] != (pinView{"user lock", 1, 1}) {
		t.Errorf("%+v", shop.Pins)
	}
	if other.Shards[0].Primary.Pool != nil || other.Pins == nil || len(other.Pins) != 0 {
		t.Errorf("%+v", other)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	url := server(t, newGateway(t)) + "/api/v1/sessions"
	type sessions struct {
		Total    int
		Sessions []sessionView
	}
	v := decode[sessions](t, ask(t, "GET", url, ""), 200)
	if v.Total != 3 || len(v.Sessions) != 3 {
		t.Fatalf("%+v", v)
	}
	if s := v.Sessions[0]; s.ID != 1 || s.ClientAddress != "192.0.2.8" || s.RunningSeconds != 1.5 || s.Statement != "select sleep(?)" || s.Instance != "10.0.1.1:3306" || len(s.Pins) != 2 ||
		s.Pins[0] != (sessionPinView{"transaction", 3}) {
		t.Errorf("%+v", s)
	}
	if s := v.Sessions[2]; s.Pins == nil || len(s.Statement) != textMax+3 {
		t.Errorf("%+v", s)
	}
	if v = decode[sessions](t, ask(t, "GET", url+"?limit=1", ""), 200); v.Total != 3 || len(v.Sessions) != 1 {
		t.Errorf("%+v", v)
	}
	for _, query := range []string{"?limit=-1", "?limit=x", "?limit=10001", "?limit=1&limit=2", "?limits=1", "?a=%zz"} {
		if r := ask(t, "GET", url+query, ""); r.StatusCode != 400 {
			t.Errorf("%s: %s", query, r.Status)
		}
	}
	if r := ask(t, "POST", url, ""); r.StatusCode != 405 {
		t.Error(r.Status)
	}
}

func TestDigests(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g) + "/api/v1/databases/"
	type digests struct {
		Database string
		Total    int
		Digests  []digestView
	}
	v := decode[digests](t, ask(t, "GET", url+"shop/digests", ""), 200)
	if v.Database != "shop" || v.Total != 2 || len(v.Digests) != 2 || v.Digests[1].Text != "(other)" || v.Digests[1].Digest != "" {
		t.Fatalf("%+v", v)
	}
	d := v.Digests[0]
	if d.Digest != "00000000000000ab" || d.Count != 4 || d.Errors != 1 || d.Rows != 8 || d.Affected != 4 || d.BytesIn != 40 || d.BytesOut != 80 || d.TotalSeconds != 0.01 || d.MeanMS != 2.5 || d.P50MS != 2.5 ||
		d.MaxMS != 4 || d.LastSeen.Format(time.RFC3339) != "2026-11-22T12:01:00Z" || len(d.Histogram) != 3 || d.Histogram[0] != (bucketView{1, 1}) {
		t.Errorf("%+v", d)
	}
	if v = decode[digests](t, ask(t, "GET", url+"shop/digests?limit=1", ""), 200); v.Total != 2 || len(v.Digests) != 1 {
		t.Errorf("%+v", v)
	}
	if v = decode[digests](t, ask(t, "GET", url+"shop2/digests", ""), 200); v.Total != 0 || v.Digests == nil {
		t.Errorf("%+v", v)
	}
	decode[digests](t, ask(t, "GET", url+"gone/digests", ""), 200) // what left the configuration is still counted
	for path, status := range map[string]int{"none/digests": 404, "/digests": 404, "shop/x/digests": 404, "shop/digests/": 404, "shop": 404, "shop/digests?x=1": 400} {
		if r := ask(t, "GET", url+path, ""); r.StatusCode != status {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	reset := strings.TrimSuffix(url, "databases/") + "digests/reset"
	for method, status := range map[string]int{"GET": 405, "DELETE": 405} {
		if r := ask(t, method, reset, ""); r.StatusCode != status {
			t.Errorf("%s: %s", method, r.Status)
		}
	}
	if r := ask(t, "POST", reset, "", "Origin: https://evil.example"); r.StatusCode != 403 || g.sql.resets != 0 {
		t.Errorf("%s", r.Status)
	}
	if r := ask(t, "POST", reset, ""); r.StatusCode != 200 || g.sql.resets != 1 {
		t.Errorf("%s, %d resets", r.Status, g.sql.resets)
	}
}
