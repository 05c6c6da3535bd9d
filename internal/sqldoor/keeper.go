package sqldoor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// keeper tells a group's instances their roles: it feeds package group with what checks and sessions have seen, and assigns what follows to
// the endpoints. All generations of a database share it, so a reload in the middle of a failover forgets nothing. A database with a single
// instance has one too, which does nothing.
type keeper struct {
	turns   atomic.Uint64 // counts the generations that were compiled
	waiting atomic.Int64  // statements that wait for a primary

	failovers atomic.Uint64 // changes of the primary
	conflicts atomic.Uint64 // times that two instances became writable
	waited    atomic.Uint64 // statements that had to wait
	inVain    atomic.Uint64 // of these, and of those for which there was no room: those that got no primary
	went      [destinationCount]atomic.Uint64

	veiled atomic.Bool // a replica has refused what reads by its text, because it writes: there is a view that does so by a function

	decision atomic.Pointer[group.Decision] // the last one; nil before the first

	mu     sync.Mutex // guards all below; nothing is locked under it but what Endpoint.Assign and Check do
	owner  *database  // of the newest generation that checks
	group  *group.Group
	blind  map[string]bool // instances whose replication status may not be seen: that is said once
	mighty map[string]bool // instances on which the login may write though they are read-only: that is said once
	reason string          // that was logged last for having no primary
}

func newKeeper() any { return &keeper{blind: map[string]bool{}, mighty: map[string]bool{}} }

// check is the active check of an instance.
func (d *database) check(ctx context.Context, address string) error {
	in := d.at(address)
	in.pool.SetLimits(d.limits)
	in.pool.Tidy()
	defer in.pool.Warm(ctx, address, in.settings)
	if len(d.instances) == 1 {
		if in.endpoint.Standing() != single {
			in.endpoint.Assign(single) // it may have been something else in a group; and if it gets replicas, it goes on until a first decision
		}
		return backend.Probe(ctx, address, in.settings, &in.pool.Facts)
	}
	o := in.observer.Observe(ctx, address, in.settings, &in.pool.Facts)
	if errors.Is(o.Err, context.Canceled) {
		return o.Err // it was told to stop
	}
	if o.Err != nil {
		in.pool.SetReached(nil) // it may come back as another one
	}
	d.keeper.observe(d, address, o)
	return o.Err
}

// single is the standing of the only instance of a database.
var single = upstream.Standing{Class: classPrimary, Role: string(group.Primary)}

// observe takes what was seen of an instance, and assigns the roles that follow.
func (k *keeper) observe(d *database, address string, o group.Observation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owner == nil || d.turn > k.owner.turn {
		k.owner = d
		set := group.Settings{MaxLag: d.maxLag}
		for _, in := range d.instances {
			set.Members = append(set.Members, in.address)
		}
		if k.group == nil {
			k.group = group.New(set)
		} else {
			k.group.Configure(set)
		}
	}
	if mighty := d.at(address).observer.Overrides(); mighty != k.mighty[address] {
		if k.mighty[address] = mighty; mighty {
			k.owner.set.Log().Warn("the login may write although an instance is read-only, so a write that reaches an old primary is lost (revoke READ ONLY ADMIN, in MySQL CONNECTION_ADMIN and SUPER)", "instance", address)
		}
	}
	k.group.Observe(address, o)
	decision := k.group.Decide(time.Now())
	before := k.decision.Swap(&decision)
	k.report(before, &decision)
	for i, v := range decision.Instances {
		k.owner.instances[i].endpoint.Assign(standing(v))
	}
	for _, again := range decision.Recheck {
		k.owner.at(again).endpoint.Check()
	}
}

// standing is a verdict in the words of package upstream.
func standing(v group.Verdict) upstream.Standing {
	s := upstream.Standing{Role: string(v.Role), Reason: v.Reason, Lag: v.Lag, LagKnown: v.LagKnown}
	switch {
	case v.Role == group.Primary:
		s.Class = classPrimary
	case v.Reads:
		s.Class = classReplica
	case v.Former:
		s.Class = classFormer
	}
	return s
}

// report counts and logs what changed. k.mu is held.
func (k *keeper) report(before, now *group.Decision) {
	log := k.owner.set.Log()
	if before == nil {
		before = &group.Decision{}
	}
	switch {
	case now.State == group.Ready && now.Took != "":
		k.failovers.Add(1)
		log.Warn("another instance is the primary", "instance", now.Primary, "before", now.Took, "silently", now.Silently)
	case now.State == group.Ready && before.State != group.Ready:
		log.Info("an instance is the primary", "instance", now.Primary)
	case now.State == group.Split && before.State != group.Split:
		k.conflicts.Add(1)
		log.Error("TWO INSTANCES ARE WRITABLE: writes are refused", "reason", now.Reason)
	case now.State == group.Headless && (before.State != group.Headless || k.reason != now.Reason):
		log.Warn("no instance takes writes", "reason", now.Reason)
	}
	k.reason = now.Reason
	was := make(map[string]group.Verdict, len(before.Instances))
	for _, v := range before.Instances {
		was[v.Address] = v
	}
	for _, v := range now.Instances {
		if old := was[v.Address]; old.Reads != v.Reads {
			words, level := "a replica takes reads", slog.LevelInfo
			if !v.Reads {
				words = "a replica takes no more reads"
				if v.Role != group.Primary {
					level = slog.LevelWarn
				}
			}
			log.Log(context.Background(), level, words, "instance", v.Address, "role", string(v.Role), "reason", v.Reason)
		}
		blind := errors.Is(v.Blind, backend.ErrMayNotSee)
		if blind && !k.blind[v.Address] {
			log.Warn("the login may not see the replication status, so lag is known from positions at best (grant REPLICA MONITOR, or REPLICATION CLIENT in MySQL)", "instance", v.Address, "error", v.Blind)
		}
		k.blind[v.Address] = blind || k.blind[v.Address] && v.Role == group.Unreachable
	}
}

// decided says that all instances of the group have been asked at least once.
func (k *keeper) decided() bool {
	decision := k.decision.Load()
	return decision != nil && decision.State != group.Starting
}

// why says why there is no primary.
func (k *keeper) why(d *database) error {
	decision := k.decision.Load()
	if decision == nil {
		decision = &group.Decision{Reason: "not every instance was asked yet"}
	}
	f := &fault.Fault{Kind: fault.NoEndpoint, Unsent: true, Public: "no instance takes writes",
		Cause: fmt.Errorf("%w: database %s: %s: %s", errNoPrimary, d.name, decision.State, decision.Reason)}
	if decision.State == group.Split {
		f.Public = "more than one instance is writable"
		f.Cause = fmt.Errorf("%w: database %s: %s", errTwoPrimaries, d.name, decision.Reason)
	}
	return f
}

// Causes of having no primary.
var (
	errTwoPrimaries = errors.New("two instances are writable")
	errNoPrimary    = errors.New("no primary")
	errQueueFull    = errors.New("failover_queue is full")
)

// stranded says that the connection leads to an instance that was replaced as the primary and does not answer: whatever it is about to say must not
// be waited for.
func (k *keeper) stranded(in *instance) bool {
	decision := k.decision.Load()
	if decision == nil || decision.State != group.Ready || decision.Primary == in.address {
		return false
	}
	for _, v := range decision.Instances {
		if v.Address == in.address {
			return v.Role == group.Unreachable || v.Role == group.Writable
		}
	}
	return true // it has left the config
}

// groups gives the state of the groups with replicas, by the database's name.
func (d *Door) groups() (all []observe.SQLGroup) {
	tables := d.o.Tables()
	if tables == nil {
		return nil
	}
	for _, name := range tables.names {
		db := tables.databases[name]
		if len(db.instances) == 1 {
			continue
		}
		k := db.keeper
		g := observe.SQLGroup{
			Database: name, Failovers: k.failovers.Load(), Conflicts: k.conflicts.Load(),
			Waiting: int(k.waiting.Load()), Waits: k.waited.Load(), Timeouts: k.inVain.Load(),
		}
		if decision := k.decision.Load(); decision != nil {
			g.Primary, g.Conflict = decision.State == group.Ready, decision.State == group.Split
			for _, v := range decision.Instances {
				g.Instances = append(g.Instances, observe.SQLInstance{Instance: v.Address, Role: string(v.Role), Reads: v.Reads || v.Role == group.Primary, Lag: v.Lag, LagKnown: v.LagKnown})
			}
		}
		all = append(all, g)
	}
	return all
}
