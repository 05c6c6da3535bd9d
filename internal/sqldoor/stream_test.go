package sqldoor

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// A large result takes no more memory than a small one, and a client that does not read holds the instance up instead of filling the gateway: 128 MiB, or
// with MENSHEN_TEST_LONG 1 GiB.
func TestLargeResultsStream(t *testing.T) {
	rows := 2_050
	if os.Getenv("MENSHEN_TEST_LONG") != "" {
		rows *= 8
	}
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	r := connect(t, g, 0, "shop")
	r.ask(mysql.ComQuery, "SELECT 1")
	root := db.Open(t, "root", "")
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	r.send(mysql.ComQuery, fmt.Sprintf("SELECT seq, REPEAT('x', 65500) FROM seq_1_to_%d", rows))
	var answer mysql.Response
	answer.Start(mysql.ComQuery, r.caps, 1, false)
	total, most, checked := 0, uint64(0), 0
	for !answer.Done() {
		if len(r.Buffered()) == 0 {
			if err := r.Fill(); err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
		}
		n, err := answer.Feed(r.Buffered())
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
		r.Skip(n)
		if total += n; total-checked < 16<<20 {
			continue
		}
		if checked == 0 { // stop reading until the instance is stuck
			testenv.Eventually(t, 20*time.Second, func() error {
				var state string
				if err := root.QueryRow("SELECT COALESCE(GROUP_CONCAT(state), '') FROM information_schema.processlist WHERE info LIKE 'SELECT seq, REPEAT%'").Scan(&state); err != nil {
					return err
				}
				if !strings.Contains(state, "Writing to net") {
					return fmt.Errorf("the instance is not held up: %q", state)
				}
				return nil
			})
		}
		checked = total
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapInuse)
	}
	if want := rows * 65_500; total < want {
		t.Errorf("%d bytes came, want more than %d", total, want)
	}
	if grown := int64(most) - int64(before.HeapInuse); grown > 8<<20 {
		t.Errorf("%d MiB of a result took %d MiB of memory", total>>20, grown>>20)
	} else {
		t.Logf("%d MiB of a result took %d KiB of memory, client and all", total>>20, grown>>10)
	}
	if _, first := r.ask(mysql.ComQuery, "SELECT 1"); len(first) == 0 {
		t.Error("the session does not go on")
	}
}
