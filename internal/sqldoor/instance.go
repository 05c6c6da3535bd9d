package sqldoor

import (
	"errors"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Classes of instances, as package upstream knows them. The keeper assigns them after each check; an instance whose role is
// not certain has none.
const (
	classPrimary upstream.Class = 1 << iota // takes writes
	classReplica                            // takes reads: it replicates from the primary and is fresh enough
	classFormer                             // was the primary and may be read, but two instances are writable: no writes
)

// instance is one server of a database's group, as one generation of the config has it. It is never changed.
type instance struct {
	address  string
	home     string // stands for instance and login: a connection is good for every database with the same
	pool     *backend.Pool
	settings *backend.Settings
	endpoint *upstream.Endpoint
	observer *backend.Observer // asks it for its role, in a group
	keeper   *keeper
}

// holding is what lives as long as an instance's endpoint.
type holding struct {
	backend.Pool
	observer backend.Observer
}

// Close closes the connections.
func (h *holding) Close() error {
	err := h.Pool.Close()
	h.observer.Close()
	return err
}

// primary leases the instance that takes writes, and for which a statement is that must not read anything old. A database with a single
// instance has it for its primary whatever that says about itself: what is read-only refuses writes in its own words.
//
// In a group there may be none for a while. Then primary waits until the moment until (0: not at all), or until stop is closed; at most
// config.Database.FailoverQueue callers wait at once. Nothing of the caller's statement may have been sent before. The lease is for one
// connection: between primary and the moment when a statement is sent the instance may lose its role (see link.deposed).
//
// The error is a *fault.Fault, or one of errors.go that says why there is no primary.
func (d *database) primary(stop <-chan struct{}, until poll.Instant) (*instance, upstream.Lease, error) {
	if len(d.instances) == 1 {
		lease, err := d.set.Pick(upstream.Request{})
		return d.instances[0], lease, err
	}
	lease, err := d.set.Pick(upstream.Request{Class: classPrimary})
	if err == nil {
		return d.of(lease.Endpoint), lease, nil
	}
	return d.awaitPrimary(stop, until)
}

// awaitPrimary is primary when there was none.
func (d *database) awaitPrimary(stop <-chan struct{}, until poll.Instant) (*instance, upstream.Lease, error) {
	var timeout <-chan time.Time
	for {
		changed := d.set.Watch()
		lease, err := d.set.Pick(upstream.Request{Class: classPrimary})
		if err == nil {
			return d.of(lease.Endpoint), lease, nil
		}
		if fault.Of(err).Kind != fault.NoEndpoint {
			return nil, lease, err
		}
		why := d.keeper.why(d)
		left := until.Sub(poll.Now())
		switch {
		case until == 0, left <= 0, errors.Is(why, errTwoPrimaries):
			if timeout != nil {
				d.keeper.inVain.Add(1)
			}
			return nil, lease, why
		case d.instances[0].endpoint.Retired():
			// A reload changed the login or TLS meanwhile: these instances are asked no more.
			return nil, lease, &fault.Fault{Kind: fault.Draining, Public: "the configuration has changed: try again", Cause: why, Unsent: true}
		case timeout == nil:
			if d.keeper.waiting.Add(1) > int64(d.queue) {
				d.keeper.waiting.Add(-1)
				d.keeper.inVain.Add(1)
				return nil, lease, &fault.Fault{Kind: fault.Limited, Public: "too many statements wait for a primary", Cause: errors.Join(errQueueFull, why), Unsent: true}
			}
			d.keeper.waited.Add(1)
			defer d.keeper.waiting.Add(-1)
			timer := time.NewTimer(left)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			d.keeper.inVain.Add(1)
			return nil, lease, d.keeper.why(d)
		case <-stop:
			return nil, lease, fault.New(fault.Draining, "the session was ended")
		}
	}
}

// firstChecks is how long the first checks of a group may take: whatever failover_wait is, statements wait for them.
const firstChecks = 2 * time.Second

// patience is until when a statement that began at a moment may wait for a primary; 0: it may not.
func (d *database) patience(begun poll.Instant) poll.Instant {
	wait := d.failoverWait
	if len(d.instances) > 1 && !d.keeper.decided() {
		wait = max(wait, firstChecks)
	}
	if wait <= 0 {
		return 0
	}
	if begun == 0 {
		begun = poll.Now()
	}
	return begun.Add(wait)
}

// replica leases an instance for a read, as read_from says: by the balancer among the replicas in rotation (fresh and following the primary), or
// with nearest among these and the primary. It never waits. ok is false when there is none, or when read_from is primary: then the read goes to the
// primary. exclude, which may be nil, is an endpoint that was tried already.
func (d *database) replica(exclude *upstream.Endpoint) (in *instance, lease upstream.Lease, ok bool) {
	classes := classReplica
	switch d.readFrom {
	case readPrimary:
		return nil, lease, false
	case readNearest:
		classes |= classPrimary
	}
	if len(d.instances) == 1 {
		return nil, lease, false
	}
	lease, err := d.set.Pick(upstream.Request{Class: classes, Exclude: exclude})
	if err == nil && lease.Endpoint == exclude {
		lease.Done(upstream.Outcome{Ignored: true})
		return nil, upstream.Lease{}, false
	}
	if err != nil {
		return nil, lease, false
	}
	return d.of(lease.Endpoint), lease, true
}

// reader leases an instance for a read while there is no primary: a replica in rotation, or the last primary if two instances are writable. It is
// for reads that would otherwise fail, whatever read_from is. It never waits; ok is false when there is none.
func (d *database) reader() (in *instance, lease upstream.Lease, ok bool) {
	if len(d.instances) == 1 {
		return nil, lease, false
	}
	lease, err := d.set.Pick(upstream.Request{Class: classReplica | classFormer})
	if err != nil {
		return nil, lease, false
	}
	return d.of(lease.Endpoint), lease, true
}

// at gives the instance with an address that the database has.
func (d *database) at(address string) *instance {
	for _, in := range d.instances {
		if in.address == address {
			return in
		}
	}
	panic("BUG: no instance of its database: " + address)
}

// of gives the instance of an endpoint of the database's set.
func (d *database) of(e *upstream.Endpoint) *instance {
	for _, in := range d.instances {
		if in.endpoint == e {
			return in
		}
	}
	panic("BUG: an endpoint that is no instance of its database")
}

// still says that an instance has one of the roles now. It costs one atomic load.
func (d *database) still(in *instance, roles upstream.Class) bool {
	return len(d.instances) == 1 || in.endpoint.Class()&roles != 0
}

// has says whether a connection to home may be used for the database.
func (d *database) has(home string) bool {
	for _, in := range d.instances {
		if in.home == home {
			return true
		}
	}
	return false
}

// deposed says that the connection was taken from the primary, which is that no more: nothing may be written through it. Until a new group has decided for
// the first time, its primary is what it was as the only instance.
func (l *link) deposed(d *database) bool {
	return l.role == classPrimary && !d.still(l.in, classPrimary) && d.has(l.home) && d.keeper.decided()
}

// dethroned takes the connection to what was the primary from the session. A transaction is over: the instance rolls it back. With other state on the connection
// the session is over too. Without an error the statement goes on, to the new primary.
func (s *session) dethroned() error {
	lost := s.inTransaction()
	others := s.pins.set&^(1<<pinTransaction) != 0
	s.unlink(upstream.Outcome{Ignored: true})
	switch {
	case others:
		return errors.Join(&errorMoved, errEnd)
	case lost:
		return &errorDethroned
	}
	return nil
}

// failedToConnect has an instance checked that a session could not connect to, so that the group need not wait for the next check to notice. It says whether it is worth to ask
// primary or replica again: not when the trouble may be our own, or has taken its time already.
func (d *database) failedToConnect(in *instance, err error) bool {
	if len(d.instances) == 1 {
		return false
	}
	in.endpoint.Check()
	return backend.Gone(err)
}

// pause waits, after failedToConnect, for the change that the check will bring, or for a moment: perhaps it came already, or there is none. It says
// false when there is no time left.
func (d *database) pause(stop <-chan struct{}, until poll.Instant) bool {
	left := until.Sub(poll.Now())
	if until == 0 || left <= 0 {
		return false
	}
	timer := time.NewTimer(min(left, d.interval/4))
	defer timer.Stop()
	select {
	case <-d.set.Watch():
	case <-timer.C:
	case <-stop:
		return false
	}
	return true
}

// refusedWrite has the instance's role checked at once: it was the primary, and has refused a write because it is read-only.
func (l *link) refusedWrite() {
	if l.role == classPrimary {
		l.in.endpoint.Check()
	}
}

// readOnly says that an error means that an instance is read-only: --read-only and --super-read-only, or MySQL's read-only mode.
func readOnly(code uint16) bool { return code == 1290 || code == 1836 }
