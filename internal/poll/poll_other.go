//go:build !linux

package poll

import (
	"net"
	"time"
)

const rawSupported = false

func (c *Conn) tryRead(uintptr) bool  { return true }
func (c *Conn) tryWait(uintptr) bool  { return true }
func (c *Conn) tryWrite(uintptr) bool { return true }
func (c *Conn) tryAsk(uintptr) bool   { return true }
func (c *Conn) tryTake(uintptr) bool  { return true }

// stillSilent cannot be asked here, and is taken to be so.
func (c *Conn) stillSilent() bool { return true }

func (c *Conn) shutdown() bool  { return false }
func (c *Conn) tryLook(uintptr) {}

// Adopt is New here.
func Adopt(c net.Conn) *Conn { return New(c) }

// Serve resumes servers, each in a goroutine.
func Serve(all []Server) {
	for _, s := range all {
		go s.Resume() // ends when the server says so
	}
}

// Start resumes a server in a goroutine.
func Start(s Server) { go s.Resume() } // ends when the server says so

// Busy is for the own poller, which does not exist here.
func Busy() bool { return false }

// socket is of the own poller, which does not exist here.
type socket struct {
	net.Conn
	bounded  Instant
	fresh    bool
	patience time.Duration
	server   Server
	hasty    bool
	seep     seep
}

func (*socket) arm(Instant)                         {}
func (*socket) interrupt()                          {}
func (*socket) recent() Instant                     { return Now() }
func (*socket) uninterrupt()                        {}
func (*socket) await() error                        { return nil }
func (*socket) detach() bool                        { return false }
func (*socket) ask([]byte, Room) (int, bool, error) { return 0, false, nil }
func (*socket) run(Handler) error                   { return nil }
func (*socket) shutdownBoth() error                 { return nil }
func (*socket) alive(bool) bool                     { return true }
