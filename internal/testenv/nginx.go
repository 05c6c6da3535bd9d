package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NginxConf says what differs from the default site. The zero value is ready to use.
type NginxConf struct {
	Name   string // value of the X-Backend response header; "nginx" when empty
	Main   string // directives for the main context
	HTTP   string // directives for the http block, for example an upstream or a second server
	Server string // directives for the default server, for example a location of its own
	TLS    *Certificate
	// Address is where to listen instead of a free address.
	Address string
}

// Server is a running nginx or HAProxy.
type Server struct {
	*Process
	Address    string // host:port
	AddressTLS string // host:port; empty without TLS
	URL        string // http://host:port
	Dir        string // private directory; configuration and logs are in it
}

// Bodies are the files that the default site serves; the figures are lengths in bytes.
var Bodies = map[string]int{"/100": 100, "/10k": 10 << 10, "/1m": 1 << 20}

// Body returns the contents of one of Bodies: a repeating text in which a lost or doubled block shows.
func Body(path string) []byte {
	n := Bodies[path]
	b := make([]byte, 0, n+16)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%07d ", i)
	}
	return b[:n]
}

// Nginx starts one nginx process with this site:
//
//	/100 /10k /1m      fixed bodies with Content-Length (see Body)
//	/chunked           the body of /10k in chunks
//	/slow              the body of /100, at about 50 bytes per second
//	/echo/...          what arrived: request line and some headers, one "name: value" per line
//	/status/CODE       an empty answer with that status (the usual codes)
//	/redirect          302 to /healthz
//	/close             200, and the connection ends
//	/files/...         PUT stores, GET and DELETE work
//	/healthz           200 ok
//
// Each answer carries X-Backend. Requests tells what arrived.
func Nginx(t testing.TB, conf NginxConf) *Server {
	t.Helper()
	program := Lookup(t, "nginx")
	s := &Server{Dir: Dir(t), Address: conf.Address}
	if s.Address == "" {
		s.Address = FreeAddress(t)
	}
	s.URL = "http://" + s.Address
	for path := range Bodies {
		write(t, s.Dir, "html"+path, string(Body(path)))
	}
	write(t, s.Dir, "html/slow", string(Body("/100")))
	// With server-side includes nginx cannot know the length beforehand, so it answers in chunks.
	write(t, s.Dir, "html/chunked", string(Body("/10k")))
	write(t, s.Dir, "html/files/.keep", "")
	path := write(t, s.Dir, "nginx.conf", nginxText(t, s, conf))
	s.Process = Start(t, exec.Command(program, "-p", s.Dir, "-c", path, "-e", filepath.Join(s.Dir, "error.log")))
	s.await(t, dialable(s.Address))
	return s
}

// nginxText writes the configuration. One process without a master: nothing to reload, and one process id to account for.
func nginxText(t testing.TB, s *Server, conf NginxConf) string {
	t.Helper()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if conf.Name == "" {
		conf.Name = "nginx"
	}
	line("daemon off; master_process off; pid %s/nginx.pid; error_log %s/error.log notice;", s.Dir, s.Dir)
	if os.Getuid() == 0 {
		line("user root;") // Without it workers run as another user, who cannot read the private directory.
	}
	line("%s", conf.Main)
	line("events { worker_connections 4096; }")
	line("http {")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		line("  %s_temp_path %s/tmp-%s;", kind, s.Dir, kind)
	}
	line("  default_type text/plain; keepalive_requests 1000000000; client_max_body_size 0; server_tokens off;")
	line("  log_format menshen '$request_method $request_uri $server_protocol $status host=$host xff=\"$http_x_forwarded_for\" connection=$connection';")
	line("  access_log %s/access.log menshen;", s.Dir)
	line("%s", conf.HTTP)
	line("  server {")
	line("    listen %s backlog=4096;", s.Address)
	if conf.TLS != nil {
		s.AddressTLS = FreeAddress(t)
		line("    listen %s ssl; ssl_certificate %s; ssl_certificate_key %s;", s.AddressTLS, conf.TLS.CertFile, conf.TLS.KeyFile)
	}
	line("    root %s/html; add_header X-Backend %q always;", s.Dir, conf.Name)
	line("    location = /healthz { return 200 \"ok\\n\"; }")
	line("    location = /redirect { return 302 /healthz; }")
	line("    location = /close { keepalive_timeout 0; return 200 \"bye\\n\"; }")
	line("    location = /chunked { ssi on; ssi_types *; }")
	line("    location = /slow { limit_rate 50; }")
	line("    location /files/ { dav_methods PUT DELETE; create_full_put_path on; }")
	line("    location /echo/ { return 200 \"%s\"; }", nginxEcho)
	for _, code := range []int{200, 201, 204, 301, 304, 400, 401, 403, 404, 405, 409, 410, 418, 429, 500, 502, 503, 504} {
		line("    location = /status/%d { return %d; }", code, code)
	}
	line("%s", conf.Server)
	line("  }")
	line("}")
	return b.String()
}

// nginxEcho is the text of /echo/.
const nginxEcho = `request: $request_method $request_uri $server_protocol
host: $http_host
connection: $http_connection
content-length: $http_content_length
transfer-encoding: $http_transfer_encoding
x-forwarded-for: $http_x_forwarded_for
x-forwarded-proto: $http_x_forwarded_proto
x-forwarded-host: $http_x_forwarded_host
forwarded: $http_forwarded
via: $http_via
x-request-id: $http_x_request_id
user-agent: $http_user_agent
authorization: $http_authorization
cookie: $http_cookie
te: $http_te
upgrade: $http_upgrade
keep-alive: $http_keep_alive
x-test: $http_x_test
`

// Requests returns one line per finished request: "METHOD URI PROTOCOL STATUS host=... xff=... connection=N", where N numbers the connections. nginx
// writes the line after the answer, so a reader that waits for one must poll.
func (s *Server) Requests() []string {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "access.log"))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// dialable returns a check that somebody accepts connections at an address.
func dialable(address string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", address, startDeadline)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
