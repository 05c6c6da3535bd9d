package sqldoor

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
)

// What an instance answers to the gateway's own sign-in names the gateway's login and host, and would look to a client like an answer to its own. The log has it, the client does not.
func TestRefusedLoginIsForTheLog(t *testing.T) {
	t.Parallel()
	f := func(code uint16, answer string, wantCode uint16, want, level string) {
		t.Helper()
		refused := &mysql.Error{Code: code, State: "HY000", Message: answer}
		err := &fault.Fault{Kind: fault.ConnectFailed, Public: "the instance cannot be reached", Cause: fmt.Errorf("connect to 10.1.2.3:3306: the instance refused: %w", refused)}
		if e := errorOf(err, "shop"); e.Code != wantCode || e.Message != want {
			t.Errorf("%d: the client reads %d %q, want %d %q", code, e.Code, e.Message, wantCode, want)
		}
		var out bytes.Buffer
		s := &session{door: &Door{o: Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}}}
		s.logFault("connect an SQL session", err)
		if !strings.Contains(out.String(), "level="+level) || !strings.Contains(out.String(), answer) {
			t.Errorf("%d: logged %q, want level %s and %q", code, &out, level, answer)
		}
	}
	const own = "The gateway could not sign in to the instance of database 'shop'"
	f(1045, "Access denied for user gate at 10.0.0.7", 1105, own, "WARN")
	f(1130, "Host 10.0.0.7 is not allowed to connect", 1105, own, "WARN")
	f(1129, "Host 10.0.0.7 is blocked because of many connection errors", 1105, own, "WARN")
	f(3118, "Access denied for user gate at 10.0.0.7. Account is locked.", 1105, own, "WARN")
	f(3159, "Connections using insecure transport are prohibited", 1105, own, "WARN")
	f(2012, "No authentication methods available for authentication.", 1105, own, "WARN")
	f(1049, "Unknown database shop_0", 1049, "Unknown database 'shop'", "DEBUG")
	f(1040, "Too many connections", 1040, "Too many connections", "DEBUG")
}
