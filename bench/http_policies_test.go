//go:build linux

package bench

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkHTTPPolicies asks: what does a request cost that four policies (cors, rate_limit, api_key, headers) look at and that is written to an access log
// on disk, beside a bare nginx, which does none of that, and beside an nginx that does the nearest it can?
func BenchmarkHTTPPolicies(b *testing.B) {
	subjectCore, loadCore := cores(b)
	wrk := testenv.Lookup(b, "wrk")
	origin, originPID := startOrigin(b, loadCore)
	bare := front{origin: origin}
	busy := bare
	log := filepath.Join(testenv.Dir(b), "access.log")
	busy.nginxHTTP, busy.nginx = nginxPolicies(log)
	subjects := []subject{nginxProxy(b, subjectCore, "nginx", bare), nginxProxy(b, subjectCore, "nginx with the like", busy)}
	for _, g := range gateways(b) {
		to := bare
		to.menshen, to.menshenSections = menshenPolicies(filepath.Join(testenv.Dir(b), "access.log"))
		policed := menshenHTTP(b, subjectCore, g, to)
		policed.name += " with policies"
		subjects = append(subjects, menshenHTTP(b, subjectCore, g, bare), policed)
	}
	headers := []string{"-H", "Origin: https://shop.example.com", "-H", "X-API-Key: " + apiKey}
	var text strings.Builder
	for connections := range strings.SplitSeq(*flagConnections, ",") {
		progress("http-policies: %s connections", connections)
		visits := tour(b, subjects, *flagRounds, func(s subject) visit {
			return wrkVisit(b, wrk, s, subjectCore, loadCore, originPID, connections, "100", headers...)
		})
		fmt.Fprintf(&text, "### %s connections, body 100, %d rounds of %s\n\n%s\n", connections, *flagRounds, *flagVisit, table(subjects, visits, "nginx", "request"))
	}
	report(b, "http-policies", text.String(), "nginx", "wrk")
}

const apiKey = "0123456789abcdef0123456789abcdef0123456789abcdef"

// menshenPolicies are the four policies on the route, and the access log to a file. The limit is never reached, and so always counted.
func menshenPolicies(log string) (route, sections string) {
	return `, policies: [
    {cors: {origins: ["https://shop.example.com"], credentials: true}},
    {rate_limit: {rate: 1000000/s}},
    {api_key: "header:X-API-Key"},
    {headers: {request: {set: {X-Edge: bench}, remove: [X-Internal]}, response: {set: {Strict-Transport-Security: max-age=31536000}, remove: [Server]}}}]`,
		fmt.Sprintf("consumers: {shop: {groups: [partners], api_keys: [%q]}}\naccess_log: {to: %q}", apiKey, log)
}

// nginxPolicies are the nearest that nginx has: a map of keys in plain, limit_req, fields of the response and the request, and an access log with the same
// facts in JSON, written in pieces of 32 KiB at least every second.
func nginxPolicies(log string) (http, location string) {
	return fmt.Sprintf(`
  map $http_x_api_key $consumer { default ""; %q shop; }
  map $http_origin $allowed { default ""; "https://shop.example.com" $http_origin; }
  limit_req_zone $binary_remote_addr zone=all:10m rate=1000000r/s;
  log_format facts escape=json '{"time":"$time_iso8601","client_address":"$remote_addr","consumer":"$consumer","request_id":"$request_id",'
    '"protocol":"$server_protocol","method":"$request_method","host":"$host","path":"$uri","user_agent":"$http_user_agent","endpoint":"$upstream_addr",'
    '"status":$status,"duration":$request_time,"upstream":"$upstream_response_time","bytes_in":$request_length,"bytes_out":$bytes_sent}';
`, apiKey), fmt.Sprintf(`
      if ($consumer = "") { return 401; }
      limit_req zone=all burst=1000 nodelay;
      access_log %s facts buffer=32k flush=1s;
      add_header Access-Control-Allow-Origin $allowed always; add_header Access-Control-Allow-Credentials true always; add_header Vary Origin always;
      add_header Strict-Transport-Security max-age=31536000 always;
      proxy_hide_header Access-Control-Allow-Origin;
      proxy_set_header X-API-Key ""; proxy_set_header X-Internal ""; proxy_set_header X-Edge bench;
      proxy_set_header X-Consumer-Name $consumer; proxy_set_header X-Consumer-Groups partners; proxy_set_header X-Request-Id $request_id;`, log)
}
