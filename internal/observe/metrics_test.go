package observe

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// scrape asks the handler and parses what it says, as Prometheus does.
func scrape(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series prints the series of a family, one a line: labels in order, then the value; of a histogram count, sum, and the
// buckets that differ from the one before.
func series(families map[string]*dto.MetricFamily, name string) string {
	var out []string
	for _, m := range families[name].GetMetric() {
		var b strings.Builder
		for i, l := range m.GetLabel() {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s=%s", l.GetName(), l.GetValue())
		}
		switch {
		case m.Counter != nil:
			fmt.Fprintf(&b, " %v", m.Counter.GetValue())
		case m.Gauge != nil:
			fmt.Fprintf(&b, " %v", m.Gauge.GetValue())
		case m.Histogram != nil:
			fmt.Fprintf(&b, " n=%d sum=%v", m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum())
			last := uint64(0)
			for _, bucket := range m.Histogram.GetBucket() {
				if n := bucket.GetCumulativeCount(); n != last {
					fmt.Fprintf(&b, " le%v:%d", bucket.GetUpperBound(), n)
					last = n
				}
			}
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// busy makes a registry in which every metric has a series.
func busy(t *testing.T) *Metrics {
	m := NewMetrics()
	m.HTTPRoute("users", "users").Observe(200, 3*time.Millisecond, 2*time.Millisecond, 100, 1000, 0, "")
	m.HTTPRoute("users", "users-v2").Observe(503, 40*time.Second, 30*time.Second, 50, 10, 2, "no_endpoint")
	m.HTTPRoute("users", "users-v2").Observe(0, 0, 0, 50, 0, 0, "client_gone")
	m.HTTPRoute("old", "").Observe(308, 100*time.Microsecond, 0, 10, 20, 0, "")
	m.HTTPRoute("", "").Observe(404, 250*time.Microsecond, 0, 7, 8, 0, "no_route")
	m.SQLDatabase("shop").Observe("query", 0, 2*time.Millisecond, time.Millisecond, 30, 400)
	m.SQLDatabase("shop").Observe("query", 1064, 2*time.Millisecond, time.Millisecond, 30, 60)
	web, sql, raw := m.Listener("web", "http"), m.Listener("sql", "mysql"), m.Listener("raw", "tcp")
	web.Accepted()
	web.Accepted()
	web.Closed()
	web.Refused("connections")
	sql.Accepted()
	sql.SessionOpened()
	raw.Accepted()
	raw.Relayed(5, 6)
	m.SQL(func() SQLStatus {
		return SQLStatus{Pins: map[string]int64{"transaction": 3}, Splits: []SQLSplit{{"shop", "own write", 6}}, Groups: []SQLGroup{{Database: "shop", Primary: true, Failovers: 2, Conflicts: 1, Waiting: 3, Waits: 9, Timeouts: 4,
			Instances: []SQLInstance{{"10.0.0.1:3306", "primary", true, 0, true}, {"10.0.0.2:3306", "replica", false, 2500 * time.Millisecond, true}, {Instance: "10.0.0.3:3306", Role: "unreachable"}}}}, Pools: []SQLPool{{Database: "shop", Open: 5, Idle: 2, Waiting: 1, Waits: 7, Timeouts: 4}}}
	})
	m.Upstreams(func() []EndpointStatus {
		return []EndpointStatus{
			{Service: "users", Endpoint: "10.0.0.2:1", Active: 2, Requests: 9, Failures: 1},
			{Service: "users", Endpoint: "10.0.0.1:1", Healthy: true, Requests: 5, Latency: 1500 * time.Microsecond},
			{Service: "users", Endpoint: "10.0.0.1:1"}, // a double would void the scrape
		}
	})
	l := NewAccessLog(new(sliceSink))
	l.Write(httpRecord())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m.AccessLog(l)
	m.Reload(true, 1)
	m.Reload(false, 1)
	m.BuildInfo("1.2.3")
	return m
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	got := scrape(t, busy(t))
	f := func(name string, want ...string) {
		t.Helper()
		if have := series(got, name); have != strings.Join(want, "\n") {
			t.Errorf("%s:\n got %s\nwant %s", name, have, strings.Join(want, "\n"))
		}
	}
	f("menshen_http_requests_total", "code=(none),route=users,service=users-v2 1", "code=200,route=users,service=users 1",
		"code=308,route=old,service=(none) 1", "code=404,route=(none),service=(none) 1", "code=503,route=users,service=users-v2 1")
	f("menshen_http_request_duration_seconds", "route=(none) n=1 sum=0.00025 le0.00025:1", "route=old n=1 sum=0.0001 le0.00025:1",
		"route=users n=3 sum=40.003 le0.00025:1 le0.005:2 le+Inf:3")
	f("menshen_http_upstream_duration_seconds", "route=users,service=users n=1 sum=0.002 le0.0025:1",
		"route=users,service=users-v2 n=1 sum=30 le30:1")
	f("menshen_http_request_bytes_total", "route=(none) 7", "route=old 10", "route=users 200")
	f("menshen_http_response_bytes_total", "route=(none) 8", "route=old 20", "route=users 1010")
	f("menshen_http_retries_total", "route=users,service=users 0", "route=users,service=users-v2 2")
	f("menshen_http_faults_total", "fault=client_gone,route=users 1", "fault=no_endpoint,route=users 1", "fault=no_route,route=(none) 1")
	f("menshen_sql_statements_total", "code=0,command=query,database=shop 1", "code=1064,command=query,database=shop 1")
	f("menshen_sql_primary", "database=shop 1")
	f("menshen_sql_two_primaries", "database=shop 0")
	f("menshen_sql_two_primaries_total", "database=shop 1")
	f("menshen_sql_failovers_total", "database=shop 2")
	f("menshen_sql_failover_waiting", "database=shop 3")
	f("menshen_sql_failover_waits_total", "database=shop 9")
	f("menshen_sql_failover_timeouts_total", "database=shop 4")
	f("menshen_sql_instance_role", "database=shop,instance=10.0.0.1:3306,role=primary 1", "database=shop,instance=10.0.0.2:3306,role=replica 1", "database=shop,instance=10.0.0.3:3306,role=unreachable 1")
	f("menshen_sql_instance_reads", "database=shop,instance=10.0.0.1:3306 1", "database=shop,instance=10.0.0.2:3306 0", "database=shop,instance=10.0.0.3:3306 0")
	f("menshen_sql_replica_lag_seconds", "database=shop,instance=10.0.0.1:3306 0", "database=shop,instance=10.0.0.2:3306 2.5")
	f("menshen_sql_statement_duration_seconds", "database=shop n=2 sum=0.004 le0.0025:2")
	f("menshen_sql_upstream_duration_seconds", "database=shop n=2 sum=0.002 le0.001:2")
	f("menshen_sql_request_bytes_total", "database=shop 60")
	f("menshen_sql_response_bytes_total", "database=shop 460")
	f("menshen_sql_sessions_open", "listener=sql 1")
	f("menshen_sql_sessions_total", "listener=sql 1")
	f("menshen_connections_open", "listener=raw 1", "listener=sql 1", "listener=web 1")
	f("menshen_connections_accepted_total", "listener=raw 1", "listener=sql 1", "listener=web 2")
	f("menshen_connections_refused_total", "listener=web,reason=connections 1")
	f("menshen_tcp_received_bytes_total", "listener=raw 5")
	f("menshen_tcp_sent_bytes_total", "listener=raw 6")
	f("menshen_sql_pinned_sessions", "reason=transaction 3")
	f("menshen_sql_pool_connections", "database=shop,state=idle 2", "database=shop,state=used 3")
	f("menshen_sql_pool_waiting", "database=shop 1")
	f("menshen_sql_pool_waits_total", "database=shop 7")
	f("menshen_sql_pool_timeouts_total", "database=shop 4")
	f("menshen_upstream_endpoint_healthy", "endpoint=10.0.0.1:1,service=users 1", "endpoint=10.0.0.2:1,service=users 0")
	f("menshen_upstream_endpoint_active", "endpoint=10.0.0.1:1,service=users 0", "endpoint=10.0.0.2:1,service=users 2")
	f("menshen_upstream_endpoint_requests_total", "endpoint=10.0.0.1:1,service=users 5", "endpoint=10.0.0.2:1,service=users 9")
	f("menshen_upstream_endpoint_failures_total", "endpoint=10.0.0.1:1,service=users 0", "endpoint=10.0.0.2:1,service=users 1")
	f("menshen_upstream_endpoint_latency_seconds", "endpoint=10.0.0.1:1,service=users 0.0015")
	f("menshen_reloads_total", "result=failure 1", "result=success 1")
	f("menshen_config_generation", " 1")
	f("menshen_access_log_records_total", " 1")
	f("menshen_access_log_dropped_total", " 0")
	f("menshen_access_log_errors_total", " 0")
	if at := got["menshen_config_last_reload_success_timestamp_seconds"].GetMetric()[0].GetGauge().GetValue(); time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
		t.Errorf("last reload at %v", at)
	}
	if b := series(got, "menshen_build_info"); !strings.Contains(b, "goversion=go1") || !strings.Contains(b, "version=1.2.3 1") || !strings.Contains(b, "revision=") {
		t.Errorf("build info: %s", b)
	}
}

// Names and labels are a promise: dashboards and alerts are written against them, and docs/observability.md lists them.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	families := scrape(t, busy(t))
	docs, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, "menshen_") {
			continue
		}
		f := families[name]
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		fmt.Fprintf(&b, "%s{%s} %s\n", name, strings.Join(labels, ","), strings.ToLower(f.GetType().String()))
		if !strings.Contains(string(docs), "`"+name+"`") {
			t.Errorf("docs/observability.md does not name %s", name)
		}
	}
	const golden = "testdata/metrics.golden"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("go test -rewrite, if this is meant:\n%s", b.String())
	}
	if len(descs) != strings.Count(b.String(), "\n") {
		t.Errorf("%d metrics are described, %d have a series here", len(descs), strings.Count(b.String(), "\n"))
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("no %s", name)
		}
	}
}

func TestHandlerSpeaksOpenMetrics(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	busy(t).Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
}

func TestStatusCodesAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	s := m.HTTPRoute("r", "s")
	for code := 200; code < 200+codesMax; code++ {
		s.Observe(code, 0, 0, 0, 0, 0, "")
	}
	for _, code := range []int{-1, 0, 99, 100, 200, 399, 404, 404, 599, 600, 999, 1000} {
		s.Observe(code, 0, 0, 0, 0, 0, "")
	}
	got := series(scrape(t, m), "menshen_http_requests_total")
	for _, want := range []string{"code=200,route=r,service=s 2", "code=231,route=r,service=s 1", "code=1xx,route=r,service=s 1",
		"code=3xx,route=r,service=s 1", "code=4xx,route=r,service=s 2", "code=5xx,route=r,service=s 1", "code=(none),route=r,service=s 6"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != codesMax+5 {
		t.Errorf("%d series", n)
	}
}

func TestFaultsFit(t *testing.T) {
	t.Parallel()
	if len(faultIDs) >= faultsMax || faultIDs[0] != fault.Internal.String() || !slices.Contains(faultIDs, fault.Draining.String()) {
		t.Errorf("%d of at most %d: %v", len(faultIDs), faultsMax, faultIDs)
	}
	m := NewMetrics()
	m.HTTPRoute("r", "s").Observe(500, 0, 0, 0, 0, 0, "made up")
	if got := series(scrape(t, m), "menshen_http_faults_total"); got != "fault=(other),route=r 1" {
		t.Error(got)
	}
}

func TestStatementsAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	s := m.SQLDatabase("shop")
	const extra = 50
	for i := range statementsMax + extra { // a client raises errors of its own with SIGNAL
		s.Observe("query", 30000+i, 0, 0, 0, 0)
	}
	for i := range commandsMax + extra {
		s.Observe(fmt.Sprint("c", i), 0, 0, 0, 0, 0)
	}
	s.Observe("", 0, 0, 0, 0, 0)
	s.Observe("query", 30000, 0, 0, 0, 0)
	s.Observe("query", -5, 0, 0, 0, 0)
	families := scrape(t, m)
	got := series(families, "menshen_sql_statements_total")
	for _, want := range []string{"code=30000,command=query,database=shop 2", "code=(other),command=c0,database=shop 1",
		fmt.Sprintf("code=(other),command=query,database=shop %d", extra+statementsMax-pairsExact+1),
		fmt.Sprintf("code=(other),command=(other),database=shop %d", extra+1+1)} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n > statementsMax {
		t.Errorf("%d series", n)
	}
	if got := series(families, "menshen_sql_statement_duration_seconds"); !strings.Contains(got, fmt.Sprintf("n=%d ", statementsMax+extra+commandsMax+extra+3)) {
		t.Errorf("lost some: %s", got)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	s := m.Listener("web", "http")
	for i := range reasonsMax + 5 {
		s.Refused(fmt.Sprint("reason ", i))
		s.Refused("reason 0")
	}
	got := series(scrape(t, m), "menshen_connections_refused_total")
	if strings.Count(got, "\n")+1 != reasonsMax+1 || !strings.Contains(got, "reason=(other) 5") || !strings.Contains(got, fmt.Sprintf("reason=reason 0 %d", reasonsMax+6)) {
		t.Error(got)
	}
}

func TestRoutesAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	for i := range RoutesMax + 10 {
		m.HTTPRoute(fmt.Sprint("route ", i), "s").Observe(200, 0, 0, 1, 1, 0, "")
	}
	for i := range ServicesMax + 10 {
		m.HTTPRoute("route 0", fmt.Sprint("service ", i)).Observe(404, 0, 0, 1, 1, 0, "")
	}
	m.HTTPRoute("", "").Observe(404, 0, 0, 1, 1, 0, "") // always has its own
	m.SQLDatabase("").Observe("query", 7, 0, 0, 0, 0)
	for i := range DatabasesMax + 10 {
		m.SQLDatabase(fmt.Sprint("db ", i)).Observe("query", 0, 0, 0, 0, 0)
	}
	for i := range ListenersMax + 10 {
		m.Listener(fmt.Sprint("l ", i), "http").Accepted()
	}
	m.Upstreams(func() []EndpointStatus {
		all := make([]EndpointStatus, EndpointsMax+10)
		for i := range all {
			all[i] = EndpointStatus{Service: "s", Endpoint: fmt.Sprint("e ", i)}
		}
		return all
	})
	families := scrape(t, m)
	f := func(name string, most int, other string) {
		t.Helper()
		got := series(families, name)
		if n := strings.Count(got, "\n") + 1; n != most || !strings.Contains(got, other) {
			t.Errorf("%s: %d series, want %d with %s", name, n, most, other)
		}
	}
	f("menshen_http_requests_total", RoutesMax+1+ServicesMax-1+1+1, "code=404,route=route 0,service=(other) 11")
	f("menshen_http_requests_total", RoutesMax+1+ServicesMax-1+1+1, "code=200,route=(other),service=(other) 10")
	f("menshen_http_requests_total", RoutesMax+1+ServicesMax-1+1+1, "code=404,route=(none),service=(none) 1")
	f("menshen_http_request_duration_seconds", RoutesMax+2, "route=(other) n=10")
	f("menshen_sql_statements_total", DatabasesMax+1, "database=(other) 11")
	f("menshen_connections_open", ListenersMax+1, "listener=(other) 10")
	f("menshen_upstream_endpoint_healthy", EndpointsMax, "")
}

func TestKeepDropsWhatLeftTheConfig(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	names := func(all ...string) map[string]bool {
		set := make(map[string]bool)
		for _, name := range all {
			set[name] = true
		}
		return set
	}
	observe := func(pairs ...string) {
		for _, pair := range pairs {
			route, service, _ := strings.Cut(pair, "/")
			m.HTTPRoute(route, service).Observe(200, 0, 0, 0, 0, 0, "")
		}
	}
	f := func(want string) {
		t.Helper()
		families := scrape(t, m)
		got := strings.ReplaceAll(series(families, "menshen_http_requests_total")+"\n"+series(families, "menshen_sql_statements_total")+"\n"+
			series(families, "menshen_connections_accepted_total"), "\n", "; ")
		if got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	observe("/", "a/x", "a/y", "b/x")
	m.SQLDatabase("shop").Observe("query", 0, 0, 0, 0, 0)
	m.SQLDatabase("gone").Observe("query", 0, 0, 0, 0, 0)
	m.SQLDatabase("").Observe("ping", 0, 0, 0, 0, 0)
	m.Listener("web", "http").Accepted()
	m.Listener("old", "http").Accepted()
	m.Keep(names("a", "b"), names("shop", "gone"))
	held := m.HTTPRoute("b", "x")
	kept := m.HTTPRoute("a", "x")
	m.HTTPRoute("a", "x") // the second generation: b and a/y are gone
	m.Keep(names("a"), names("shop"))
	m.KeepListeners(names("web"))
	held.Observe(200, 0, 0, 0, 0, 0, "") // a request of the old generation ends: works, shows nowhere
	if m.HTTPRoute("a", "x") != kept {
		t.Error("a series that was kept is not the same any more")
	}
	f("code=200,route=(none),service=(none) 1; code=200,route=a,service=x 1; " +
		"code=0,command=ping,database=(none) 1; code=0,command=query,database=shop 1; listener=web 1")
	if m.Listener("web", "tcp") != m.Listener("web", "http") {
		t.Error("a trial with another protocol disturbs the listener in service")
	}
	m.Keep(nil, nil)
	m.KeepListeners(nil)
	f("code=200,route=(none),service=(none) 1; code=0,command=ping,database=(none) 1; ")
}

// "" and None are one, and so are names that look alike: Prometheus refuses a scrape with doubles.
func TestNamesThatLookAlikeAreOne(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	f := func(alike bool, what string) {
		t.Helper()
		if !alike {
			t.Error(what)
		}
	}
	f(m.HTTPRoute("", "") == m.HTTPRoute(None, None), "no route")
	f(m.HTTPRoute("a", "") == m.HTTPRoute("a", None), "no service")
	f(m.HTTPRoute("a\xff", "") == m.HTTPRoute("a\xfe", ""), "invalid names")
	f(m.HTTPRoute(Other, Other) == m.HTTPRoute(Other, "x"), "a route called (other)")
	f(m.SQLDatabase("") == m.SQLDatabase(None), "no database")
	f(m.SQLDatabase(Other) == &m.databasesOther, "a database called (other)")
	f(m.Listener(Other, "http") == &m.listenersOther, "a listener called (other)")
	for _, s := range []*HTTPSeries{m.HTTPRoute("", None), m.HTTPRoute("a", ""), m.HTTPRoute(Other, ""), m.HTTPRoute("a", Other)} {
		s.Observe(200, 0, 0, 0, 0, 0, "")
	}
	m.SQLDatabase(Other).Observe("query", 0, 0, 0, 0, 0)
	m.Listener(Other, "http").Accepted()
	m.Keep(map[string]bool{"a": true, "b": false}, nil)
	if got := series(scrape(t, m), "menshen_http_requests_total"); strings.Count(got, "\n") != 3 {
		t.Error(got)
	}
}

// Names come from config files: whatever they hold, a scrape must parse.
func TestOddNamesScrape(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	odd := "a\"b\\c\nd\xff{}é"
	m.HTTPRoute(odd, odd).Observe(200, 0, time.Second, 0, 0, 0, odd)
	m.HTTPRoute(odd[:7]+"\xfe{}é", odd).Observe(200, 0, 0, 0, 0, 0, "")
	m.SQLDatabase(odd).Observe(odd, 1, 0, 0, 0, 0)
	m.Listener(odd, odd).Refused(odd)
	m.BuildInfo(odd)
	m.Upstreams(func() []EndpointStatus { return []EndpointStatus{{Service: odd, Endpoint: odd}, {}} })
	families := scrape(t, m)
	if got := series(families, "menshen_http_requests_total"); !strings.Contains(got, "route=a\"b\\c\nd\uFFFD{}é") {
		t.Errorf("%q", got)
	}
}

func TestNilMetricsAndSeriesWork(t *testing.T) {
	t.Parallel()
	var m *Metrics
	m.HTTPRoute("a", "b").Observe(200, 0, 0, 0, 0, 0, "")
	m.SQLDatabase("a").Observe("query", 0, 0, 0, 0, 0)
	m.Listener("a", "http").Accepted()
	m.Keep(nil, nil)
	m.KeepListeners(nil)
	m.Upstreams(nil)
	m.AccessLog(nil)
	m.Reload(true, 1)
	m.BuildInfo("")
	(*HTTPSeries)(nil).Observe(200, 0, 0, 0, 0, 0, "")
	(*SQLSeries)(nil).Observe("query", 0, 0, 0, 0, 0)
	var l *ListenerSeries
	l.Accepted()
	l.Closed()
	l.Refused("x")
	l.SessionOpened()
	l.SessionClosed()
	l.Relayed(1, 1)
}

// Nothing is lost when everybody counts at once, while scrapes and reloads go on.
func TestMetricsCountUnderRace(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	const writers, each = 8, 500
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				m.HTTPRoute("r", "s").Observe(200+(w+i)%codesMax, time.Millisecond, time.Microsecond, 1, 2, 1, "internal")
				m.SQLDatabase("d").Observe("query", i%20, 0, 0, 1, 1)
				l := m.Listener("l", "http")
				l.Accepted()
				l.Refused("connections")
				l.Closed()
			}
		})
	}
	group.Go(func() {
		for range 20 {
			scrape(t, m)
			m.HTTPRoute("r", "s")
			m.Keep(map[string]bool{"r": true}, map[string]bool{"d": true})
			m.HTTPRoute("gone", "s")
		}
	})
	group.Wait()
	m.HTTPRoute("r", "s")
	families := scrape(t, m)
	f := func(name, want string) {
		t.Helper()
		if got := series(families, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	f("menshen_http_request_duration_seconds", "route=r n=4000 sum=4 le0.001:4000")
	f("menshen_http_retries_total", "route=r,service=s 4000")
	f("menshen_http_faults_total", "fault=internal,route=r 4000")
	f("menshen_http_response_bytes_total", "route=r 8000")
	f("menshen_sql_response_bytes_total", "database=d 4000")
	f("menshen_connections_open", "listener=l 0")
	f("menshen_connections_refused_total", "listener=l,reason=connections 4000")
	sum := 0.0
	for _, s := range families["menshen_sql_statements_total"].GetMetric() {
		sum += s.GetCounter().GetValue()
	}
	if sum != writers*each {
		t.Errorf("%v statements", sum)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	m := NewMetrics()
	h, s := m.HTTPRoute("r", "s"), m.SQLDatabase("d")
	observe := func() {
		h.Observe(200, time.Millisecond, time.Microsecond, 1, 2, 1, "internal")
		s.Observe("query", 0, time.Millisecond, time.Microsecond, 1, 2)
	}
	for range 100 {
		observe()
	}
	if n := testing.AllocsPerRun(1000, observe); n >= 0.01 {
		t.Errorf("%v allocations", n)
	}
}

// What do the counters cost a request, alone and beside others on the same route?
func BenchmarkObserve(b *testing.B) {
	m := NewMetrics()
	h, s := m.HTTPRoute("r", "s"), m.SQLDatabase("d")
	b.Run("http", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Observe(200, time.Millisecond, 900*time.Microsecond, 100, 2000, 0, "")
		}
	})
	b.Run("http parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				h.Observe(200, time.Millisecond, 900*time.Microsecond, 100, 2000, 0, "")
			}
		})
	})
	b.Run("sql", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Observe("query", 0, time.Millisecond, 900*time.Microsecond, 100, 2000)
		}
	})
}

// What does a scrape cost with as many routes as have series of their own?
func BenchmarkScrape(b *testing.B) {
	m := NewMetrics()
	for i := range RoutesMax {
		m.HTTPRoute(fmt.Sprint("route ", i), "s").Observe(200, time.Millisecond, time.Millisecond, 1, 1, 0, "")
	}
	b.ReportAllocs()
	bytes := 0
	for b.Loop() {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		bytes = w.Body.Len()
	}
	b.ReportMetric(float64(bytes), "bytes/scrape")
}
