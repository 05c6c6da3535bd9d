package sqldoor

import (
	"crypto/tls"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// A bug while a connection to the instance is made costs that session: neither the lease, nor the place in the pool, nor the consumer's.
func TestPanicWhileConnecting(t *testing.T) {
	f := newFake(t, func(f *fake) {
		f.greeting.Capabilities &^= mysql.Framing
		f.greeting.Capabilities |= mysql.TLS
		f.settings = true
	})
	f.answer("SELECT 1", rowsAnswer(1, "1"))
	g := open(t, pooled(f.ln.Addr().String(), "max_connections: 1"))
	good := g.tables.Load()
	shop := *good.databases["shop"]
	in := *shop.instances[0]
	settings := *in.settings
	bug := new(buggyCache)
	settings.TLS = &tls.Config{ServerName: "localhost", ClientSessionCache: bug}
	in.settings, shop.instances = &settings, []*instance{&in}
	bad := *good
	bad.databases = maps.Clone(good.databases)
	bad.databases["shop"] = &shop
	for i := range int32(3) {
		g.tables.Store(&bad)
		c, err := backend.Open(t.Context(), g.Addr, &backend.Settings{User: "app", Password: "apple"}, backend.Session{Capabilities: mysql.MultiResults | mysql.PrepareMultiResults, Schema: "shop"}, nil)
		if err == nil {
			t.Error("a session whose service has a bug is let in")
			_ = c.Close()
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			if n, active, pool, met := g.Sessions(), in.endpoint.Active(), g.stats(), bug.met.Load(); n > 0 || active > 0 || pool.Open > 0 || met != i+1 {
				return fmt.Errorf("%d sessions, %d leases, %+v after %d panics", n, active, pool, met)
			}
			return nil
		})
	}
	g.tables.Store(good)
	connect(t, g, 0, "shop").ask(mysql.ComQuery, "SELECT 1")
}

type buggyCache struct {
	tls.ClientSessionCache
	met atomic.Int32
}

func (c *buggyCache) Get(string) (*tls.ClientSessionState, bool) {
	c.met.Add(1)
	panic("BUG: made by a test")
}
