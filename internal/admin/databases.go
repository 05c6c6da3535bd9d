package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// SQL is what the API needs from the SQL door. All methods may be called by many goroutines.
type SQL interface {
	// OpenSessions gives the sessions of clients that have signed in, at most a number of them, and how many there are.
	OpenSessions(most int) (some []observe.SQLSession, total int)
	// Pools gives the state of the pool of each instance, in the order of databases and instances.
	Pools() []observe.SQLPool
	// Digests gives the statistics of the statements that are in, the ones that took most time first.
	Digests(in func(database, text string) bool) []observe.DigestStatus
	// ResetDigests forgets them.
	ResetDigests()
}

// The bounds of what is listed.
const (
	sessionsMax     = 10000
	sessionsDefault = 1000
	digestsMax      = 10000
	digestsDefault  = 100
)

// databaseView is one database in GET /api/v1/databases.
type databaseView struct {
	Name   string      `json:"name"`
	Shards []shardView `json:"shards"`
	Pins   []pinView   `json:"pins"` // why its sessions keep their connections
}

type shardView struct {
	Name     string         `json:"name"`
	Schema   string         `json:"schema"`
	Primary  *instanceView  `json:"primary"`
	Replicas []instanceView `json:"replicas,omitempty"`
}

// instanceView is one instance of a database.
type instanceView struct {
	endpointView
	Role  string    `json:"role,omitempty"` // as its last check found it
	LagMS *float64  `json:"lag_ms,omitempty"`
	Pool  *poolView `json:"pool,omitempty"` // nil when it is not in service
}

// poolView is the connections to one instance.
type poolView struct {
	Open    int    `json:"open"`
	Used    int    `json:"used"`
	Idle    int    `json:"idle"`
	Waiting int    `json:"waiting"` // statements that wait for a connection
	Max     int    `json:"max_connections"`
	MinIdle int    `json:"min_idle"`
	Waits   uint64 `json:"waits"`    // statements that ever had to wait
	Late    uint64 `json:"timeouts"` // of these, in vain
}

// pinView is one reason to keep a connection.
type pinView struct {
	Reason        string  `json:"reason"`
	Sessions      int     `json:"sessions"`
	OldestSeconds float64 `json:"oldest_seconds"`
}

// databases lists every database with the state of its instances.
func (a *api) databases(w http.ResponseWriter, _ *http.Request) {
	now := a.gateway.Current()
	sets, door := a.gateway.Upstreams(), a.gateway.Databases()
	pools := make(map[[2]string]observe.SQLPool)
	for _, p := range door.Pools() {
		pools[[2]string{p.Database, p.Instance}] = p
	}
	pins := pinsOf(door)
	views := make(map[string]databaseView)
	for name, d := range now.Config.Databases {
		instances := make(map[string]upstream.EndpointStatus)
		for _, s := range sets {
			if s.Name == databasePrefix+name || strings.HasPrefix(s.Name, databasePrefix+name+".") {
				for _, e := range s.Endpoints {
					instances[e.Address] = e
				}
			}
		}
		view := func(address string) instanceView {
			v := instanceView{endpointView: endpointView{Address: address, Reason: "not in service"}}
			if e, found := instances[address]; found {
				v.endpointView, v.Role = viewEndpoint(e), e.Role
				if e.LagKnown {
					lag := float64(e.Lag.Microseconds()) / 1000
					v.LagMS = &lag
				}
			}
			if p, found := pools[[2]string{name, address}]; found {
				v.Pool = &poolView{p.Open, p.Open - p.Idle, p.Idle, p.Waiting, p.Max, p.MinIdle, p.Waits, p.Timeouts}
			}
			return v
		}
		shards := make(map[string]shardView, len(d.Shards))
		for shard, s := range d.Shards {
			primary := view(s.Primary)
			v := shardView{Name: shard, Schema: s.Schema, Primary: &primary}
			if v.Schema == "" {
				v.Schema = name
			}
			for _, address := range s.Replicas {
				v.Replicas = append(v.Replicas, view(address))
			}
			shards[shard] = v
		}
		views[name] = databaseView{Name: name, Shards: byName(shards), Pins: list(byName(pins[name]))}
	}
	answer(w, http.StatusOK, struct {
		Generation uint64         `json:"generation"`
		Databases  []databaseView `json:"databases"`
	}{now.Generation, byName(views)})
}

// pinsOf gives the pins of each database by reason.
func pinsOf(door SQL) map[string]map[string]pinView {
	all := make(map[string]map[string]pinView)
	sessions, _ := door.OpenSessions(math.MaxInt)
	for _, s := range sessions {
		for _, p := range s.Pins {
			reasons := all[s.Database]
			if reasons == nil {
				reasons = make(map[string]pinView)
				all[s.Database] = reasons
			}
			v := reasons[p.Reason]
			reasons[p.Reason] = pinView{p.Reason, v.Sessions + 1, max(v.OldestSeconds, p.Age.Seconds())}
		}
	}
	return all
}

// sessionView is one session in GET /api/v1/sessions.
type sessionView struct {
	ID             uint32           `json:"id"`
	Listener       string           `json:"listener"`
	Consumer       string           `json:"consumer"`
	ClientAddress  string           `json:"client_address"`
	Program        string           `json:"program,omitempty"` // what the client calls itself
	Database       string           `json:"database,omitempty"`
	Command        string           `json:"command,omitempty"` // that runs
	RunningSeconds float64          `json:"running_seconds,omitempty"`
	Statement      string           `json:"statement,omitempty"` // that runs, without literals
	Instance       string           `json:"instance,omitempty"`  // to which it has a connection now
	Pins           []sessionPinView `json:"pins"`
}

type sessionPinView struct {
	Reason  string  `json:"reason"`
	Seconds float64 `json:"seconds"`
}

// sessions lists the sessions of the SQL door, by number.
func (a *api) sessions(w http.ResponseWriter, r *http.Request) {
	limit, err := limitOf(r, sessionsDefault, sessionsMax)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	some, total := a.gateway.Databases().OpenSessions(limit)
	views := make([]sessionView, len(some))
	for i, s := range some {
		v := sessionView{ID: s.ID, Listener: s.Listener, Consumer: s.Consumer, Program: s.Program, Database: s.Database, Command: s.Command, RunningSeconds: s.Running.Seconds(), Statement: shorten(s.Statement),
			Instance: s.Instance, Pins: []sessionPinView{}}
		if s.Address.IsValid() {
			v.ClientAddress = s.Address.String()
		}
		for _, p := range s.Pins {
			v.Pins = append(v.Pins, sessionPinView{p.Reason, p.Age.Seconds()})
		}
		views[i] = v
	}
	answer(w, http.StatusOK, struct {
		Total    int           `json:"total"`
		Sessions []sessionView `json:"sessions"`
	}{total, views})
}

// digestView is one digest.
type digestView struct {
	Digest       string       `json:"digest,omitempty"`
	Text         string       `json:"text"`
	Length       int          `json:"length"` // of the whole text
	Count        uint64       `json:"count"`
	Errors       uint64       `json:"errors"`
	Rows         uint64       `json:"rows"`
	Affected     uint64       `json:"affected"`
	BytesIn      uint64       `json:"bytes_in"`
	BytesOut     uint64       `json:"bytes_out"`
	TotalSeconds float64      `json:"total_seconds"`
	MeanMS       float64      `json:"mean_ms"`
	P50MS        float64      `json:"p50_ms"`
	P95MS        float64      `json:"p95_ms"`
	P99MS        float64      `json:"p99_ms"`
	MaxMS        float64      `json:"max_ms"`
	FirstSeen    time.Time    `json:"first_seen"`
	LastSeen     time.Time    `json:"last_seen"`
	Histogram    []bucketView `json:"histogram"` // without empty buckets
}

// bucketView is the executions that took at most so long, and longer than the bucket before it says.
type bucketView struct {
	MostMS float64 `json:"most_ms,omitempty"` // absent: no bound
	Count  uint64  `json:"count"`
}

// digests lists the statistics of a database's statements.
func (a *api) digests(w http.ResponseWriter, r *http.Request) {
	limit, err := limitOf(r, digestsDefault, digestsMax)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	name := r.PathValue("name")
	all := a.gateway.Databases().Digests(func(database, _ string) bool { return database == name })
	if _, known := a.gateway.Current().Config.Databases[name]; !known && len(all) == 0 {
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no database %q", name))
		return
	}
	views := make([]digestView, 0, min(limit, len(all)))
	for i := range all[:min(limit, len(all))] {
		views = append(views, viewDigest(&all[i]))
	}
	answer(w, http.StatusOK, struct {
		Database string       `json:"database"`
		Total    int          `json:"total"`
		Digests  []digestView `json:"digests"`
	}{name, len(all), views})
}

func viewDigest(d *observe.DigestStatus) digestView {
	ms := func(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }
	v := digestView{
		Digest: d.ID, Text: shorten(d.Text), Length: len(d.Text), Count: d.Count, Errors: d.Errors, Rows: d.Rows, Affected: d.Affected, BytesIn: d.BytesIn, BytesOut: d.BytesOut,
		TotalSeconds: d.Total.Seconds(), MeanMS: ms(d.Mean()), P50MS: ms(d.Quantile(0.5)), P95MS: ms(d.Quantile(0.95)), P99MS: ms(d.Quantile(0.99)), MaxMS: ms(d.Longest),
		FirstSeen: d.First.UTC(), LastSeen: d.Last.UTC(), Histogram: []bucketView{},
	}
	for _, b := range d.Buckets() {
		if b.Count > 0 {
			v.Histogram = append(v.Histogram, bucketView{ms(b.Bound), b.Count})
		}
	}
	return v
}

// resetDigests forgets the statistics of statements, those of all databases.
func (a *api) resetDigests(w http.ResponseWriter, r *http.Request) {
	if err := onlyParameters(r); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	a.gateway.Databases().ResetDigests()
	a.log.Info("admin: digests reset", "from", r.RemoteAddr)
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// limitOf reads ?limit.
func limitOf(r *http.Request, otherwise, most int) (int, error) {
	if err := onlyParameters(r, "limit"); err != nil {
		return 0, err
	}
	values := r.URL.Query()["limit"]
	if len(values) == 0 {
		return otherwise, nil
	}
	n, err := strconv.Atoi(values[0])
	if len(values) > 1 || err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("limit=%q (a number from 0 to %d is accepted)", values[0], most)
	}
	return n, nil
}

// textMax is how much of a statement is shown.
const textMax = 4096

func shorten(text string) string {
	if len(text) <= textMax {
		return text
	}
	return strings.ToValidUTF8(text[:textMax], "") + "..."
}
