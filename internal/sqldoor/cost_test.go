package sqldoor

import (
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// statement sends one prepared packet and reads the answer, without allocating.
func (r *raw) statement(packet []byte, answer *mysql.Response) {
	if err := r.Write(packet); err != nil {
		r.t.Fatal(err)
	}
	answer.Start(mysql.ComQuery, r.caps, 1, false)
	for !answer.Done() {
		if len(r.Buffered()) == 0 {
			if err := r.Fill(); err != nil {
				r.t.Fatal(err)
			}
		}
		n, err := answer.Feed(r.Buffered())
		if err != nil {
			r.t.Fatal(err)
		}
		r.Skip(n)
	}
}

func TestStatementAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, shared := range []bool{false, true} {
		f := newFake(t, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing; f.settings = shared })
		f.answer("SELECT c FROM t WHERE id = 1", rowsAnswer(1, "value"))
		g := open(t, shop(f.ln.Addr().String()))
		r := connect(t, g, 0, "shop")
		packet := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT c FROM t WHERE id = 1")
		var answer mysql.Response
		if n := testing.AllocsPerRun(500, func() { r.statement(packet, &answer) }); n > 0 {
			t.Errorf("%v allocations for a statement (shared connections: %v)", n, shared)
		}
		if idle := g.tables.Load().databases["shop"].instances[0].pool.Stats().Idle; (idle == 1) != shared {
			t.Errorf("%d connections are idle (shared: %v)", idle, shared)
		}
	}
}

// What does the gateway add to a point select? Compare the two: the same client and the same instance, with and without it.
func BenchmarkPointSelect(b *testing.B) {
	db := mariadb(b)
	g := open(b, shop(db.Addr))
	packet := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT name FROM users WHERE id = 1")
	db.Exec(b, "CREATE USER app@'%' IDENTIFIED BY 'apple'", "GRANT ALL ON shop.* TO app@'%'")
	for _, way := range []struct {
		name string
		g    *gate
	}{{"direct", &gate{Addr: db.Addr}}, {"gateway", g}} {
		b.Run(way.name, func(b *testing.B) {
			r := connect(b, way.g, 0, "shop")
			var answer mysql.Response
			b.ReportAllocs()
			for b.Loop() {
				r.statement(packet, &answer)
			}
		})
	}
}
