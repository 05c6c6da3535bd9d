package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// values gives c without what it remembers of its source, for comparing.
func values(c *Config) Config {
	v := *c
	v.source = nil
	v.Policies = maps.Clone(c.Policies)
	for name, list := range c.Policies {
		v.Policies[name] = placeless(list)
	}
	v.Listeners, v.Routes = maps.Clone(c.Listeners), maps.Clone(c.Routes)
	for name, l := range c.Listeners {
		copied := *l
		copied.Policies = placeless(l.Policies)
		v.Listeners[name] = &copied
	}
	for name, r := range c.Routes {
		copied := *r
		copied.Policies = placeless(r.Policies)
		v.Routes[name] = &copied
	}
	return v
}

// placeless gives policies whose settings are one text without a place in a file.
func placeless(list []Policy) []Policy {
	list = slices.Clone(list)
	for i, p := range list {
		if p.Settings != nil {
			list[i].Settings = &Node{text: p.Settings.String(), class: classQuoted}
		}
	}
	return list
}

// roundTrip checks what Export promises of c, which was parsed from a file of the given name.
func roundTrip(t testing.TB, c *Config, name string) {
	t.Helper()
	for _, o := range []ExportOptions{{}, {Defaults: true}} {
		text := c.Export(o)
		again, err := Parse(File{Name: name, Data: text})
		if err != nil {
			t.Fatalf("the export %+v does not parse: %v\n%s", o, err, text)
		}
		if !reflect.DeepEqual(values(c), values(again)) {
			t.Fatalf("the export %+v says something else: %v\n%s", o, Diff(c, again), text)
		}
		if changes := Diff(c, again); len(changes) > 0 {
			t.Fatalf("the export %+v differs: %v\n%s", o, changes, text)
		}
		if c.SHA256() != again.SHA256() {
			t.Fatalf("the export %+v has another digest\n%s\n%s", o, c.Export(ExportOptions{Defaults: true, canonical: true}), again.Export(ExportOptions{Defaults: true, canonical: true}))
		}
		if o.Defaults {
			continue
		}
		if second := again.Export(o); string(second) != string(text) {
			t.Fatalf("the export of the export differs:\n%s\n---\n%s", text, second)
		}
	}
	built := values(c) // as if by code
	if !strings.Contains(string(c.Export(ExportOptions{})), "${") {
		again, err := Parse(File{Name: name, Data: built.Export(ExportOptions{})})
		if err != nil {
			t.Fatalf("the export without a source does not parse: %v\n%s", err, built.Export(ExportOptions{}))
		}
		if built.SHA256() == "" || len(again.Services) != len(c.Services) {
			t.Fatalf("the export without a source says something else: %v", Diff(&built, again))
		}
	}
}

func TestExport(t *testing.T) {
	t.Setenv("MENSHEN_TEST_SECRET", "hush")
	t.Setenv("MENSHEN_TEST_PORT", "8080")
	t.Setenv("MENSHEN_TEST_COUNT", "3")
	cases(t, "testdata/export.txt", func(t *testing.T, input string) string {
		c, err := Parse(caseFiles(input)...)
		if err != nil {
			return err.Error()
		}
		roundTrip(t, c, "menshen.yaml")
		out := string(c.Export(ExportOptions{MaskSecrets: true}))
		if strings.Contains(out, "hush") || strings.Contains(string(c.Export(ExportOptions{})), "hush") {
			t.Error("what a reference stands for was printed")
		}
		return out
	})
}

func TestExportDefaults(t *testing.T) {
	t.Setenv("MENSHEN_TEST_SECRET", "hush")
	cases(t, "testdata/defaults.txt", func(t *testing.T, input string) string {
		c, err := Parse(caseFiles(input)...)
		if err != nil {
			return err.Error()
		}
		return string(c.Export(ExportOptions{MaskSecrets: true, Defaults: true}))
	})
}

func TestExportSecretsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	c := must(t, `{listeners: {web: {address: ":1"}}, consumers: {a: {mysql: hush}}}`)
	if text := string(c.Export(ExportOptions{})); !strings.Contains(text, "hush") {
		t.Errorf("the secret is gone from %s", text)
	}
	if text := string(c.Export(ExportOptions{MaskSecrets: true})); strings.Contains(text, "hush") || !strings.Contains(text, `"***"`) {
		t.Errorf("the secret is not masked in %s", text)
	}
}

func TestExportShape(t *testing.T) {
	t.Setenv("SHOP_PASSWORD", "hush")
	t.Setenv("APP_PASSWORD", "hush")
	c, err := Load("testdata/shape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c, "testdata/shape.yaml")
}

func TestExportRelativePaths(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "menshen.yaml")
	text := "listeners: {web: {address: \":1\", tls: {cert: a/site.pem, key: /keys/site.key}}}\naccess_log: access.log\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c, name)
	if got, want := c.Listeners["web"].TLS.Cert, filepath.Join(filepath.Dir(name), "a/site.pem"); got != want {
		t.Errorf("cert is %s, want %s", got, want)
	}
	if got := c.AccessLog.To; !filepath.IsAbs(got) {
		t.Errorf("the access log goes to %s", got)
	}
	if out := string(c.Export(ExportOptions{Defaults: true, canonical: true})); strings.Contains(out, filepath.Dir(name)) {
		t.Errorf("the canonical form holds this machine's paths:\n%s", out)
	}
}

func TestDiff(t *testing.T) {
	t.Setenv("MENSHEN_TEST_SECRET", "hush")
	cases(t, "testdata/diff.txt", func(t *testing.T, input string) string {
		before, after, _ := strings.Cut(input, "-- after --\n")
		a, b := must(t, before), must(t, after)
		var out strings.Builder
		for _, change := range Diff(a, b) {
			out.WriteString(change.String() + "\n")
		}
		if len(Diff(a, b)) != 0 && len(Diff(b, a)) == 0 || len(Diff(a, a)) != 0 {
			t.Error("Diff depends on who is asked")
		}
		if same := a.SHA256() == b.SHA256(); same != (out.Len() == 0) && !strings.Contains(out.String(), "***") {
			t.Error("Diff and SHA256 disagree")
		}
		return out.String()
	})
}

func TestSHA256(t *testing.T) {
	t.Setenv("MENSHEN_TEST_SECRET", "hush")
	const text = `{listeners: {web: {address: ":1"}}, consumers: {a: {mysql: "${env:MENSHEN_TEST_SECRET}"}}}`
	before := must(t, text).SHA256()
	t.Setenv("MENSHEN_TEST_SECRET", "else")
	if after := must(t, text).SHA256(); after != before {
		t.Error("the digest tells of a secret")
	}
}
