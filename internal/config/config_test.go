package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The example of the issue: three mistakes, three positions, at once.
func TestThreeMistakes(t *testing.T) {
	t.Parallel()
	_, err := Parse(File{Name: "menshen.yaml", Data: []byte(`listeners:
  web: {address: ":8080", protocl: http}
services:
  users: {endpoints: [10.0.0.1:9001], retry: {budget: 200%}}
routes:
  users: {match: /users/*, service: user}
`)})
	want := `menshen.yaml:2:27: listeners.web.protocl: unknown key (accepted: address, protocol, tls, io, proxy_protocol, service, routes, policies, default_database, timeouts, limits, headers, client_gone, drain_timeout; nearest: protocol)
menshen.yaml:4:55: services.users.retry.budget: 200% is more than 100% (accepted: a share from 0% to 100%)
menshen.yaml:6:37: routes.users.service: no service is named "user" (accepted: users; nearest: users)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestParseDefaults(t *testing.T) {
	t.Parallel()
	c := must(t, `
listeners: {web: {address: ":8080"}}
services: {users: {endpoints: [a:1]}}
routes: {users: {match: /users/*, service: users}}
databases: {shop: {login: {user: u}, shards: {s0: {primary: a:1}}}}
`)
	l, s, d := c.Listeners["web"], c.Services["users"], c.Databases["shop"]
	f := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	f("protocol", l.Protocol, ProtocolHTTP)
	f("timeouts", l.Timeouts, ListenerTimeouts{Duration(10 * time.Second), Duration(30 * time.Second), Duration(30 * time.Second), Duration(75 * time.Second)})
	f("limits", l.Limits, ListenerLimits{HeaderBytes: 64 << 10, Headers: 128,
		SignInFailures: RateOrNone{200, time.Minute}, HTTP2: HTTP2Limits{250, 256 << 10, 1 << 20, 32, Rate{1000, 30 * time.Second}, Rate{1000, 10 * time.Second}}})
	f("headers", l.Forward, ForwardHeaders{XForwarded: true, ClientCert: true, Underscores: "safe", RequestID: true, ResponseTime: true, ServerTiming: true})
	f("drain timeout", l.DrainTimeout, Duration(30*time.Second))
	f("balance", s.Balance, Balance{RoundRobin, "client_address"})
	f("endpoints", s.Endpoints, []Endpoint{{Address: "a:1", Weight: 1}})
	f("outlier", s.Outlier, Outlier{5, Duration(10 * time.Second), Duration(5 * time.Minute)})
	f("panic threshold", s.PanicThreshold.Share(), 0.5)
	f("retry", s.Retry, Retry{1, 20})
	f("health check", s.HealthCheck, (*HealthCheck)(nil))
	f("connections", s.Connections, ServiceConnections{0, 256})
	f("route timeout", c.Routes["users"].Timeout, Duration(0))
	f("route retry", c.Routes["users"].Retry, (*Retry)(nil))
	f("match", c.Routes["users"].Match, Match{Paths: []string{"/users/*"}})
	f("service", c.Routes["users"].Service, ServiceRef{Name: "users"})
	f("database timeouts", d.Timeouts, DatabaseTimeouts{Connect: Duration(5 * time.Second)})
	f("log", c.Log, Log{"info", "json"})
	f("access log", c.AccessLog, AccessLog{"stdout"})
	f("admin", c.Admin, (*Admin)(nil))
}

func TestParseInline(t *testing.T) {
	t.Parallel()
	c := must(t, `
listeners: {raw: {address: ":1", protocol: tcp, service: {endpoints: [a:1]}}}
routes: {r.x: {match: /a, service: {endpoints: [b:1], retry: 3}}}
`)
	ref := c.Routes["r.x"].Service
	if want := (ServiceRef{Name: "routes.r.x.service", Inline: true}); ref != want {
		t.Errorf("the reference is %v, want %v", ref, want)
	}
	if s := c.Services[ref.Name]; s == nil || s.Retry.Attempts != 3 || s.Retry.Budget != 20 {
		t.Errorf("the lifted service is %+v", s)
	}
	if c.Services[c.Listeners["raw"].Service.Name] == nil || len(c.Services) != 2 {
		t.Errorf("the services are %v", c.Services)
	}
}

func TestProblemPlace(t *testing.T) {
	t.Parallel()
	c := must(t, `listeners:
  web: {address: ":8080"}
services:
  a.b:
    endpoints:
      - a:1
      - {address: b:1}
routes:
  one: {match: GET a.example/x, service: {endpoints: [c:1]}}
`)
	f := func(path, want string) {
		t.Helper()
		if got := c.Problem(path, "is %s", "odd").String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f("listeners.web", "menshen.yaml:2:3: listeners.web: is odd")
	f("listeners.web.address", "menshen.yaml:2:18: listeners.web.address: is odd")
	f("listeners.web.timeouts.idle", "menshen.yaml:2:3: listeners.web.timeouts.idle: is odd")
	f("services.a.b.endpoints[0]", "menshen.yaml:6:9: services.a.b.endpoints[0]: is odd")
	f("services.a.b.endpoints[1].address", "menshen.yaml:7:19: services.a.b.endpoints[1].address: is odd")
	f("services.a.b.endpoints[1]", "menshen.yaml:7:9: services.a.b.endpoints[1]: is odd")
	f("services.a.b.endpoints[9]", "menshen.yaml:5:5: services.a.b.endpoints[9]: is odd")
	f("services.a.c", "menshen.yaml:3:1: services.a.c: is odd")
	f("routes.one.match.paths[0]", "menshen.yaml:9:16: routes.one.match.paths[0]: is odd")
	f("routes.one.service.endpoints[0]", "menshen.yaml:9:55: routes.one.service.endpoints[0]: is odd")
	f("services.routes.one.service.endpoints[0]", "menshen.yaml:9:55: routes.one.service.endpoints[0]: is odd")
	f("nothing", "menshen.yaml:1:1: nothing: is odd")
	f("", "menshen.yaml:1:1: is odd")
	f("services.a.b.endpoints[-1].]x[", "menshen.yaml:5:5: services.a.b.endpoints[-1].]x[: is odd")

	built := &Config{}
	if got, want := built.Problem("listeners.web", "is odd").String(), "listeners.web: is odd"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadFolder(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write(t, folder, map[string]string{
		"a.yaml": "listeners: {web: {address: \":1\", tls: {cert: site.pem, key: site.key}}}\nadmin: 127.0.0.1:9901\n",
		"b.yaml": "routes: {a: {match: /a, service: users}}\nservices: {users: {endpoints: [a:1], tls: {ca: ca.pem}}}\n",
		"c.yaml": "routes: {b: {match: /b, service: users}}\nconsumers: {app: {mysql: \"${file:secrets/app}\"}}\n",
		"d.yml":  "not: read", ".e.yaml": "not: read", "f.yaml.bak": "not: read", "sub/g.yaml": "not: read", "h.yaml/i": "not: read",
		"secrets/app": "hush\n",
	})
	c, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Routes) != 2 || c.Consumers["app"].MySQL.Password != "hush" {
		t.Errorf("read %+v", c)
	}
	want := []string{"a.yaml", "b.yaml", "c.yaml", "ca.pem", "secrets/app", "site.key", "site.pem"}
	for i := range want {
		want[i] = filepath.Join(folder, want[i])
	}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("the files are\n%v, want\n%v", got, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	_, err := Load(filepath.Join(folder, "nothing.yaml"))
	var problems Problems
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &problems) {
		t.Errorf("a missing file gives %v", err)
	}
	if _, err = Load(folder); !errors.As(err, &problems) {
		t.Errorf("an empty folder gives %v", err)
	}
	write(t, folder, map[string]string{"a.yaml": "# nothing"})
	if _, err = Load(folder); !errors.As(err, &problems) || !strings.Contains(err.Error(), "minimal") {
		t.Errorf("a folder with nothing in its files gives %v", err)
	}
	write(t, folder, map[string]string{"b.yaml": "# " + strings.Repeat("x", bytesMax)})
	if _, err = Load(folder); !errors.As(err, &problems) || !strings.Contains(err.Error(), "16 MiB") {
		t.Errorf("a folder with too much in its files gives %.200v", err)
	}
	if _, err = Parse(); !errors.As(err, &problems) {
		t.Errorf("no file gives %v", err)
	}
}

func TestReferences(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, map[string]string{"unix": "a b\n", "dos": "a b\r\n", "two": "a\nb\n\n", "empty": "", "big": strings.Repeat("x", referenceBytesMax+1)})
	t.Setenv("MENSHEN_TEST_A", "one")
	t.Setenv("MENSHEN_TEST_EMPTY", "")
	f := func(text, want string) {
		t.Helper()
		c, err := Parse(File{Name: filepath.Join(folder, "menshen.yaml"),
			Data: []byte("{listeners: {web: {address: \":1\"}}, routes: {a: {match: /a, respond: {body: " + quote(text) + "}}}}")})
		if err != nil {
			if !strings.Contains(err.Error(), want) || want == "" {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		if got := c.Routes["a"].Respond.Body; got != want {
			t.Errorf("%s gives %q, want %q", text, got, want)
		}
	}
	f("${env:MENSHEN_TEST_A}", "one")
	f("<${env:MENSHEN_TEST_A}${env:MENSHEN_TEST_A}>", "<oneone>")
	f("${env:MENSHEN_TEST_EMPTY}", "")
	f("$${env:MENSHEN_TEST_A}", "${env:MENSHEN_TEST_A}")
	f("$$${env:MENSHEN_TEST_A}", "$${env:MENSHEN_TEST_A}")
	f("$a $1 $$ {b} $", "$a $1 $$ {b} $")
	f("${file:unix}", "a b")
	f("${file:dos}", "a b")
	f("${file:two}", "a\nb\n")
	f("${file:empty}", "")
	f("${file:./unix}", "a b")
	f("${file:"+filepath.Join(folder, "unix")+"}", "a b")
	f("${file:big}", "larger than")
	f("${file:none}", "no such file")
	f("${ENV:A}", "unknown reference")
	f("${env:A-B}", "names no environment variable")
}

func TestMatchShort(t *testing.T) {
	t.Parallel()
	f := func(text string, want Match) {
		t.Helper()
		c := must(t, "{listeners: {web: {address: \":1\"}}, routes: {a: {respond: 200, match: "+quote(text)+"}}}")
		if got := c.Routes["a"].Match; !reflect.DeepEqual(got, want) {
			t.Errorf("%s gives %+v, want %+v", text, got, want)
		}
	}
	one := func(s string) []string { return []string{s} }
	f("/", Match{Paths: one("/")})
	f("/a/*", Match{Paths: one("/a/*")})
	f("a.example/b", Match{Hosts: one("a.example"), Paths: one("/b")})
	f("*.a.example/*", Match{Hosts: one("*.a.example"), Paths: one("/*")})
	f("[::1]/x", Match{Hosts: one("[::1]"), Paths: one("/x")})
	f("GET /ping", Match{Methods: one("GET"), Paths: one("/ping")})
	f("M-SEARCH  a.example/x", Match{Methods: one("M-SEARCH"), Hosts: one("a.example"), Paths: one("/x")})
	f("~^/a b$", Match{Paths: one("~^/a b$")})
	f("PUT ~^/(a|b)/", Match{Methods: one("PUT"), Paths: one("~^/(a|b)/")})
}

func TestScalars(t *testing.T) {
	t.Parallel()
	f := func(text string, want any) {
		t.Helper()
		n := &Node{text: text, class: classExpanded}
		v := reflect.New(reflect.TypeOf(want)).Elem()
		d := decoder{}
		d.value(n, v, &field{})
		if len(d.problems) > 0 || !reflect.DeepEqual(v.Interface(), want) {
			t.Errorf("%s gives %v %v, want %v", text, v.Interface(), d.problems, want)
			return
		}
		again := reflect.New(reflect.TypeOf(want)).Elem()
		d.value(&Node{text: scalars[v.Type()].format(want), class: classExpanded}, again, &field{})
		if !reflect.DeepEqual(again.Interface(), want) {
			t.Errorf("%v is printed as %s, which gives %v", want, scalars[v.Type()].format(want), again.Interface())
		}
	}
	f("0", Duration(0))
	f("250ms", Duration(250*time.Millisecond))
	f("1h30m", Duration(90*time.Minute))
	f("1.5s", Duration(1500*time.Millisecond))
	f("1h0m5s", Duration(time.Hour+5*time.Second))
	f("60m", Duration(time.Hour))
	f("10ns", Duration(10))
	f("0", Size(0))
	f("512", Size(512))
	f("512B", Size(512))
	f("64KiB", Size(64<<10))
	f("1.5MiB", Size(3<<19))
	f("2MB", Size(2e6))
	f("3GB", Size(3e9))
	f("8191TiB", Size(8191<<40))
	f("0%", Percent(0))
	f("33.3%", Percent(33.3))
	f("100%", Percent(100))
	f("90%", Weight{90, true})
	f("9", Weight{9, false})
	f("0.5", Weight{0.5, false})
	f("10.0.0.0/8", netip.MustParsePrefix("10.0.0.0/8"))
	f("10.0.0.1", netip.MustParsePrefix("10.0.0.1/32"))
	f("::1", netip.MustParsePrefix("::1/128"))
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := must(t, `{listeners: {web: {address: ":1"}}, consumers: {a: {mysql: hush}}}`)
	m := c.Consumers["a"].MySQL
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format, *m); strings.Contains(got, "hush") {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if string(m.Password) != "hush" || Secret("").String() != "" {
		t.Error("the secret cannot be read")
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	f := func(word, candidates, want string) {
		t.Helper()
		if got := Nearest(word, strings.Fields(candidates)); got != want {
			t.Errorf("Nearest(%q, %s) = %q, want %q", word, candidates, got, want)
		}
	}
	f("adress", "address protocol", "address")
	f("Address", "address protocol", "address")
	f("protcool", "address protocol", "protocol")
	f("usr", "users echo", "users")
	f("user", "usera userb users", "usera")
	f("zebra", "users echo", "")
	f("a", "b c", "")
	f("ab", "ba", "ba")
	f("", "a b", "")
	f("timeout", "timeouts retry", "timeouts")
	f("round-robin", "random round_robin", "round_robin")
	f("policies", "log routes", "")
	f(strings.Repeat("x", 1000), "x", "")
	f("ünder", "under", "under")
	if got := Nearest("a", nil); got != "" {
		t.Errorf("Nearest of nothing is %q", got)
	}
}

// hostile inputs are small, but cost much where nothing bounds them.
func TestHostileInputs(t *testing.T) {
	t.Parallel()
	var problems Problems
	f := func(name, text, want string) {
		t.Helper()
		start := time.Now()
		_, err := Parse(File{Name: "f", Data: []byte(text)})
		t.Logf("%s: %d bytes, %v", name, len(text), time.Since(start))
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.300v", name, err)
		}
		if len(err.Error()) > 1<<20 {
			t.Errorf("%s: %d bytes of problems", name, len(err.Error()))
		}
	}
	f("open brackets", strings.Repeat("[", 1<<20), "too deeply")
	f("open braces", strings.Repeat("{a: ", 1<<18), "too deeply")
	f("dashes", strings.Repeat("- ", 1<<18), "too deeply")
	f("questions", strings.Repeat("? ", 1<<18), "explicit keys")
	f("colons", strings.Repeat("a: ", 1<<18), "")
	f("colons in braces", "{"+strings.Repeat("a: ", 1<<16)+"}", "")
	f("tags", strings.Repeat("!a ", 1<<16), "tags")
	f("anchors", strings.Repeat("&a ", 1<<16), "")
	f("aliases", "a: &a [x]\n"+strings.Repeat("b: [*a, *a]\n", 1000), "aliases")
	f("unknown keys", "x: 1\n"+func() string {
		var b strings.Builder
		for i := range 20000 {
			b.WriteString(fmt.Sprintf("k%d: 1\n", i))
		}
		return b.String()
	}(), "and 19501 more problems")
	f("a long key", strings.Repeat("a", 1<<20)+": 1", "a key of 1048576 bytes")
	f("a long value", "log: "+strings.Repeat("a", 1<<18), "is not known")
	f("zero bytes", "log: \x00", "U+0000")
	f("latin-1", "log: \xe9", "UTF-8")
	deep := strings.Builder{}
	for i := range 200 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	f("indentation", deep.String(), "too deeply")
	f("the second file", strings.Repeat("#", bytesMax+1), "too large")
}

func TestByteOrderMarkAndLineEnds(t *testing.T) {
	t.Parallel()
	c := must(t, "\ufefflisteners:\r\n  web:\r\n    address: \":1\"\r\n")
	if got := c.Problem("listeners.web.address", "").Line; got != 3 {
		t.Errorf("line %d, want 3", got)
	}
}

func TestNodeDecode(t *testing.T) {
	t.Parallel()
	type limit struct {
		Rate  int               `yaml:"rate" short:"true" required:"true" min:"1" doc:"Requests."`
		Every Duration          `yaml:"every" default:"1s" doc:"In this time."`
		Kind  string            `yaml:"kind" enum:"a,b" default:"a" doc:"Kind."`
		Set   map[string]string `yaml:"set" keys:"header" form:"header_value" doc:"Headers."`
	}
	f := func(text string, want limit, problem string) {
		t.Helper()
		root, problems := parseYAML(&document{name: "f"}, []byte("p: "+text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var got limit
		problems = root.get("p").Decode(&got)
		if problems.Error() != problem || problem == "" && !reflect.DeepEqual(got, want) {
			t.Errorf("%s gives %+v, %v", text, got, problems)
		}
	}
	f("{rate: 5}", limit{5, Duration(time.Second), "a", nil}, "")
	f("5", limit{5, Duration(time.Second), "a", nil}, "")
	f("{rate: 5, every: 2s, kind: b, set: {X-A: b}}", limit{5, Duration(2 * time.Second), "b", map[string]string{"X-A": "b"}}, "")
	f("{rate: 0, evry: 2s}", limit{}, "f:1:11: p.rate: 0 is out of range (accepted: a whole number, at least 1)\nf:1:14: p.evry: unknown key (accepted: rate, every, kind, set; nearest: every)")
}

func TestRate(t *testing.T) {
	t.Parallel()
	type limit struct {
		Rate Rate `yaml:"rate"`
	}
	f := func(text, want string) {
		t.Helper()
		c, err := Parse(File{Name: "f", Data: []byte("policies: {a: [{k: {rate: " + text + "}}]}")})
		if err != nil {
			t.Fatal(err)
		}
		var l limit
		got := ""
		if problems := c.Policies["a"][0].Settings.Decode(&l); len(problems) > 0 {
			got = problems[0].Message
		} else {
			got = fmt.Sprint(l.Rate.Count, " in ", l.Rate.Per, ", ", l.Rate)
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	f("10/s", "10 in 1s, 10/s")
	f("600/m", "600 in 1m0s, 600/m")
	f("5/h", "5 in 1h0m0s, 5/h")
	f("5/d", "5 in 24h0m0s, 5/d")
	f("5/10s", "5 in 10s, 5/10s")
	f("5/1s", "5 in 1s, 5/s")
	f("5/90m", "5 in 1h30m0s, 5/90m")
	f("5/100ms", "5 in 100ms, 5/100ms")
	f("5/2000ms", "5 in 2s, 5/2s")
	f("1000000/h", "1000000 in 1h0m0s, 1000000/h")
	f("0/s", "0/s is out of range")
	f("1000001/s", "1000001/s is out of range")
	f("99999999999999999999/s", "99999999999999999999/s is out of range")
	f("1/800h", "1/800h is over too long a time")
	f("1/99999999999999999999h", "1/99999999999999999999h is over too long a time")
	f("10", "is the number 10 (accepted: a rate such as 10/s")
	for _, text := range []string{"10/", "/s", "10/0s", "1.5/s", "-1/s", "10/y", "10 /s", "10/s/s", "10/1h30m", "10/2d"} {
		f(text, `"`+text+`" is not understood`)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	t.Parallel()
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(ty reflect.Type) {
		switch ty.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice:
			visit(ty.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[ty] || scalars[ty] != nil || ty == reflect.TypeFor[ServiceRef]() || ty == reflect.TypeFor[Policy]() {
			return
		}
		seen[ty] = true
		for i := range ty.NumField() {
			if f := ty.Field(i); f.IsExported() && (f.Tag.Get("yaml") == "" || f.Tag.Get("doc") == "") {
				t.Errorf("%s.%s has no yaml tag or no doc tag", ty, f.Name)
			}
			if ty.Field(i).IsExported() {
				visit(ty.Field(i).Type)
			}
		}
	}
	visit(configType)
	if len(seen) < 20 {
		t.Errorf("only %d structs seen", len(seen))
	}
}
