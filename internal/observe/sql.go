package observe

import (
	"net/netip"
	"time"
)

// This file is what the SQL door tells of itself, to those that must not know the door: metrics and the admin API.

// DigestStatus is one digest: all statements of a database with one normalised text.
type DigestStatus struct {
	ID       string // 16 hexadecimal digits of the text's fingerprint; "" for Other
	Database string // "" for statements outside of any database
	Text     string // normalised: without literals; Other for all that have no digest of their own
	First    time.Time
	ExecutionSum
}

// SQLPool is the connections to an instance, or those to all instances of a database together.
type SQLPool struct {
	Database            string
	Instance            string // address; "" for all together
	Open, Idle, Waiting int
	Max, MinIdle        int    // as configured; Max 0 is no bound
	Waits, Timeouts     uint64 // ever
}

// SQLSplit counts the statements of a database with replicas by where they went.
type SQLSplit struct {
	Database   string
	To         string // "replica", or why the primary: one of a fixed set of words
	Statements uint64
}

// SQLGroup is the instances of a database with replicas.
type SQLGroup struct {
	Database  string
	Primary   bool // one takes writes
	Conflict  bool // more than one is writable, so none gets any
	Failovers uint64
	Conflicts uint64 // ever
	Waiting   int    // statements that wait for a primary
	Waits     uint64 // ever
	Timeouts  uint64 // of these, and of those for which there was no room: those that got no primary
	Instances []SQLInstance
}

// SQLInstance is one instance of a group.
type SQLInstance struct {
	Instance string // address
	Role     string // one of a fixed set of words
	Reads    bool   // a replica in rotation, or the primary
	Lag      time.Duration
	LagKnown bool
}

// SQLSession is a session of a client that has signed in.
type SQLSession struct {
	ID        uint32
	Listener  string
	Consumer  string
	Address   netip.Addr
	Program   string        // what the client calls itself; "" when it does not
	Database  string        // "" for none
	Command   string        // that runs; "" between statements
	Running   time.Duration // since it began
	Statement string        // that runs, without literals; "" when it has no text
	Instance  string        // address of the instance to which it has a connection now; "" without one
	Pins      []SQLPin      // why it keeps that between statements
}

// SQLPin is a reason why a session keeps its connection, and for how long it has been there.
type SQLPin struct {
	Reason string
	Age    time.Duration
}
