package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// endpointView is one endpoint of a service, or instance of a database.
type endpointView struct {
	Address   string            `json:"address"`
	Weight    int               `json:"weight"`
	Labels    map[string]string `json:"labels,omitempty"`
	Healthy   bool              `json:"healthy"`
	Reason    string            `json:"reason"` // why it is healthy or not, in words
	Since     time.Time         `json:"since"`
	Ejected   bool              `json:"ejected"` // out for a while because requests failed
	Active    int               `json:"active"`
	LatencyMS float64           `json:"latency_ms"` // moving average of the time to the first byte
	Requests  uint64            `json:"requests"`
	Failures  uint64            `json:"failures"`
	Ejections uint64            `json:"ejections"`
	Checks    uint64            `json:"checks"`
	LastCheck *time.Time        `json:"last_check,omitempty"`
}

func viewEndpoint(e upstream.EndpointStatus) endpointView {
	v := endpointView{
		Address: e.Address, Weight: e.Weight, Labels: e.Labels, Healthy: e.Healthy, Reason: e.Reason, Since: e.Since.UTC(),
		Ejected: e.Ejected, Active: e.Active, LatencyMS: float64(e.Latency.Microseconds()) / 1000, Requests: e.Requests, Failures: e.Failures,
		Ejections: e.Ejections, Checks: e.Checks,
	}
	if !e.LastCheck.IsZero() {
		at := e.LastCheck.UTC()
		v.LastCheck = &at
	}
	return v
}

// serviceView is one service in GET /api/v1/services.
type serviceView struct {
	Name      string         `json:"name"`
	Balance   string         `json:"balance"`
	Available int            `json:"available"` // endpoints in rotation
	Total     int            `json:"total"`     // endpoints with a weight
	Panic     bool           `json:"panic"`     // too few are available: health is ignored
	Counters  counters       `json:"counters"`
	Endpoints []endpointView `json:"endpoints"`
}

type counters struct {
	NoEndpoint      uint64 `json:"no_endpoint"` // requests that found none
	Limited         uint64 `json:"limited"`     // requests that found all at their bound of connections
	PanicPicks      uint64 `json:"panic_picks"` // requests sent while health was ignored
	RetriesAllowed  uint64 `json:"retries_allowed"`
	RetriesRejected uint64 `json:"retries_rejected"` // the budget was used up
}

// databasePrefix stands before the name of a set of instances, and no service has it: the SQL door names its sets
// databases.NAME or databases.NAME.SHARD.
const databasePrefix = "databases."

// services lists every service, also those that no route uses (which have no state: their endpoints are not listed).
func (a *api) services(w http.ResponseWriter, _ *http.Request) {
	now := a.gateway.Current()
	views := make(map[string]serviceView)
	for name, s := range now.Config.Services {
		views[name] = serviceView{Name: name, Balance: string(s.Balance.Algorithm), Endpoints: []endpointView{}}
	}
	for _, s := range a.gateway.Upstreams() {
		if _, service := views[s.Name]; !service && strings.HasPrefix(s.Name, databasePrefix) {
			continue
		}
		v := serviceView{
			Name: s.Name, Balance: string(s.Balance), Available: s.Available, Total: s.Total, Panic: s.Panic,
			Counters: counters{NoEndpoint: s.NoEndpoint, Limited: s.Limited, PanicPicks: s.PanicPicks,
				RetriesAllowed: s.RetriesAllowed, RetriesRejected: s.RetriesRejected},
			Endpoints: make([]endpointView, len(s.Endpoints)),
		}
		for i, e := range s.Endpoints {
			v.Endpoints[i] = viewEndpoint(e)
		}
		views[s.Name] = v
	}
	answer(w, http.StatusOK, struct {
		Generation uint64        `json:"generation"`
		Services   []serviceView `json:"services"`
	}{now.Generation, byName(views)})
}

// routes lists every route in the configuration's own words, with its name and the listeners that serve it. The words
// come from the export, because the compiled values may hold secrets that stood as references.
func (a *api) routes(w http.ResponseWriter, _ *http.Request) {
	now := a.gateway.Current()
	exported, err := yaml.YAMLToJSON(now.Config.Export(effective))
	var tree struct {
		Routes map[string]map[string]json.RawMessage `json:"routes"`
	}
	if err == nil {
		err = json.Unmarshal(exported, &tree)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "BUG: the exported configuration cannot be read: "+err.Error())
		return
	}
	views := make(map[string]map[string]json.RawMessage, len(now.Config.Routes))
	for name := range now.Config.Routes {
		v := tree.Routes[name]
		if v == nil {
			v = make(map[string]json.RawMessage)
		}
		v["name"] = mustMarshal(name)
		if service := now.Config.Routes[name].Service.Name; service != "" {
			v["service"] = mustMarshal(service) // also when it was written in place: GET /api/v1/services has the rest
		}
		v["listeners"] = mustMarshal(list(listenersOf(now.Config, name)))
		views[name] = v
	}
	answer(w, http.StatusOK, struct {
		Generation uint64                       `json:"generation"`
		Routes     []map[string]json.RawMessage `json:"routes"`
	}{now.Generation, byName(views)})
}

// listenersOf gives the http listeners that serve a route, sorted.
func listenersOf(c *config.Config, route string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		l := c.Listeners[name]
		if l.Protocol == config.ProtocolHTTP && (len(l.Routes) == 0 || slices.Contains(l.Routes, route)) {
			names = append(names, name)
		}
	}
	return names
}

// mustMarshal encodes strings, which cannot fail.
func mustMarshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// byName gives a map's values in the order of its keys.
func byName[V any](m map[string]V) []V {
	values := make([]V, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[name])
	}
	return values
}
