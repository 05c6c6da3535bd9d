// Package backend opens connections to instances: it dials, signs in with the database's login, over TLS when the config
// says so, and announces exactly the capabilities that the client's side has, so that answers can be passed on as bytes.
// It also asks an instance whether it is well (Probe) and remembers what its greeting said (Facts).
//
// A Pool keeps connections between statements, and knows what each has been set to (Vars), so that sessions can share them.
//
// It starts no goroutine. Locks: Pool.mu may be held when Insert.mu is taken, never the other way round.
package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// Settings are how to sign in to the instances of a database. They are never changed.
type Settings struct {
	User, Password string
	TLS            *tls.Config        // nil means plain text; a ServerName must be set
	Proxy          proxyproto.Version // of the header with which each connection begins
	Compression    mysql.Compression
	Connect        time.Duration // until the session stands; 0 means no bound but the context's
}

// Session is what a connection is opened for.
type Session struct {
	Capabilities mysql.Capability  // of the client; of these, mysql.Relayed matter
	Collation    uint8             // 0 means utf8mb4_general_ci
	Schema       string            // "" means none
	Client       proxyproto.Header // whom Settings.Proxy tells the instance of; the zero value: nobody
}

// Facts is what the last greeting of an instance said. The zero value knows nothing. It is safe for any number of
// goroutines.
type Facts struct {
	greeting atomic.Pointer[mysql.Greeting]
}

// Known gives the version and the capabilities of the instance; ok is false before the first contact.
func (f *Facts) Known() (version string, c mysql.Capability, ok bool) {
	if g := f.greeting.Load(); g != nil {
		return g.Version, g.Capabilities, true
	}
	return "", 0, false
}

func (f *Facts) learn(g *mysql.Greeting) {
	if old := f.greeting.Load(); old == nil || old.Version != g.Version || old.Capabilities != g.Capabilities {
		f.greeting.Store(g)
	}
}

// Conn is a signed-in connection to an instance. It belongs to one goroutine.
type Conn struct {
	*wire.Conn
	Capabilities mysql.Capability // agreed on
	Status       mysql.Status     // after sign-in
	Version      string
	ThreadID     uint32 // the instance's number for the connection

	// What a Pool and the sessions that use it know. Owned by whoever has the connection.
	Key        Key
	Schema     string        // chosen last; "" means none
	Vars       *Vars         // its settings; nil: not known, and then it is never given back
	zone       string        // see systemZone; "" until ReadVars was called
	Warned     uint32        // the session whose messages its list of warnings may hold; 0: it is empty; Nobody: it may hold anything
	Opened     poll.Instant  // signed in
	Used       poll.Instant  // last
	Own        time.Duration // what Do, Row and Prepare took since whoever has the connection set it to 0
	owner      uint32        // the session that used it last
	turn       uint64        // see Turn
	statements []*Statement  // prepared
	uses       uint64        // counts their uses
	insert     claim         // whose LAST_INSERT_ID() it has
	pool       *Pool         // that it is of
	holder     string        // the consumer that Pool.used counts it for; "" when none
}

// messageMax bounds each message of the sign-in.
const messageMax = 64 << 10

// utf8mb4 is utf8mb4_general_ci, which all servers know.
const utf8mb4 = 45

// Open dials and signs in. facts may be nil. The error is a *fault.Fault; when the instance refused with an ERR packet, the
// *mysql.Error is in its chain.
func Open(ctx context.Context, address string, s *Settings, want Session, facts *Facts) (*Conn, error) {
	if s.Connect > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Connect)
		defer cancel()
	}
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, connectFault(ctx, address, err)
	}
	c := &Conn{Conn: wire.New(nc)}
	if deadline, ok := ctx.Deadline(); ok {
		c.ReadBefore(poll.Now().Add(max(time.Until(deadline), 1)))
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	if s.Proxy != 0 { // outside of TLS, and before the instance's greeting
		_, err = c.Plain().Write(want.Client.AppendTo(nil, s.Proxy))
	}
	if err == nil {
		err = c.signIn(address, s, want, facts)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, connectFault(ctx, address, err)
	}
	c.ReadBefore(0)
	return c, nil
}

// connectFault says whether the time was up or the attempt failed.
func connectFault(ctx context.Context, address string, err error) error {
	var known *fault.Fault
	if errors.As(err, &known) {
		return err
	}
	kind := fault.ConnectFailed
	var refused *mysql.Error
	if !errors.As(err, &refused) && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		kind = fault.ConnectTimeout
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the instance closed the connection during sign-in: %w", err)
	}
	return &fault.Fault{Kind: kind, Public: "the instance cannot be reached", Cause: fmt.Errorf("connect to %s: %w", address, err), Unsent: true}
}

// signIn reads the greeting and signs in.
func (c *Conn) signIn(address string, s *Settings, want Session, facts *Facts) error {
	payload, seq, err := c.ReadMessage(0, messageMax)
	if err != nil {
		return err
	}
	if mysql.IsError(payload) {
		return refusal(payload)
	}
	g := new(mysql.Greeting)
	if err := g.Decode(payload); err != nil {
		return err
	}
	if facts != nil {
		facts.learn(g)
	}
	if missing := want.Capabilities & mysql.Framing &^ g.Capabilities; missing != 0 {
		return fault.Wrap(fault.UpstreamBroken, "the instance speaks an older form of the protocol than when this session began: connect again",
			fmt.Errorf("%s does not offer %s", address, missing))
	}
	c.Version, c.ThreadID = g.Version, g.ConnectionID
	// LongPassword is sent to every server: leaving it out would announce MariaDB's extended capabilities.
	answer := mysql.SignIn{
		Capabilities: (mysql.LongFlag|mysql.Protocol41|mysql.Transactions|mysql.SecureConnection|mysql.PluginAuth|
			mysql.PluginAuthLenenc|want.Capabilities&mysql.Relayed)&g.Capabilities | mysql.LongPassword,
		PacketMax: 1 << 30,
		Collation: want.Collation,
		User:      []byte(s.User),
	}
	if !answer.Capabilities.Has(mysql.Protocol41 | mysql.SecureConnection) {
		return fmt.Errorf("%w: the instance is older than MySQL 4.1", mysql.ErrMalformed)
	}
	if answer.Collation == 0 {
		answer.Collation = utf8mb4
	}
	if asked := s.Compression.Capability(); asked != 0 {
		if !g.Capabilities.Has(asked) {
			return fmt.Errorf("the instance offers no %s compression, which the config asks for", s.Compression)
		}
		answer.Capabilities |= asked
		answer.ZstdLevel = zstdLevel
	}
	if want.Schema != "" {
		answer.Capabilities |= mysql.ConnectWithDatabase & g.Capabilities
		answer.Database = []byte(want.Schema)
	}
	if s.TLS != nil {
		if !g.Capabilities.Has(mysql.TLS) {
			return errors.New("the instance offers no TLS, which the config asks for")
		}
		answer.Capabilities |= mysql.TLS
		if err := c.WriteMessage(seq, answer.AppendTLSRequest); err != nil {
			return err
		}
		seq++
		if err := c.AskTLS(s.TLS); err != nil {
			return err
		}
	}
	c.Capabilities = answer.Capabilities

	a := authentication{conn: c, password: s.Password, secure: s.TLS != nil, plugin: g.Plugin, nonce: g.Nonce[:]}
	if a.plugin != mysql.CachingSHA2 {
		// An unknown plugin is answered as the oldest one: the server then asks for a switch.
		a.plugin = mysql.NativePassword
	}
	first, err := a.first()
	if err != nil {
		return err
	}
	answer.Auth, answer.Plugin = first, []byte(a.plugin)
	if err := c.WriteMessage(seq, answer.AppendTo); err != nil {
		return err
	}
	if err := a.finish(seq + 1); err != nil {
		return err
	}
	c.Compress(s.Compression, true)
	return nil
}

// zstdLevel is the level at which an instance is asked to compress: MySQL's default.
const zstdLevel = 3

// refusal is the error of an ERR packet.
func refusal(payload []byte) error {
	e := new(mysql.Error)
	if err := e.Decode(payload); err != nil {
		return err
	}
	return fmt.Errorf("the instance refused: %w", e)
}
