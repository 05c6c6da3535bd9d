package observe

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics, by name. docs/observability.md lists them; testdata/metrics.golden holds their names, because dashboards do.
var (
	descHTTPRequests = desc("menshen_http_requests_total", "Requests answered, by status code.", "route", "service", "code")
	descHTTPDuration = desc("menshen_http_request_duration_seconds", "From the first byte of a request to the last of its response.", "route")
	descHTTPUpstream = desc("menshen_http_upstream_duration_seconds", "The part of a request spent waiting for endpoints.", "route", "service")
	descHTTPIn       = desc("menshen_http_request_bytes_total", "Bytes received from clients.", "route")
	descHTTPOut      = desc("menshen_http_response_bytes_total", "Bytes sent to clients.", "route")
	descHTTPRetries  = desc("menshen_http_retries_total", "Attempts beyond the first.", "route", "service")
	descHTTPFaults   = desc("menshen_http_faults_total", "Requests that failed, by the id of what went wrong.", "route", "fault")

	descSQLStatements = desc("menshen_sql_statements_total", "Statements answered, by command and MySQL error number (0: success).", "database", "command", "code")
	descSQLDuration   = desc("menshen_sql_statement_duration_seconds", "From a statement to the last byte of its answer.", "database")
	descSQLUpstream   = desc("menshen_sql_upstream_duration_seconds", "The part of a statement spent waiting for instances.", "database")
	descSQLIn         = desc("menshen_sql_request_bytes_total", "Bytes received from clients.", "database")
	descSQLOut        = desc("menshen_sql_response_bytes_total", "Bytes sent to clients.", "database")
	descSQLSessions   = desc("menshen_sql_sessions_open", "Sessions of clients that have signed in.", "listener")
	descSQLSessioned  = desc("menshen_sql_sessions_total", "Sessions opened.", "listener")
	descSQLPins       = desc("menshen_sql_pinned_sessions", "Sessions that keep their connection between statements, by reason; one session may have several.", "reason")
	descSQLSplit      = desc("menshen_sql_split_total", "Statements of databases with replicas, by where they went: to a replica, or to the primary and why.", "database", "to")
	descSQLPrimary    = desc("menshen_sql_primary", "1 when an instance of the group takes writes, 0 when none does.", "database")
	descSQLConflict   = desc("menshen_sql_two_primaries", "1 while more than one instance of the group is writable: writes are refused.", "database")
	descSQLConflicts  = desc("menshen_sql_two_primaries_total", "Times that a second instance was found writable.", "database")
	descSQLFailovers  = desc("menshen_sql_failovers_total", "Times that another instance became the primary.", "database")
	descSQLHeld       = desc("menshen_sql_failover_waiting", "Statements that wait for a primary now.", "database")
	descSQLHolds      = desc("menshen_sql_failover_waits_total", "Statements that had to wait for a primary.", "database")
	descSQLHeldLong   = desc("menshen_sql_failover_timeouts_total", "Statements that waited for a primary in vain, or found no room to wait.", "database")
	descSQLRole       = desc("menshen_sql_instance_role", "Always 1; what an instance is in its group.", "database", "instance", "role")
	descSQLReads      = desc("menshen_sql_instance_reads", "1 when an instance of a group may take reads, 0 when not.", "database", "instance")
	descSQLLag        = desc("menshen_sql_replica_lag_seconds", "How far a replica is behind the primary; absent while it is not known.", "database", "instance")
	descSQLPool       = desc("menshen_sql_pool_connections", "Connections to the instances of a database, by state: used or idle.", "database", "state")
	descSQLPoolMax    = desc("menshen_sql_pool_max_connections", "Most connections that may be open to the instances of a database together; 0: no bound.", "database")
	descSQLDigests    = desc("menshen_sql_digests", "Texts of statements, without literals, that are counted apart.")
	descSlow          = desc("menshen_sql_slow_log_records_total", "Slow statements written.")
	descSlowLost      = desc("menshen_sql_slow_log_dropped_total", "Slow statements lost because the sink was slow or failed.")
	descSQLQueue      = desc("menshen_sql_pool_waiting", "Statements that wait for a connection now.", "database")
	descSQLWaits      = desc("menshen_sql_pool_waits_total", "Statements that had to wait for a connection.", "database")
	descSQLLate       = desc("menshen_sql_pool_timeouts_total", "Statements that waited for a connection in vain.", "database")

	descOpen     = desc("menshen_connections_open", "Client connections open now.", "listener")
	descAccepted = desc("menshen_connections_accepted_total", "Client connections accepted.", "listener")
	descRefused  = desc("menshen_connections_refused_total", "Client connections closed unserved, by reason.", "listener", "reason")
	descTCPIn    = desc("menshen_tcp_received_bytes_total", "Bytes that tcp listeners received from clients.", "listener")
	descTCPOut   = desc("menshen_tcp_sent_bytes_total", "Bytes that tcp listeners sent to clients.", "listener")

	descHealthy  = desc("menshen_upstream_endpoint_healthy", "1 when the endpoint takes traffic, 0 when its checks or its failures keep it out.", "service", "endpoint")
	descActive   = desc("menshen_upstream_endpoint_active", "Requests or sessions in progress on the endpoint.", "service", "endpoint")
	descRequests = desc("menshen_upstream_endpoint_requests_total", "Attempts sent to the endpoint.", "service", "endpoint")
	descFailures = desc("menshen_upstream_endpoint_failures_total", "Attempts that failed by the endpoint's fault.", "service", "endpoint")
	descLatency  = desc("menshen_upstream_endpoint_latency_seconds", "Moving average of the time to the first byte.", "service", "endpoint")

	descReloads    = desc("menshen_reloads_total", "Attempts to put a configuration into service.", "result")
	descGeneration = desc("menshen_config_generation", "The generation of the configuration in service.")
	descReloadedAt = desc("menshen_config_last_reload_success_timestamp_seconds", "When a configuration was last put into service.")
	descBuild      = desc("menshen_build_info", "Always 1; what was built from what.", "version", "goversion", "revision")

	descRecords       = desc("menshen_access_log_records_total", "Access records written.")
	descRecordsLost   = desc("menshen_access_log_dropped_total", "Access records lost because the sink was slow or failed.")
	descRecordsErrors = desc("menshen_access_log_errors_total", "Failed writes of access records.")
)

var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// collector reads our own counters when Prometheus asks. Series appear with their first event, so that 2,000 quiet
// routes cost a scrape nothing.
type collector struct{ m *Metrics }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	out := output(ch)
	c.m.mu.Lock()
	routes := make([]*HTTPSeries, 0, len(c.m.routes)+1)
	for _, services := range c.m.routes {
		for _, s := range services {
			routes = append(routes, s)
		}
	}
	databases := make([]*SQLSeries, 0, len(c.m.databases)+1)
	for _, s := range c.m.databases {
		databases = append(databases, s)
	}
	listeners := make([]*ListenerSeries, 0, len(c.m.listeners)+1)
	for _, s := range c.m.listeners {
		listeners = append(listeners, s)
	}
	c.m.mu.Unlock()

	out.http(append(routes, &c.m.routesOther))
	for _, s := range append(databases, &c.m.databasesOther) {
		out.sql(s)
	}
	for _, s := range append(listeners, &c.m.listenersOther) {
		out.listener(s)
	}
	if f := c.m.upstreams.Load(); f != nil && *f != nil {
		out.endpoints((*f)())
	}
	if f := c.m.sql.Load(); f != nil && *f != nil {
		out.pools((*f)())
	}
	c.process(out)
}

// pools shows what the SQL door tells of itself.
func (out output) pools(s SQLStatus) {
	for reason, n := range s.Pins {
		out.gauge(descSQLPins, float64(n), reason)
	}
	out.gauge(descSQLDigests, float64(s.Digests))
	out.counter(descSlow, s.Slow.Written)
	out.counter(descSlowLost, s.Slow.Dropped)
	for _, p := range s.Splits {
		out.counter(descSQLSplit, p.Statements, p.Database, p.To)
	}
	for _, g := range s.Groups[:min(len(s.Groups), DatabasesMax)] {
		out.gauge(descSQLPrimary, bit(g.Primary), g.Database)
		out.gauge(descSQLConflict, bit(g.Conflict), g.Database)
		out.counter(descSQLConflicts, g.Conflicts, g.Database)
		out.counter(descSQLFailovers, g.Failovers, g.Database)
		out.gauge(descSQLHeld, float64(g.Waiting), g.Database)
		out.counter(descSQLHolds, g.Waits, g.Database)
		out.counter(descSQLHeldLong, g.Timeouts, g.Database)
		for _, i := range g.Instances {
			out.gauge(descSQLRole, 1, g.Database, i.Instance, i.Role)
			out.gauge(descSQLReads, bit(i.Reads), g.Database, i.Instance)
			if i.LagKnown {
				out.gauge(descSQLLag, i.Lag.Seconds(), g.Database, i.Instance)
			}
		}
	}
	for _, p := range s.Pools[:min(len(s.Pools), DatabasesMax)] {
		out.gauge(descSQLPool, float64(p.Open-p.Idle), p.Database, "used")
		out.gauge(descSQLPool, float64(p.Idle), p.Database, "idle")
		out.gauge(descSQLPoolMax, float64(p.Max), p.Database)
		out.gauge(descSQLQueue, float64(p.Waiting), p.Database)
		out.counter(descSQLWaits, p.Waits, p.Database)
		out.counter(descSQLLate, p.Timeouts, p.Database)
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// process shows what there is one of.
func (c collector) process(out output) {
	m := c.m
	out.counter(descReloads, m.reloadsOK.Load(), "success")
	out.counter(descReloads, m.reloadsBad.Load(), "failure")
	out.gauge(descGeneration, float64(m.generation.Load()))
	if at := m.reloadedAt.Load(); at != 0 {
		out.gauge(descReloadedAt, time.Duration(at).Seconds())
	}
	if b := m.build.Load(); b != nil {
		out.gauge(descBuild, 1, b[0], b[1], b[2])
	}
	if l := m.accessLog.Load(); l != nil {
		s := l.Status()
		out.counter(descRecords, s.Written)
		out.counter(descRecordsLost, s.Dropped)
		out.counter(descRecordsErrors, s.Errors)
	}
}

// output sends metrics to a scrape.
type output chan<- prometheus.Metric

func (o output) counter(d *prometheus.Desc, v uint64, labels ...string) {
	o.send(d, prometheus.CounterValue, float64(v), labels)
}

func (o output) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o.send(d, prometheus.GaugeValue, v, labels)
}

func (o output) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	metric, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	o <- metric
}

func (o output) histogram(d *prometheus.Desc, h *histogramSum, labels ...string) {
	count, sum, buckets := h.export()
	if count == 0 {
		return
	}
	metric, err := prometheus.NewConstHistogram(d, count, sum, buckets, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	o <- metric
}

// routeSum is what all services of one route share.
type routeSum struct {
	total    histogramSum
	bytesIn  uint64
	bytesOut uint64
	faults   [faultsMax]uint64
}

func (o output) http(all []*HTTPSeries) {
	sums := make(map[string]*routeSum)
	for _, s := range all {
		o.pair(s, sums)
	}
	for route, sum := range sums {
		o.histogram(descHTTPDuration, &sum.total, route)
		o.counter(descHTTPIn, sum.bytesIn, route)
		o.counter(descHTTPOut, sum.bytesOut, route)
		for i, n := range sum.faults {
			if n > 0 {
				o.counter(descHTTPFaults, n, route, faultIDs[i])
			}
		}
	}
}

// pair shows what is counted for a route and a service, and adds the rest to the route's sum.
func (o output) pair(s *HTTPSeries, sums map[string]*routeSum) {
	var codes [codesMax + 6]uint64
	var upstream histogramSum
	var retries uint64
	seen := false
	for i := range s.stripes {
		c := s.stripes[i].Load()
		if c == nil {
			continue
		}
		if !seen && sums[s.route] == nil {
			sums[s.route] = new(routeSum)
		}
		seen = true
		sum := sums[s.route]
		sum.total.add(&c.total)
		sum.bytesIn += c.bytesIn.Load()
		sum.bytesOut += c.bytesOut.Load()
		for j := range sum.faults {
			sum.faults[j] += c.faults[j].Load()
		}
		upstream.add(&c.upstream)
		retries += c.retries.Load()
		for j := range codes {
			codes[j] += c.codes[j].Load()
		}
	}
	if !seen {
		return
	}
	for i, n := range codes {
		if n > 0 {
			o.counter(descHTTPRequests, n, s.route, s.service, s.codeLabel(i))
		}
	}
	o.histogram(descHTTPUpstream, &upstream, s.route, s.service)
	if s.service != None {
		o.counter(descHTTPRetries, retries, s.route, s.service)
	}
}

// codeLabel names a slot: "200", past the bound "2xx", and "(none)" for requests that got no answer or no valid status.
func (s *HTTPSeries) codeLabel(slot int) string {
	if slot < codesMax {
		return strconv.Itoa(int(s.codes[slot].Load()))
	}
	if slot == codesMax+5 {
		return None
	}
	return strconv.Itoa(slot-codesMax+1) + "xx"
}

func (o output) sql(s *SQLSeries) {
	index := s.index.Load()
	if index == nil {
		return
	}
	var total, upstream histogramSum
	var bytesIn, bytesOut uint64
	var statements [statementsMax]uint64
	for i := range s.stripes {
		c := s.stripes[i].Load()
		if c == nil {
			continue
		}
		total.add(&c.total)
		upstream.add(&c.upstream)
		bytesIn += c.bytesIn.Load()
		bytesOut += c.bytesOut.Load()
		for j := range statements {
			statements[j] += c.statements[j].Load()
		}
	}
	for key, i := range *index {
		if statements[i] == 0 {
			continue
		}
		code := Other
		if key.code != otherCode {
			code = strconv.Itoa(key.code)
		}
		o.counter(descSQLStatements, statements[i], s.database, label(key.command), code)
	}
	o.histogram(descSQLDuration, &total, s.database)
	o.histogram(descSQLUpstream, &upstream, s.database)
	o.counter(descSQLIn, bytesIn, s.database)
	o.counter(descSQLOut, bytesOut, s.database)
}

func (o output) listener(s *ListenerSeries) {
	accepted := s.accepted.Load()
	if s.name == Other && accepted == 0 {
		return
	}
	o.gauge(descOpen, float64(s.Open()), s.name)
	o.counter(descAccepted, accepted, s.name)
	for i := range s.reasons {
		if r := s.reasons[i].Load(); r != nil {
			o.counter(descRefused, s.refused[i].Load(), s.name, label(*r))
		}
	}
	if n := s.refused[reasonsMax].Load(); n > 0 {
		o.counter(descRefused, n, s.name, Other)
	}
	if n := s.opened.Load(); n > 0 {
		o.gauge(descSQLSessions, float64(gauge(&s.opened, &s.ended)), s.name)
		o.counter(descSQLSessioned, n, s.name)
	}
	if in, out := s.bytesIn.Load(), s.bytesOut.Load(); in+out > 0 {
		o.counter(descTCPIn, in, s.name)
		o.counter(descTCPOut, out, s.name)
	}
}

// endpoints shows at most EndpointsMax of them, in order of service and endpoint, and two of the same name once:
// Prometheus refuses a scrape with doubles.
func (o output) endpoints(all []EndpointStatus) {
	all = slices.Clone(all)
	for i := range all {
		all[i].Service, all[i].Endpoint = label(all[i].Service), label(all[i].Endpoint)
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	all = slices.CompactFunc(all, func(a, b EndpointStatus) bool {
		return a.Service == b.Service && a.Endpoint == b.Endpoint
	})
	for _, e := range all[:min(len(all), EndpointsMax)] {
		labels := []string{e.Service, e.Endpoint}
		healthy := 0.0
		if e.Healthy {
			healthy = 1
		}
		o.gauge(descHealthy, healthy, labels...)
		o.gauge(descActive, float64(e.Active), labels...)
		o.counter(descRequests, e.Requests, labels...)
		o.counter(descFailures, e.Failures, labels...)
		if e.Latency > 0 {
			o.gauge(descLatency, e.Latency.Seconds(), labels...)
		}
	}
}
