package config

import (
	"net/netip"
	"time"
)

// Config is the whole configuration as the user wrote it, with defaults filled in and references expanded. Names are
// checked against each other by Parse; what only a door can judge (ambiguous routes, unreadable certificates) is judged
// when a snapshot is compiled. A Config is never changed after Parse and may be read by many goroutines.
//
// The doc comment of each field is its manual: the JSON Schema takes its descriptions from `doc` tags, which repeat it.
type Config struct {
	Listeners      map[string]*Listener `yaml:"listeners" doc:"Where connections come in, by name."`
	Services       map[string]*Service  `yaml:"services" doc:"Named groups of endpoints, the same for both doors."`
	Routes         map[string]*Route    `yaml:"routes" doc:"HTTP routes by name. The most specific match wins, whatever the order."`
	Databases      map[string]*Database `yaml:"databases" doc:"Logical databases seen by SQL clients, by name."`
	Consumers      map[string]*Consumer `yaml:"consumers" doc:"Identities, the same for both doors, by name."`
	Policies       map[string][]Policy  `yaml:"policies" doc:"Lists of policies by name, for use in the policies of listeners and routes."`
	Admin          *Admin               `yaml:"admin" doc:"Status, metrics, readiness and config API. Off when absent."`
	Log            Log                  `yaml:"log" doc:"Menshen's own log, on standard error."`
	AccessLog      AccessLog            `yaml:"access_log" doc:"One record for each request or statement."`
	SlowLog        *SlowLog             `yaml:"slow_log" doc:"One record for each SQL statement that took too long: the time, or {threshold, to, literals}. Off when absent; whether it is there takes effect at the next start."`
	Digests        Digests              `yaml:"digests" doc:"Statistics of SQL statements, by their text without literals."`
	TrustedProxies []netip.Prefix       `yaml:"trusted_proxies" doc:"Addresses whose X-Forwarded-For counts."`

	source *source
}

// Protocol is what a listener speaks.
type Protocol string

// The protocols of a listener.
const (
	ProtocolHTTP  Protocol = "http"
	ProtocolTCP   Protocol = "tcp"
	ProtocolMySQL Protocol = "mysql"
)

// Listener is one address on which connections come in.
type Listener struct {
	Address         string           `yaml:"address" required:"true" form:"listen" doc:"host:port to listen on; an empty host means all addresses, port 0 any free port."`
	Protocol        Protocol         `yaml:"protocol" enum:"http,tcp,mysql" default:"http" doc:"What clients speak here."`
	TLS             *ListenerTLS     `yaml:"tls" doc:"Certificates; absent means plain text. For mysql: TLS is offered in the handshake."`
	IO              string           `yaml:"io" enum:"auto,netpoll,epoll" default:"auto" doc:"Which poller tells that bytes have come. epoll is Menshen's own (Linux only; elsewhere netpoll takes its place), netpoll the Go runtime's. auto is the cheaper one, at present epoll. Connections to endpoints are on the poller of the listener whose request opened them."`
	ProxyProtocol   []netip.Prefix   `yaml:"proxy_protocol" doc:"Load balancers that begin each connection with a PROXY protocol header (v1 or v2): addresses and networks. Theirs must, and the client's address in it counts; nobody else's is looked at."`
	Service         ServiceRef       `yaml:"service" doc:"tcp only: the service that connections are relayed to, by name or in place."`
	Routes          []string         `yaml:"routes" doc:"http only: the names of the routes served here; absent means all."`
	Policies        []Policy         `yaml:"policies" doc:"http only: policies for every request here, beside those of the route."`
	DefaultDatabase string           `yaml:"default_database" doc:"mysql only: the database of a client that names none."`
	Timeouts        ListenerTimeouts `yaml:"timeouts" doc:"How long a client may take for each step."`
	Limits          ListenerLimits   `yaml:"limits" doc:"What one client, and all of them, may use."`
	Forward         ForwardHeaders   `yaml:"headers" doc:"http only: which headers Menshen adds to requests and responses, and which it does not let pass."`
	ClientGone      ClientGone       `yaml:"client_gone" enum:"abort,finish" default:"finish" doc:"http only: what becomes of a request that an endpoint thinks about for more than a second, when its client has closed the connection, which cannot be told from closing its sending half: finish lets it end; abort gives it up there, too, as it always is when the client resets the connection."`
	DrainTimeout    Duration         `yaml:"drain_timeout" default:"30s" doc:"How long requests may finish after the listener closes."`
}

// ClientGone is what becomes of a request whose client has left.
type ClientGone string

// What becomes of it.
const (
	GoneAbort  ClientGone = "abort"
	GoneFinish ClientGone = "finish"
)

// The pollers of a listener.
const (
	IOAuto    = "auto"
	IONetpoll = "netpoll"
	IOEpoll   = "epoll"
)

// ListenerTLS holds the certificates of a listener. The short form {cert, key} is one certificate; more go under
// certificates. The certificate is chosen by SNI; the first one serves names that none covers.
type ListenerTLS struct {
	Cert         string        `yaml:"cert" form:"file" doc:"PEM file with the certificate chain."`
	Key          string        `yaml:"key" form:"file" doc:"PEM file with the private key."`
	Certificates []Certificate `yaml:"certificates" doc:"More certificates, chosen by SNI."`
	MinVersion   string        `yaml:"min_version" enum:"1.2,1.3" default:"1.2" doc:"The oldest TLS version accepted."`
	ClientAuth   *ClientAuth   `yaml:"client_auth" doc:"Ask clients for a certificate: the PEM file of its authorities, or {ca, mode}. Off when absent."`
}

// ClientAuth asks the clients of a listener for a certificate. The short form is CA, which means that they must have one.
type ClientAuth struct {
	CA   string `yaml:"ca" short:"true" required:"true" form:"file" doc:"PEM file with the authorities that client certificates come from."`
	Mode string `yaml:"mode" enum:"required,optional" default:"required" doc:"Whether a client without a certificate is turned away. One that is shown must be good either way."`
}

// Certificate is one certificate chain with its key, both PEM files.
type Certificate struct {
	Cert string `yaml:"cert" required:"true" form:"file" doc:"PEM file with the certificate chain."`
	Key  string `yaml:"key" required:"true" form:"file" doc:"PEM file with the private key."`
}

// ListenerTimeouts bound each phase of a client's connection. Zero switches a bound off.
type ListenerTimeouts struct {
	RequestHeader Duration `yaml:"request_header" default:"10s" doc:"From the first byte of a request head to its last; for mysql the whole handshake."`
	RequestBody   Duration `yaml:"request_body" default:"30s" doc:"Longest silence while a request body comes in."`
	Write         Duration `yaml:"write" default:"30s" doc:"Longest time that a client may refuse to take response bytes."`
	Idle          Duration `yaml:"idle" default:"75s" doc:"Longest silence between requests; for tcp and tunnels without traffic in either direction. For mysql the default is 8h."`
}

// ListenerLimits bound what strangers can fill. Zero means no bound where the default is zero.
type ListenerLimits struct {
	HeaderBytes           Size       `yaml:"header_bytes" default:"64KiB" doc:"Largest request head: 431, or 414 when the request line alone is larger."`
	Headers               int        `yaml:"headers" default:"128" min:"1" max:"10000" doc:"Most header fields in a request: 431."`
	BodyBytes             Size       `yaml:"body_bytes" default:"0" doc:"Largest request body: 413. 0 means no bound."`
	Connections           int        `yaml:"connections" default:"0" doc:"Most connections open at once; further ones are closed. 0 means no bound."`
	ConnectionsPerAddress int        `yaml:"connections_per_address" default:"0" doc:"The same for one client address. 0 means no bound."`
	RequestsPerConnection int        `yaml:"requests_per_connection" default:"0" doc:"Requests after which a connection is closed. 0 means no bound."`
	SignInFailures        RateOrNone `yaml:"sign_in_failures" default:"200/m" doc:"mysql only: refused sign-ins from one address, or one IPv6 network of 64 bits, after which its connections are refused until that time is over: error 1129. 0 means no bound."`

	HTTP2 HTTP2Limits `yaml:"http2" doc:"http only: what one HTTP/2 connection may use. Beyond the last three it is closed (ENHANCE_YOUR_CALM)."`
}

// HTTP2Limits bound what one HTTP/2 connection can fill or keep busy.
type HTTP2Limits struct {
	Streams          int  `yaml:"streams" default:"250" max:"10000" doc:"Most requests at once; further ones are refused (REFUSED_STREAM). 0 switches HTTP/2 off."`
	Window           Size `yaml:"window" default:"256KiB" doc:"Most bytes of one request body that wait to be read."`
	ConnectionWindow Size `yaml:"connection_window" default:"1MiB" doc:"Most bytes of all request bodies that wait to be read."`
	Continuations    int  `yaml:"continuations" default:"32" max:"10000" doc:"Most CONTINUATION frames of one request head."`
	Resets           Rate `yaml:"resets" default:"1000/30s" doc:"Most requests that end before their time, by either side: given up, malformed, refused."`
	IdleFrames       Rate `yaml:"idle_frames" default:"1000/10s" doc:"Most frames that carry nothing: PING, SETTINGS, PRIORITY, empty DATA, unknown types."`
}

// ForwardHeaders switches the headers that Menshen adds.
type ForwardHeaders struct {
	XForwarded   bool `yaml:"x_forwarded" default:"true" doc:"X-Forwarded-For, -Proto and -Host to the endpoint."`
	Forwarded    bool `yaml:"forwarded" default:"false" doc:"Forwarded (RFC 7239) to the endpoint."`
	Via          bool `yaml:"via" default:"false" doc:"Via (RFC 9110, 7.6.3) in both directions."`
	ClientCert   bool `yaml:"client_cert" default:"true" doc:"Client-Cert (RFC 9440) to the endpoint: the client's certificate, on listeners with tls.client_auth. What clients send under this name never passes."`
	ClientChain  bool `yaml:"client_cert_chain" default:"false" doc:"Client-Cert-Chain (RFC 9440) to the endpoint: the authorities between that certificate and those of tls.client_auth."`
	RequestID    bool `yaml:"request_id" default:"true" doc:"X-Request-Id made or passed on, to the endpoint and the client."`
	ResponseTime bool `yaml:"response_time" default:"true" doc:"X-Response-Time to the client: milliseconds inside the gateway and behind it."`
	ServerTiming bool `yaml:"server_timing" default:"true" doc:"Server-Timing to the client: the endpoint's share."`

	Underscores string `yaml:"underscores" enum:"safe,drop,refuse,allow" default:"safe" doc:"Request fields with an underscore in their name, which many servers take for a hyphen: safe drops those that could pass for a field that Menshen reads or writes (X_Forwarded_For, Content_Length), drop all of them, refuse answers 400, allow lets all pass."`
}

// ServiceRef names a service. Parse lifts a service written in place into Config.Services under the path where it
// stands (for example "routes.users.service"), so that Name is always set and always resolves; Inline is then true.
type ServiceRef struct {
	Name   string
	Inline bool
}

// ServiceProtocol is what a service's endpoints speak.
type ServiceProtocol string

// The protocols of a service.
const (
	ServiceHTTP ServiceProtocol = "http"
	ServiceH2   ServiceProtocol = "h2"
	ServiceH2C  ServiceProtocol = "h2c"
	ServiceGRPC ServiceProtocol = "grpc"
)

// Service is a named group of endpoints that are equally good answers.
type Service struct {
	Endpoints      []Endpoint         `yaml:"endpoints" required:"true" doc:"Where the service runs: host:port, or {address, weight, labels}."`
	Protocol       ServiceProtocol    `yaml:"protocol" enum:"http,h2,h2c,grpc" default:"http" doc:"What the endpoints speak to the HTTP door: http is HTTP/1.1, h2 is HTTP/2 over TLS (which it switches on), h2c HTTP/2 in plain text, grpc HTTP/2 with TLS or without, as tls says."`
	Balance        Balance            `yaml:"balance" doc:"How an endpoint is chosen: round_robin, least_connections, least_latency, random, hash."`
	HealthCheck    *HealthCheck       `yaml:"health_check" doc:"Active checks; off when absent."`
	Outlier        Outlier            `yaml:"outlier" doc:"Passive checks: endpoints that fail requests leave the rotation for a while."`
	PanicThreshold Percent            `yaml:"panic_threshold" default:"50%" doc:"When fewer endpoints than this are healthy, health is ignored and all are used; 0% never does."`
	Retry          Retry              `yaml:"retry" doc:"Attempts on another endpoint when the first failed safely."`
	Timeouts       ServiceTimeouts    `yaml:"timeouts" doc:"How long an endpoint may take for each step."`
	Connections    ServiceConnections `yaml:"connections" doc:"Bounds on connections to each endpoint."`
	TLS            *ClientTLS         `yaml:"tls" doc:"TLS to the endpoints: true, or the details."`
	ProxyProtocol  ProxyProtocol      `yaml:"proxy_protocol" enum:"off,v1,v2" default:"off" doc:"For tcp listeners: each connection to an endpoint begins with a PROXY protocol header that tells the client's address."`
}

// ProxyProtocol is the version of the header with which connections to an endpoint or instance begin.
type ProxyProtocol string

// The versions of the PROXY protocol. The empty string is off too.
const (
	ProxyOff ProxyProtocol = "off"
	ProxyV1  ProxyProtocol = "v1"
	ProxyV2  ProxyProtocol = "v2"
)

// On says whether there is a header at all.
func (p ProxyProtocol) On() bool { return p == ProxyV1 || p == ProxyV2 }

// Endpoint is one address of a service.
type Endpoint struct {
	Address string            `yaml:"address" required:"true" short:"true" form:"endpoint" doc:"host:port"`
	Weight  int               `yaml:"weight" default:"1" max:"1000000" doc:"Share of the traffic, against the other endpoints' weights; 0 takes none."`
	Labels  map[string]string `yaml:"labels" keys:"free" doc:"Free labels, shown in status."`
}

// Algorithm names a way to choose an endpoint.
type Algorithm string

// The balancing algorithms.
const (
	RoundRobin       Algorithm = "round_robin"
	LeastConnections Algorithm = "least_connections"
	LeastLatency     Algorithm = "least_latency"
	Random           Algorithm = "random"
	Hash             Algorithm = "hash"
)

// Balance is how an endpoint is chosen. The short form is the algorithm's name.
type Balance struct {
	Algorithm Algorithm `yaml:"algorithm" short:"true" enum:"round_robin,least_connections,least_latency,random,hash" default:"round_robin" doc:"The algorithm."`
	Key       string    `yaml:"key" default:"client_address" form:"hash_key" doc:"hash only: client_address, path, header:NAME or cookie:NAME. A request without it is hashed on its client address."`
}

// HealthCheck asks each endpoint at an interval whether it is well. The short form is the path. Without a path it is
// a TCP connect.
type HealthCheck struct {
	Path     string   `yaml:"path" short:"true" form:"path" doc:"Path of a GET request; absent means that a TCP connection is enough."`
	Host     string   `yaml:"host" form:"host" doc:"Host header of the request; absent means the endpoint's address."`
	Status   string   `yaml:"status" default:"200-399" form:"status" number:"true" doc:"Status codes that mean healthy: 200, 200-299, or a comma-separated list of these."`
	Interval Duration `yaml:"interval" default:"2s" doc:"Time between two checks of one endpoint."`
	Timeout  Duration `yaml:"timeout" default:"1s" doc:"A check that takes longer has failed."`
	Rise     int      `yaml:"rise" default:"2" min:"1" max:"1000" doc:"Successes in a row that make an endpoint healthy."`
	Fall     int      `yaml:"fall" default:"3" min:"1" max:"1000" doc:"Failures in a row that make it unhealthy."`
}

// Outlier ejects an endpoint whose requests fail.
type Outlier struct {
	ConsecutiveFailures int      `yaml:"consecutive_failures" default:"5" doc:"Failures in a row (connect errors, timeouts, broken responses, 502, 503, 504) that eject an endpoint; 0 never ejects."`
	Ejection            Duration `yaml:"ejection" default:"10s" doc:"How long the first ejection lasts; each further one is longer by as much."`
	EjectionMax         Duration `yaml:"ejection_max" default:"5m" doc:"The longest ejection."`
}

// Retry bounds the further attempts of one request. A retry is made only when nothing was sent, or when the method is
// idempotent and no response byte came. The short form is the number of attempts.
type Retry struct {
	Attempts int     `yaml:"attempts" short:"true" default:"1" max:"100" doc:"Further attempts for one request, each on another endpoint; 0 never retries."`
	Budget   Percent `yaml:"budget" default:"20%" doc:"Most retries of a service, as a share of its requests (never fewer than 3 a second)."`
}

// ServiceTimeouts bound each phase of an exchange with an endpoint. Zero switches a bound off.
type ServiceTimeouts struct {
	Connect   Duration `yaml:"connect" default:"5s" doc:"Until the connection (and its TLS handshake) stands."`
	FirstByte Duration `yaml:"first_byte" default:"60s" doc:"From the request's end to the first byte of the response."`
	Idle      Duration `yaml:"idle" default:"60s" doc:"Longest silence inside a response body or a tunnel."`
}

// ServiceConnections bounds the connections to each endpoint.
type ServiceConnections struct {
	MaxPerEndpoint     int `yaml:"max_per_endpoint" default:"0" doc:"Most connections in use at once; 0 means no bound."`
	MaxIdlePerEndpoint int `yaml:"max_idle_per_endpoint" default:"256" doc:"Most idle connections kept for reuse."`
}

// ClientTLS is how Menshen speaks TLS as a client. `tls: true` means the system's roots and the endpoint's host name.
type ClientTLS struct {
	CA                 string `yaml:"ca" form:"file" doc:"PEM file with the authorities to trust; absent means the system's."`
	Cert               string `yaml:"cert" form:"file" doc:"PEM file with Menshen's own certificate."`
	Key                string `yaml:"key" form:"file" doc:"PEM file with its key."`
	ServerName         string `yaml:"server_name" form:"match_host" doc:"Name to verify and to send as SNI; absent means the address's host."`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify" default:"false" doc:"Trust any certificate. Never in production."`
}

// Route sends matching requests to exactly one target: Service, Split, Redirect or Respond.
type Route struct {
	Match    Match             `yaml:"match" required:"true" doc:"[METHOD ][host]/path, or {hosts, paths, methods, headers, query}."`
	Service  ServiceRef        `yaml:"service" doc:"Target: a service, by name or in place."`
	Split    map[string]Weight `yaml:"split" doc:"Target: services with their shares, in percent or parts."`
	Redirect *Redirect         `yaml:"redirect" doc:"Target: a redirect."`
	Respond  *Respond          `yaml:"respond" doc:"Target: a fixed answer."`
	Rewrite  *Rewrite          `yaml:"rewrite" doc:"What changes on the way to the endpoint."`
	Timeout  Duration          `yaml:"timeout" default:"0" doc:"The whole request, from its head to the end of the response; 0 means no bound beyond the service's."`
	Retry    *Retry            `yaml:"retry" doc:"Overrides the service's retry."`
	Policies []Policy          `yaml:"policies" doc:"Policies for requests of this route: names of lists, or {kind: settings}. The order of stages decides, not that of the list."`
}

// Match is a condition on a request. The short form "[METHOD ][host]/path" is one path, at most one host and at most one
// method. All conditions must hold; in a list one is enough.
type Match struct {
	Hosts   []string          `yaml:"hosts" form:"match_host" doc:"Exact names, or *.example.com for any deeper name. Empty means any."`
	Paths   []string          `yaml:"paths" form:"match_path" doc:"/exact, /prefix/*, /with/{capture}, ~^/regular.*$. Empty means any."`
	Methods []string          `yaml:"methods" form:"method" doc:"Methods, in capitals. GET includes HEAD. Empty means any."`
	Headers map[string]string `yaml:"headers" keys:"header" form:"condition" doc:"Header conditions: an exact value, ~regular expression, or present."`
	Query   map[string]string `yaml:"query" keys:"free" form:"condition" doc:"Query parameter conditions, in the same forms."`
}

// Weight is a share of a split: "90%" or a number of parts. Value is what was written, without the sign.
type Weight struct {
	Value   float64
	Percent bool
}

// Redirect answers with a Location. The short form is To.
type Redirect struct {
	To     string `yaml:"to" short:"true" required:"true" form:"location" doc:"Location; {*} is what the prefix's star stood for, {name} a capture, {host}, {path}, {query} the request's. The request's query goes along unless there is a ? here."`
	Status int    `yaml:"status" enum:"301,302,303,307,308" default:"302" doc:"Status code."`
}

// Respond answers with a fixed response.
type Respond struct {
	Status  int               `yaml:"status" short:"true" default:"200" min:"200" max:"599" doc:"Status code."`
	Body    string            `yaml:"body" doc:"Body."`
	Headers map[string]string `yaml:"headers" keys:"response_header" form:"header_value" doc:"Header fields. Content-Type is text/plain; charset=utf-8 unless given."`
}

// Rewrite changes a request on its way to the endpoint.
type Rewrite struct {
	Path        string `yaml:"path" form:"path" doc:"New path; {*} and {capture} are filled in."`
	Host        string `yaml:"host" form:"host" doc:"New Host."`
	StripPrefix string `yaml:"strip_prefix" form:"path" doc:"Prefix to take off the path."`
}

// Database is a logical database that SQL clients see under its name.
type Database struct {
	Login    Login             `yaml:"login" required:"true" doc:"How Menshen signs in to the instances."`
	Shards   map[string]*Shard `yaml:"shards" required:"true" doc:"Where the data is. One entry means not sharded."`
	TLS      *ClientTLS        `yaml:"tls" doc:"TLS to the instances: true, or the details."`
	Timeouts DatabaseTimeouts  `yaml:"timeouts" doc:"How long an instance may take for each step."`
	Pool     DatabasePool      `yaml:"pool" doc:"How sessions share connections to an instance."`

	ReadFrom      ReadFrom    `yaml:"read_from" enum:"primary,replicas,nearest" default:"primary" doc:"Where reads go. replicas: to those that are fresh, by balance. nearest: to whichever fresh instance answers fastest, the primary among them."`
	MaxLag        Duration    `yaml:"max_lag" default:"2s" doc:"A replica that is further behind the primary takes no reads. 0 means that lag does not matter."`
	Consistency   Consistency `yaml:"consistency" enum:"session,eventual,strong" default:"session" doc:"session: a session reads what it wrote. eventual: its reads may miss what it has just written. strong: it reads what anybody wrote before."`
	Balance       Algorithm   `yaml:"balance" enum:"round_robin,least_connections,least_latency,random" default:"round_robin" doc:"How a replica is chosen; nearest is always by latency."`
	FailoverWait  Duration    `yaml:"failover_wait" default:"10s" doc:"How long a statement outside of a transaction waits while a group with replicas has no primary that takes writes. 0 means no wait."`
	FailoverQueue int         `yaml:"failover_queue" default:"1000" min:"0" max:"100000" doc:"Statements that may wait so at once; further ones fail."`
	CheckInterval Duration    `yaml:"check_interval" default:"1s" doc:"How often each instance is asked for its role, lag and health."`

	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol" enum:"off,v1,v2" default:"off" doc:"Each connection to an instance begins with a PROXY protocol header that tells the client's address. Needs pool.share: session."`
	Compression   string        `yaml:"compression" enum:"off,zlib,zstd" default:"off" doc:"Compression of what goes to the instances and comes from them. MariaDB knows zlib, MySQL 8 both. Clients compress or not as they like, whatever stands here."`
}

// ReadFrom says which instances of a group take reads.
type ReadFrom string

// The ways to read.
const (
	ReadPrimary  ReadFrom = "primary"
	ReadReplicas ReadFrom = "replicas"
	ReadNearest  ReadFrom = "nearest"
)

// Consistency says what a session sees of its own writes, and of those of others.
type Consistency string

// The consistencies.
const (
	ConsistencySession  Consistency = "session"
	ConsistencyEventual Consistency = "eventual"
	ConsistencyStrong   Consistency = "strong"
)

// DatabasePool bounds the connections to each instance of a database.
type DatabasePool struct {
	Share          string   `yaml:"share" enum:"transaction,session" default:"transaction" doc:"transaction: sessions give their connection back between statements and transactions. session: each keeps its own."`
	MaxConnections int      `yaml:"max_connections" default:"50" min:"0" max:"100000" doc:"Connections open at once to one instance; statements wait for a free one. 0 means no bound."`
	MinIdle        int      `yaml:"min_idle" default:"0" min:"0" max:"10000" doc:"Unused connections kept open for what may come, in the form that was asked for last; the health check opens them, within max_connections."`
	QueueTimeout   Duration `yaml:"queue_timeout" default:"5s" doc:"Longest wait for a connection: error 1040. 0 means no wait."`
	MaxLifetime    Duration `yaml:"max_lifetime" default:"1h" doc:"Age at which a connection is closed when it is given back. 0 means never."`
	IdleTimeout    Duration `yaml:"idle_timeout" default:"5m" doc:"Time after which an unused connection is closed. 0 means never."`
}

// DatabaseTimeouts bound the steps of an exchange with an instance. Zero switches a bound off.
type DatabaseTimeouts struct {
	Connect   Duration `yaml:"connect" default:"5s" doc:"Until the session with the instance stands."`
	Statement Duration `yaml:"statement" default:"0" doc:"From a statement to the first byte of its answer."`
}

// Login is a user of the instances.
type Login struct {
	User     string `yaml:"user" required:"true" doc:"User name."`
	Password Secret `yaml:"password" doc:"Password."`
}

// Shard is an instance group and a schema in it.
type Shard struct {
	Primary  string   `yaml:"primary" required:"true" form:"endpoint" doc:"host:port of the instance that takes writes. With replicas it is where to start: which instance is the primary is found out."`
	Replicas []string `yaml:"replicas" form:"endpoint" doc:"host:port of the other instances of the group."`
	Schema   string   `yaml:"schema" doc:"Name of the schema on the instance; absent means the database's name."`
}

// Consumer is an identity, the same for both doors.
type Consumer struct {
	Groups  []string       `yaml:"groups" form:"name" doc:"Names of groups that the consumer belongs to."`
	MySQL   *ConsumerMySQL `yaml:"mysql" doc:"How the consumer signs in to the SQL door; absent means that it cannot."`
	APIKeys []Secret       `yaml:"api_keys" doc:"Keys for the policy api_key: in plain, by reference, or as sha256: and the key's SHA-256 in hexadecimal. Several may be live at once, for rotation."`
}

// ConsumerMySQL is a consumer's sign-in for the SQL door. The user name is the consumer's name.
type ConsumerMySQL struct {
	Password       Secret `yaml:"password" short:"true" required:"true" doc:"Password; an empty one is refused."`
	MaxSessions    int    `yaml:"max_sessions" default:"0" doc:"Most sessions of the consumer at once, over all listeners: error 1226. 0 means no bound."`
	MaxConnections int    `yaml:"max_connections" default:"0" doc:"Most connections to one instance that the consumer's sessions use at once; their further statements wait for one of these. 0 means no bound."`
}

// Admin is the listener of the admin API.
type Admin struct {
	Address string `yaml:"address" short:"true" required:"true" form:"listen" doc:"host:port"`
}

// Log is Menshen's own log. The short form is the level.
type Log struct {
	Level  string `yaml:"level" short:"true" enum:"debug,info,warn,error" default:"info" doc:"The least severe level written."`
	Format string `yaml:"format" enum:"json,text" default:"json" doc:"The form of a line. A change takes effect at the next start."`
}

// AccessLog is where access records go.
type AccessLog struct {
	To string `yaml:"to" short:"true" default:"stdout" form:"sink" doc:"stdout, stderr, none, or a file's path. A change takes effect at the next start."`
}

// SlowLog is where slow statements go. The short form is the threshold.
type SlowLog struct {
	Threshold Duration `yaml:"threshold" short:"true" default:"1s" doc:"Statements that take longer are written, from their first byte to the last byte of their answer. 0 writes all."`
	To        string   `yaml:"to" default:"stderr" form:"sink" doc:"stdout, stderr, none, or a file's path. A change takes effect at the next start."`
	Literals  bool     `yaml:"literals" default:"false" doc:"Also write statements as they came, with all values: up to 4 KiB of each."`
}

// Digests bounds the statistics of statements. The short form is Max.
type Digests struct {
	Max int `yaml:"max" short:"true" default:"10000" min:"100" max:"50000" doc:"Texts that are counted apart. When there are more, those that were not seen for longest are counted together, as (other)."`
}

// Duration is a time span, written 250ms, 5s, 10m, 1h30m.
type Duration time.Duration

// Size is a number of bytes, written 512, 64KiB, 2MiB, 1GiB (also KB, MB, GB in powers of ten).
type Size int64

// Percent is a share as it is written: 50% is 50. Share gives 0.5.
type Percent float64

// Rate is a number of events in a time, written 10/s, 600/m, 1000/h, 5/10s.
type Rate struct {
	Count int
	Per   time.Duration
}

// RateOrNone is a Rate that may be written 0, its zero value: no bound.
type RateOrNone Rate

// Secret is a string that is never printed back. Its zero value is the empty secret.
type Secret string
