package scan

import (
	"strings"
	"testing"
)

var benchmarks = []struct{ name, text string }{
	{"point35", "SELECT c FROM sbtest1 WHERE id=12345"},
	{"point60", "SELECT id, name, email FROM users WHERE id = 12345 LIMIT 1"},
	{"join319", `SELECT o.id, o.created_at, c.name, c.email, SUM(i.price * i.quantity) AS total FROM orders o JOIN customers c ON c.id = o.customer_id JOIN items i ON i.order_id = o.id
WHERE o.status = 'paid' AND o.created_at >= '2024-01-01' AND c.country IN ('DE', 'FR', 'NL') GROUP BY o.id, c.name ORDER BY total DESC LIMIT 20 OFFSET 40`},
	{"insert20K", "INSERT INTO sbtest1 (id, k, c, pad) VALUES " + strings.Repeat("(12345, 67890, '"+strings.Repeat("83868641912-", 8)+"', 'pad'), ", 159) + "(1, 2, 'x', 'y')"},
	{"text1M", "INSERT INTO t (a) VALUES ('" + strings.Repeat("It is a long text. ", 55000) + "')"},
	{"escaped1M", "INSERT INTO t (a) VALUES ('" + strings.Repeat(`It\'s a "long" text. `, 48000) + "')"},
}

// What does a print cost? The budget of the relay is 0.5 us per statement, 0.3 of it for this.
func BenchmarkPrint(b *testing.B) { bench(b, func(p *Print, text []byte) { p.Scan(text, maria) }) }

// What do the facts cost, on a plan cache's miss?
func BenchmarkClassify(b *testing.B) { bench(b, func(_ *Print, text []byte) { Classify(text, maria) }) }

// What do the bare tokens cost?
func BenchmarkScanner(b *testing.B) {
	bench(b, func(_ *Print, text []byte) {
		var s Scanner
		s.Reset(text, maria)
		for s.Next().Kind != End {
		}
	})
}

func bench(b *testing.B, f func(*Print, []byte)) {
	for _, c := range benchmarks {
		b.Run(c.name, func(b *testing.B) {
			text := []byte(c.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var p Print
			for b.Loop() {
				f(&p, text)
			}
		})
	}
}
