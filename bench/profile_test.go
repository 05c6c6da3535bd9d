//go:build linux

package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// profiled is how long each load of BenchmarkProfile is looked at.
const profiled = 15 * time.Second

// BenchmarkProfile measures nothing: it writes what the gateway is busy with under the loads of the other scenarios, all in one file, which the
// compiler reads (cmd/menshen/default.pgo; see go.dev/doc/pgo). It runs only with -profile.
func BenchmarkProfile(b *testing.B) {
	if *flagProfile == "" {
		b.Skip("-profile FILE writes a profile for the compiler")
	}
	subjectCore, loadCore := cores(b)
	wrk := testenv.Lookup(b, "wrk")
	origin, originPID := startOrigin(b, loadCore)
	server := testenv.FreeAddress(b)
	sqlServer := testenv.Start(b, role(b, loadCore, "sql-server", server))
	awaitAddress(b, sqlServer, server)
	dir := testenv.Dir(b)
	g := gateways(b)[0]
	*flagVisit = profiled + time.Second

	admin := testenv.FreeAddress(b)
	plain := front{origin: origin, menshenSections: fmt.Sprintf("access_log: none\nadmin: %q", admin)}
	files := []string{profileOf(b, admin, filepath.Join(dir, "plain"), menshenHTTP(b, subjectCore, g, plain), func(s subject) {
		wrkVisit(b, wrk, s, subjectCore, loadCore, originPID, "64", "100")
	})}

	admin = testenv.FreeAddress(b)
	policed := front{origin: origin}
	policed.menshen, policed.menshenSections = menshenPolicies(filepath.Join(dir, "access.log"))
	policed.menshenSections += fmt.Sprintf("\nadmin: %q", admin)
	files = append(files, profileOf(b, admin, filepath.Join(dir, "policies"), menshenHTTP(b, subjectCore, g, policed), func(s subject) {
		wrkVisit(b, wrk, s, subjectCore, loadCore, originPID, "64", "100", "-H", "Origin: https://shop.example.com", "-H", "X-API-Key: "+apiKey)
	}))

	admin = testenv.FreeAddress(b)
	files = append(files, profileOf(b, admin, filepath.Join(dir, "sql"), menshenSQL(b, subjectCore, g, server, fmt.Sprintf("admin: %q", admin)), func(s subject) {
		sqlVisitFor(b, s, subjectCore, loadCore, sqlServer.PID, 64, *flagVisit)
	}))

	merge := exec.Command("go", append([]string{"tool", "pprof", "-proto", "-output", *flagProfile}, files...)...)
	if out, err := merge.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// profileOf takes a subject's profile while it is under a load.
func profileOf(b *testing.B, admin, file string, s subject, load func(subject)) string {
	b.Helper()
	progress("profile: %s", filepath.Base(file))
	taken := make(chan error, 1)
	go func() {
		taken <- func() error {
			r, err := http.Get(fmt.Sprintf("http://%s/api/v1/profile?seconds=%d", admin, int(profiled.Seconds())))
			if err != nil {
				return err
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			if err == nil && r.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", r.Status, body)
			}
			if err != nil {
				return err
			}
			return os.WriteFile(file, body, 0o600)
		}()
	}()
	load(s)
	if err := <-taken; err != nil {
		b.Fatal(err)
	}
	return file
}
