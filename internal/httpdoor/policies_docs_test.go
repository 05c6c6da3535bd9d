package httpdoor

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

const policyManual = "../../docs/policies.md"

// Each example of the manual loads, round-trips, validates with the schema that knows all kinds, and compiles.
func TestPolicyManualExamples(t *testing.T) {
	if n := configtest.Markdown(t, policyManual); n != 5 {
		t.Errorf("%d examples were found, want 5", n)
	}
	validate, err := configtest.Validator(PolicyKinds()...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(policyManual)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("APP_KEY", "app-key")
	t.Setenv("SHOP_KEY", "shop-key")
	for _, e := range configtest.Examples(string(text)) {
		c, _, problems := compilePolicies(e.YAML)
		if len(problems) > 0 {
			t.Errorf("line %d:\n%v", e.Line, problems)
			continue
		}
		if err := validate(c.Node().JSON()); err != nil {
			t.Errorf("line %d: %v", e.Line, err)
		}
	}
}

// Each kind has a section that names each of its settings.
func TestPolicyManualIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(policyManual)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		_, section, found := strings.Cut(string(text), "\n## "+k.kind.Name+"\n")
		if !found {
			t.Errorf("no section on %s", k.kind.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		settings := reflect.TypeOf(k.kind.Settings)
		for i := range settings.NumField() {
			if name := settings.Field(i).Tag.Get("yaml"); !strings.Contains(section, "`"+name+"`") {
				t.Errorf("%s: nothing on %s", k.kind.Name, name)
			}
			if settings.Field(i).Tag.Get("doc") == "" {
				t.Errorf("%s: %s has no doc tag", k.kind.Name, settings.Field(i).Name)
			}
		}
	}
}
