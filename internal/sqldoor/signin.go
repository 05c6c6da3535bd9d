package sqldoor

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
)

// signInMax bounds each message before the client is known. MySQL allows 64 KiB of connection attributes.
const signInMax = 72 << 10

// announced is the plugin that the greeting's nonce is meant for. Clients that prefer another one are asked again with it.
const announced = mysql.CachingSHA2

// rsaKey is the key pair for passwords without TLS. It is made when the first client asks for it.
type rsaKey struct {
	once sync.Once
	key  *rsa.PrivateKey
	err  error
}

func (k *rsaKey) get() (*rsa.PrivateKey, error) {
	k.once.Do(func() { k.key, k.err = rsa.GenerateKey(rand.Reader, 2048) })
	return k.key, k.err
}

// signIn greets the client and lets it in: TLS if it wants, password, database. It says whether there is a session.
func (s *session) signIn() bool {
	if refused := s.blocked(); refused != nil {
		s.decline(*refused)
		return false
	}
	l := s.site
	begun := poll.Now()
	s.client.ReadBefore(begun.Add(time.Duration(l.timeouts.RequestHeader)))
	s.client.WritePatience(time.Duration(l.timeouts.Write))

	nonce, err := mysql.NewNonce(rand.Reader)
	if err != nil {
		s.door.o.Log.Error("greet an SQL client", "error", err)
		return false
	}
	version, offered := s.tables.greeting(l)
	g := mysql.Greeting{Version: version, ConnectionID: s.id, Nonce: nonce, Capabilities: offered, Collation: 45, Status: mysql.Autocommit, Plugin: announced}
	if s.door.o.TLS != nil {
		if config := s.door.o.TLS(s.Listener.Name); config != nil {
			g.Capabilities |= mysql.TLS
		}
	}
	if s.client.WriteMessage(0, g.AppendTo) != nil {
		return false
	}
	payload, seq, err := s.client.ReadMessage(1, signInMax)
	if err != nil {
		return s.strange(err)
	}
	if mysql.IsTLSRequest(payload) {
		if !g.Capabilities.Has(mysql.TLS) {
			return s.turnAway(seq, errorHandshake)
		}
		if err := s.client.ServeTLS(s.door.o.TLS(s.Listener.Name)); err != nil {
			return s.strange(err)
		}
		if payload, seq, err = s.client.ReadMessage(seq, signInMax); err != nil {
			return s.strange(err)
		}
	}
	var in mysql.SignIn
	if err := in.Decode(payload); err != nil {
		s.strange(err)
		return s.turnAway(seq, errorHandshake)
	}
	if _, secure := s.client.TLS(); in.Capabilities.Has(mysql.TLS) != secure {
		return s.turnAway(seq, errorHandshake)
	}
	if !in.Capabilities.Has(mysql.TLS) && g.Capabilities.Has(mysql.TLS) && tlsconfig.RequiresClient(s.door.o.TLS(s.Listener.Name)) {
		return s.turnAway(seq, errorInsecure)
	}
	s.capabilities = in.Capabilities & (offered | mysql.TLS)
	s.collation, s.translated = in.Collation, translates(in.Attributes)
	s.status = mysql.Autocommit

	s.nonce = nonce
	a := admission{s: s, user: string(in.User), plugin: string(in.Plugin), proof: in.Auth, nonce: nonce[:], seq: seq}
	if refused := a.check(); refused != nil {
		s.recordSignIn(begun, a.user, string(in.Database), refused)
		return s.turnAway(a.seq, *refused)
	}
	if a.gone {
		return false
	}
	database := string(in.Database)
	if database == "" {
		database = l.defaultDatabase
	}
	if refused := s.enter(a.consumer, database, programOf(in.Attributes)); refused != nil {
		s.recordSignIn(begun, a.user, database, refused)
		return s.turnAway(a.seq, *refused)
	}
	if s.Listener.Retired() {
		return s.turnAway(a.seq, errorShutdown)
	}
	if !s.sendChosen(a.seq) {
		return false
	}
	s.client.Compress(mysql.CompressionOf(s.capabilities), false)
	return true
}

// enter makes the session the consumer's, in a database ("" for none), and connects to its instance: a client should
// learn when it signs in that its database is not there.
func (s *session) enter(c *identity.Consumer, database, program string) *mysql.Error {
	if refused := s.admit(c); refused != nil {
		s.st.fault = fault.Limited.String()
		return refused
	}
	s.consumer, s.database = c, database
	s.showAs(program)
	s.traces.own(0)
	if database == "" {
		return nil
	}
	if s.waiting.Load() == 0 { // a sign-in, and no change of user: the watcher notices from now on that the client has left
		s.waiting.Store(int64(poll.Now()))
		defer s.waiting.Store(0)
	}
	if err := s.ensure(); err != nil {
		if s.stoppedBy() == errEnded {
			err = fault.Wrap(s.shutBy(fault.Draining), "the session was ended", err)
		}
		s.logFault("connect an SQL session", err)
		var answered *mysql.Error
		if !errors.As(err, &answered) {
			s.st.fault = fault.Of(err).Kind.String()
		}
		e := errorOf(err, database)
		return &e
	}
	s.settle(true)
	return nil
}

// strange notes that a client broke off or spoke nonsense before it was known; always false.
func (s *session) strange(err error) bool {
	s.door.o.Log.Debug("SQL sign-in broken off", "client", s.Peer, "error", err)
	return false
}

// turnAway sends an error; always false.
func (s *session) turnAway(seq uint8, e mysql.Error) bool {
	_ = s.client.WriteMessage(seq, s.legible(e).AppendTo)
	return false
}

// sendChosen is sendOK after a database was chosen, which those who track the session's state are told as the instance would, but by the name by which
// they can choose it again.
func (s *session) sendChosen(seq uint8) bool {
	ok := mysql.OK{Status: s.ownStatus()}
	if s.database != "" && s.capabilities.Has(mysql.SessionTrack) {
		if s.vars == nil || s.vars.Value("session_track_schema") != "0" {
			ok.Changes = mysql.AppendSchemaChange(ok.Changes, s.database)
		}
		if s.vars != nil && s.vars.Value("session_track_state_change") == "1" {
			ok.Changes = mysql.AppendStateChange(ok.Changes)
		}
	}
	return s.client.WriteMessage(seq, func(dst []byte) []byte { return ok.AppendTo(dst, s.capabilities) }) == nil
}

// sendOK sends an OK with the session's status.
func (s *session) sendOK(seq uint8) bool {
	ok := mysql.OK{Status: s.ownStatus()}
	s.traces.own(0)
	return s.client.WriteMessage(seq, func(dst []byte) []byte { return ok.AppendTo(dst, s.capabilities) }) == nil
}

// admission is the question whether a client is who it says.
type admission struct {
	s      *session
	user   string
	plugin string // "" for a client that knows none
	proof  []byte
	nonce  []byte
	again  bool  // a change of user: the greeting's nonce is used up
	seq    uint8 // of our next packet

	consumer *identity.Consumer // after success
	gone     bool               // the client broke off
}

// check gives nil and sets consumer, or gives the error to send; with gone set there is nobody to send it to. For a user
// that does not exist the same steps are done as for one that does.
func (a *admission) check() *mysql.Error {
	s := a.s
	_, secure := s.client.TLS()
	consumer, _ := s.tables.directory.MySQL(a.user)
	switch {
	case !s.capabilities.Has(mysql.SecureConnection):
		s.st.fault = fault.Unauthenticated.String()
		return &errorPlugins
	case !s.capabilities.Has(mysql.PluginAuth):
		a.plugin = mysql.NativePassword
	case a.again && a.plugin == mysql.NativePassword && len(a.proof) > 1 && consumer.VerifyNative(s.nonce[:], a.proof):
		// libmariadb proves itself over the connection's last nonce, as MariaDB lets it, and takes no notice of another one.
		a.consumer = consumer
		return nil
	case a.plugin != announced || a.again:
		if a.plugin != mysql.CachingSHA2 && (a.plugin != mysql.ClearPassword || !secure) {
			a.plugin = mysql.NativePassword
		}
		if !a.change() {
			return nil
		}
	}
	proven := false
	switch a.plugin {
	case mysql.NativePassword:
		proven = consumer.VerifyNative(a.nonce, a.proof)
	case mysql.ClearPassword:
		proven = consumer.VerifyPassword(bytes.TrimSuffix(a.proof, []byte{0}))
	case mysql.CachingSHA2:
		if s.door.full && len(a.proof) > 1 {
			password, ok := a.askPassword(secure)
			if a.gone {
				return nil
			}
			proven = ok && consumer.VerifyPassword(bytes.TrimSuffix(password, []byte{0}))
		} else if proven = consumer.VerifySHA2(a.nonce, a.proof); proven {
			if !a.say(mysql.SHA2FastDone) {
				return nil
			}
		}
	}
	if !proven {
		s.guessed()
		s.st.fault = fault.Unauthenticated.String()
		empty := len(a.proof) == 0 || len(a.proof) == 1 && a.proof[0] == 0
		e := errorDenied(printable(a.user), s.Peer.String(), !empty)
		return &e
	}
	a.consumer = consumer
	return nil
}

// change asks the client to prove itself with a.plugin, over a new nonce.
func (a *admission) change() bool {
	nonce, err := mysql.NewNonce(rand.Reader)
	if err != nil {
		a.gone = true
		return false
	}
	a.s.nonce, a.nonce = nonce, nonce[:]
	change := mysql.AuthSwitch{Plugin: a.plugin, Nonce: a.nonce}
	if a.s.client.WriteMessage(a.seq, change.AppendTo) != nil {
		a.gone = true
		return false
	}
	a.seq++
	return a.read(&a.proof)
}

func (a *admission) read(into *[]byte) bool {
	payload, seq, err := a.s.client.ReadMessage(a.seq, signInMax)
	if err != nil {
		a.s.strange(err)
		a.gone = true
		return false
	}
	*into, a.seq = payload, seq
	return true
}

func (a *admission) say(b byte) bool {
	a.gone = a.s.client.WriteMessage(a.seq, func(dst []byte) []byte { return mysql.AppendAuthMore(dst, []byte{b}) }) != nil
	a.seq++
	return !a.gone
}

// askPassword has the client hand over the password itself: as it is inside TLS, else under our RSA key.
func (a *admission) askPassword(secure bool) (password []byte, ok bool) {
	if !a.say(mysql.SHA2Full) || !a.read(&password) {
		return nil, false
	}
	if secure {
		return password, true
	}
	key, err := a.s.door.key.get()
	if err != nil {
		a.s.door.o.Log.Error("make RSA key", "error", err)
		return nil, false
	}
	if len(password) == 1 && password[0] == mysql.SHA2PublicKey {
		err := a.s.client.WriteMessage(a.seq, func(dst []byte) []byte {
			dst, _ = mysql.AppendPublicKey(dst, &key.PublicKey)
			return dst
		})
		a.seq++
		if err != nil {
			a.gone = true
			return nil, false
		}
		if !a.read(&password) {
			return nil, false
		}
	}
	password, err = mysql.DecryptPassword(key, password, a.nonce)
	return password, err == nil
}

// programMax is as much of a program's name as is kept.
const programMax = 64

// programOf is the name under which a client introduces itself: program_name as its programmer says, else the library's.
func programOf(attributes []byte) string {
	for _, name := range [...]string{"program_name", "_client_name"} {
		if v, ok := mysql.Attribute(attributes, name); ok && len(v) > 0 {
			return printable(strings.ToValidUTF8(string(v[:min(len(v), programMax)]), "\uFFFD"))
		}
	}
	return ""
}

// printable is a user name for an error message: bounded, and without control characters.
func printable(name string) string {
	b := []byte(name[:min(len(name), 80)])
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
