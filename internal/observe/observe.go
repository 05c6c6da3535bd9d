// Package observe tells operators what the gateway does: one access record for each request, statement or relayed
// connection (Record, AccessLog), and counters for Prometheus (Metrics and its series). Both doors use the same record
// and the same registry, so that one query answers for both.
//
// The hot calls (AccessLog.Write, HTTPSeries.Observe, SQLSeries.Observe) allocate nothing and wait for nobody: a record
// that finds the buffer full is dropped and counted, a counter is a few atomic adds on a stripe that the running
// processor has mostly to itself (stripe.go).
//
// Everything that could grow is bounded: the buffers of the access log, the length of one field in a record, the
// routes, databases and endpoints that have series of their own, and the status codes within one series.
//
// Locks: a shard of the access log has one mutex, held while one record is encoded or two buffers are swapped. Metrics
// has one mutex for its maps of series, held by compile and by scrapes, never by Observe. No lock is taken under another.
//
// It refuses to log what may hold secrets or personal data: query strings, header values other than the request id and
// the user agent, statement texts, bodies. Only the slow log has statements, without their literals unless the user asks for them.
package observe

import (
	"net/netip"
	"time"
)

// The doors, as Record.Door names them.
const (
	DoorHTTP = "http"
	DoorSQL  = "sql"
	DoorTCP  = "tcp"
)

// Record is what is said about one HTTP request, one SQL statement, or one relayed TCP connection. The zero value is an
// empty record; a field that is empty, or does not belong to the Door, is left out of the line. The byte slices are
// views: AccessLog.Write reads them during the call and keeps nothing.
type Record struct {
	Time          time.Time // when the request, statement or connection began
	Door          string    // DoorHTTP, DoorSQL or DoorTCP
	Listener      string
	Consumer      string     // who signed in; "" for nobody
	ClientAddress netip.Addr // the one client address, after trusted_proxies
	Service       string     // sql: left out, the database says it
	Endpoint      string     // the endpoint of the last attempt; "" when none was asked
	Fault         string     // fault.Kind's id; "" when all went well
	Generation    uint64     // of the configuration that served it
	Total         time.Duration
	Upstream      time.Duration // waiting for endpoints, all attempts; left out when no endpoint was asked
	BytesIn       int64         // received from the client
	BytesOut      int64         // sent to the client

	// ClientCertificate is the subject of the certificate that the client has shown, and that was verified. HTTP and TCP only.
	ClientCertificate string

	// HTTP only.
	Protocol  string // "HTTP/1.1"
	RequestID []byte
	Route     string
	Method    []byte
	Host      []byte
	Path      []byte // without the query, which may hold secrets
	UserAgent []byte
	Status    int // 0 when no answer was sent
	Retries   int // attempts beyond the first

	// SQL only.
	Session  uint64 // the connection id that the client sees
	Database string
	Command  string // "query", "execute", ...
	SQLCode  int    // MySQL's error number; 0 when the statement succeeded
	SQLState string // five characters, with SQLCode
	Split    string // "replica", or why the primary was asked although the database has replicas; "" when it has none
}
