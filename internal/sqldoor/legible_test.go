package sqldoor

import (
	"net"
	command "os/exec"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestLegible(t *testing.T) {
	t.Parallel()
	f := func(name string, code uint16, want uint16, state string) {
		t.Helper()
		attributes := append([]byte{byte(len("_client_name"))}, "_client_name"...)
		attributes = append(append(attributes, byte(len(name))), name...)
		s := session{translated: translates(attributes)}
		if got := s.legible(mysql.Error{Code: code, State: "HY000"}); got.Code != want || got.State != state {
			t.Errorf("%d for %s: %d %s, want %d %s", code, name, got.Code, got.State, want, state)
		}
	}
	f("libmysql", 2003, 2003, "HY000")
	f("mysqlnd", 2013, 2013, "HY000")
	f("libmariadb", 2003, 1429, "HY000")
	f("libmariadb", 2006, 1158, "08S01")
	f("libmariadb", 2013, 1158, "08S01")
	f("libmariadb", 1045, 1045, "HY000")
	if translates(nil) {
		t.Error("without attributes")
	}
}

// The mariadb command without a database behind the gateway, at its sign-in and after it.
func TestMariaDBCommandReadsErrors(t *testing.T) {
	program := testenv.Lookup(t, "mariadb")
	g := open(t, shop(testenv.FreeAddress(t)))
	host, port, err := net.SplitHostPort(g.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, database := range []string{"shop", ""} {
		out, err := command.Command(program, "--no-defaults", "--protocol=tcp", "--host="+host, "--port="+port, "--user=app", "--password=apple", "--execute=select 1", database).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ERROR 1429 (HY000)") || !strings.Contains(string(out), "Can't connect to MySQL server on '") {
			t.Errorf("%q: %s", database, out)
		}
	}
}
