package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

const (
	manual      = "../../docs/configuration.md"
	tablesBegin = "-rewrite -->\n"
	tablesEnd   = "<!-- end of the tables -->"
)

func TestManualTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found1 := strings.Cut(string(text), tablesBegin)
	tables, after, found2 := strings.Cut(rest, tablesEnd)
	if !found1 || !found2 {
		t.Fatalf("%s has lost the marks around its tables", manual)
	}
	want := "\n" + config.ManualTables()
	if tables == want {
		return
	}
	if !*config.RewriteFlag {
		t.Fatalf("the tables in %s are not those of the code: run this test with -rewrite", manual)
	}
	if err := os.WriteFile(manual, []byte(before+tablesBegin+want+tablesEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestManualExamples(t *testing.T) {
	if n := configtest.Markdown(t, manual); n != 5 {
		t.Errorf("%d examples were found in %s, want 5", n, manual)
	}
}

func TestExamplesAreFound(t *testing.T) {
	t.Parallel()
	f := func(markdown, want string) {
		t.Helper()
		var got strings.Builder
		for _, e := range configtest.Examples(markdown) {
			fmt.Fprintf(&got, "%d:%s;", e.Line, strings.ReplaceAll(e.YAML, "\n", "|"))
		}
		if got.String() != want {
			t.Errorf("got %q, want %q", got.String(), want)
		}
	}
	f("a\n```yaml\nlisteners:\n  a: b\n```\n", "2:listeners:|  a: b|;")
	f("```yaml\n# say\n\nroutes: {}\n```\n```yaml\nlog: {}\n```", "1:# say||routes: {}|;6:log: {}|;")
	f("```yaml\nbalance: hash\n```\n```\nlisteners:\n```\n```yaml fragment\nroutes: {}\n```\n", "")
	f("```yaml\nlisteners:\n", "")
}
