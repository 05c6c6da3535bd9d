//go:build linux

package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// front is what HTTP subjects are asked to do, each in its own words: to take requests at an address of their own and pass all of them on to one origin.
type front struct {
	origin string
	tls    *certificate // of the listener; nil means plain text
	h2     bool         // clients speak HTTP/2: by ALPN with tls, else with prior knowledge

	// What one peer alone is told.
	nginx           string // directives for the location
	nginxServer     string // directives for the server
	nginxServers    string // further servers
	nginxHTTP       string // directives for the http block
	menshen         string // keys of the route, in YAML flow style with a comma before each
	menshenServices string // further services, a line each
	menshenSections string // access log and further sections; "access_log: none" when empty
}

// nginxWide are buffers that make nginx as fast with large bodies as it can be.
const nginxWide = "proxy_buffers 16 32k; proxy_buffer_size 32k; proxy_busy_buffers_size 256k;"

// startOrigin runs the server behind all HTTP subjects.
func startOrigin(t testing.TB, core int) (address string, pid int) {
	t.Helper()
	address = testenv.FreeAddress(t)
	p := testenv.Start(t, role(t, core, "origin", address))
	awaitAddress(t, p, address)
	return address, p.PID
}

// nginxProxy is one worker of nginx, without a master.
func nginxProxy(b testing.TB, core int, name string, to front) subject {
	b.Helper()
	program := testenv.Lookup(b, "nginx")
	dir, address := testenv.Dir(b), testenv.FreeAddress(b)
	conf := writeFile(b, "nginx.conf", nginxConf(dir, address, "daemon off; master_process off;", to))
	p := testenv.Start(b, pinned(b, core, program, "-p", dir, "-c", conf, "-e", dir+"/error.log"))
	awaitAddress(b, p, address)
	return subject{name: name, address: address, pid: p.PID}
}

// nginxConf is the whole file; process says how nginx runs.
func nginxConf(dir, address, process string, to front) string {
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s/%s; ", kind, dir, kind)
	}
	listen, tls := "", ""
	if to.tls != nil {
		listen = " ssl"
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites %s;", to.tls.cert, to.tls.key, cipherName)
	}
	if to.h2 {
		listen += " http2"
		tls += " http2_max_concurrent_streams 256;"
	}
	return fmt.Sprintf(`
%[1]s pid %[2]s/pid; error_log %[2]s/error.log;
worker_rlimit_nofile 20000;
events { worker_connections 19500; multi_accept on; }
http {
  %[3]s
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75;
  map_hash_bucket_size 128;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  %[4]s
  upstream origin { server %[5]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %[6]s%[7]s backlog=4096; %[8]s
    client_max_body_size 0; %[10]s
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; %[9]s
    }
    location /ws {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 1h;
    }
  }
  %[11]s
}
`, process, dir, temporary.String(), to.nginxHTTP, to.origin, address, listen, tls, to.nginx, to.nginxServer, to.nginxServers)
}

func haproxyHTTP(b testing.TB, core int, to front) subject {
	b.Helper()
	program := testenv.Lookup(b, "haproxy")
	address := testenv.FreeAddress(b)
	conf := writeFile(b, "haproxy.cfg", haproxyConf(address, "", to))
	p := testenv.Start(b, pinned(b, core, program, "-db", "-f", conf))
	awaitAddress(b, p, address)
	return subject{name: "haproxy", address: address, pid: p.PID}
}

// haproxyConf is the whole file; rules stand in the listen section.
func haproxyConf(address, rules string, to front) string {
	bind := ""
	if to.tls != nil {
		bind = fmt.Sprintf(" ssl crt %s ssl-min-ver TLSv1.3 ciphersuites %s", to.tls.both, cipherName)
	}
	switch {
	case to.h2 && to.tls != nil:
		bind += " alpn h2"
	case to.h2:
		bind += " proto h2"
	}
	return fmt.Sprintf(`
global
  nbthread 1
  maxconn 9900
  tune.h2.max-concurrent-streams 256
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout tunnel 1h
  option forwardfor
  http-reuse always
listen web
  bind %s%s
  %s
  server origin %s
`, address, bind, rules, to.origin)
}

// menshenHTTP runs the gateway as it comes, without an access log, as the peers run. It keeps as many idle connections as nginx.
func menshenHTTP(b testing.TB, core int, g build, to front) subject {
	b.Helper()
	address := testenv.FreeAddress(b)
	p := startGateway(b, core, g, address, menshenConf(address, "", to))
	return subject{name: g.label, address: address, pid: p.PID}
}

// menshenConf is the whole file; routes are further lines of its section.
func menshenConf(address, routes string, to front) string {
	tls := ""
	if to.tls != nil {
		tls = fmt.Sprintf(", tls: {cert: %q, key: %q, min_version: %q}", to.tls.cert, to.tls.key, "1.3")
	}
	sections := to.menshenSections
	if sections == "" {
		sections = "access_log: none"
	}
	return fmt.Sprintf(`
listeners: {web: {address: %q%s}}
services:
  origin: {endpoints: [%q], connections: {max_idle_per_endpoint: 1024}, timeouts: {idle: 1h}}
%sroutes:
  all: {match: "/*", service: origin%s}
%s
%s
log: {level: warn}
`, address, tls, to.origin, to.menshenServices, to.menshen, routes, sections)
}

// caddyHTTP is Caddy, or nothing where it is not installed: no test needs it.
func caddyHTTP(b testing.TB, core int, to front) []subject {
	b.Helper()
	program, err := testenv.Find("caddy")
	if err != nil {
		progress("without Caddy: %v", err)
		return nil
	}
	dir, address := testenv.Dir(b), testenv.FreeAddress(b)
	conf := writeFile(b, "Caddyfile", fmt.Sprintf(`
{
	admin off
	auto_https off
	log {
		level ERROR
	}
}
http://%s {
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns 1024
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, address, to.origin))
	cmd := pinned(b, core, program, "run", "--config", conf, "--adapter", "caddyfile")
	cmd.Env = append(cmd.Env, "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	p := testenv.Start(b, cmd)
	awaitAddress(b, p, address)
	return []subject{{name: "caddy", address: address, pid: p.PID}}
}

// certificate is what TLS listeners show: files with the chain, the key, and both in one.
type certificate struct{ cert, key, both string }

// newCertificate makes one with a key on the curve P-256, with which everybody signs in fast code.
func newCertificate(b testing.TB) *certificate {
	b.Helper()
	c := testenv.NewCertificate(b)
	var both []byte
	for _, path := range []string{c.CertFile, c.KeyFile} {
		text, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		both = append(both, text...)
	}
	return &certificate{c.CertFile, c.KeyFile, writeFile(b, "both.pem", string(both))}
}
