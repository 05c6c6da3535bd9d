package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/menshen-gateway/menshen/internal/config"
)

// configView is GET /api/v1/config.
type configView struct {
	Generation uint64          `json:"generation"`
	SHA256     string          `json:"sha256"`
	LoadedAt   time.Time       `json:"loaded_at"`
	Source     string          `json:"source"`
	LastReload *reloadView     `json:"last_reload,omitempty"`
	Config     json.RawMessage `json:"config"`
}

// reloadView is the last attempt to replace the configuration.
type reloadView struct {
	Time     time.Time       `json:"time"`
	OK       bool            `json:"ok"`
	Error    string          `json:"error,omitempty"`
	Problems []configProblem `json:"problems"`
}

func viewReload(r Reload) *reloadView {
	if r.At.IsZero() {
		return nil
	}
	v := &reloadView{Time: r.At.UTC(), OK: r.Err == nil, Problems: list(problemsOf(r.Err))}
	if r.Err != nil && len(v.Problems) == 0 {
		v.Error = r.Err.Error()
	}
	return v
}

// effective is the configuration with all defaults, and without secrets.
var effective = config.ExportOptions{MaskSecrets: true, Defaults: true}

// config answers with the configuration in service: JSON with what is known about it, or YAML that could be loaded again,
// but for masked secrets.
func (a *api) config(w http.ResponseWriter, r *http.Request) {
	now := a.gateway.Current()
	text := now.Config.Export(effective)
	w.Header().Add("Vary", "Accept")
	w.Header().Set("ETag", strconv.Quote(now.Config.SHA256()))
	if wantsYAML(r.Header.Values("Accept")) {
		w.Header().Set("Content-Type", "application/yaml")
		write(w, http.StatusOK, text)
		return
	}
	tree, err := yaml.YAMLToJSON(text)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "BUG: the exported configuration cannot be read: "+err.Error())
		return
	}
	answer(w, http.StatusOK, configView{
		Generation: now.Generation,
		SHA256:     now.Config.SHA256(),
		LoadedAt:   now.LoadedAt.UTC(),
		Source:     now.Source,
		LastReload: viewReload(now.LastReload),
		Config:     tree,
	})
}

// wantsYAML says whether YAML is preferred to JSON: whichever of the two has the higher weight, and of equal weights the one
// named first (RFC 9110, section 12.5.1). Wildcards mean JSON.
func wantsYAML(accept []string) bool {
	best, yes := 0.0, false
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		weight := 1.0
		if q, given := params["q"]; given {
			if weight, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		if weight <= best {
			continue
		}
		switch kind {
		case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml":
			best, yes = weight, true
		case "application/json", "application/*", "*/*":
			best, yes = weight, false
		}
	}
	return yes
}

// appliedView is what became of a POST.
type appliedView struct {
	Generation uint64       `json:"generation"`
	SHA256     string       `json:"sha256"`
	DryRun     bool         `json:"dry_run,omitempty"`
	Changes    []changeView `json:"changes"`
}

// changeView is one setting that became another.
type changeView struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// apply replaces the configuration with the one in the body.
func (a *api) apply(w http.ResponseWriter, r *http.Request) {
	dryRun, err := dryRunOf(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if kind := r.Header.Get("Content-Type"); !readable(kind) {
		w.Header().Set("Accept-Post", "application/yaml, application/json")
		refuse(w, http.StatusUnsupportedMediaType, fmt.Sprintf("the body is %q (application/yaml and application/json are accepted)", kind))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d MiB", bodyBytesMax>>20))
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body did not come whole")
		return
	}
	before := a.gateway.Current()
	after, err := a.gateway.Apply(r.Context(), body, dryRun)
	a.changed(w, r, change{before, after, err, dryRun, "apply"})
}

// reload replaces the configuration with what its source now says.
func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	if err := onlyParameters(r); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	before := a.gateway.Current()
	after, err := a.gateway.Reload(r.Context())
	a.changed(w, r, change{before, after, err, false, "reload"})
}

type change struct {
	before, after Current
	err           error
	dryRun        bool
	what          string
}

// changed answers a POST: 422 when the text is wrong, 409 when the machine refuses (a port is taken, a file cannot be read).
func (a *api) changed(w http.ResponseWriter, r *http.Request, c change) {
	if c.err != nil {
		a.log.Warn("admin: "+c.what+" refused", "from", r.RemoteAddr, "dry_run", c.dryRun, "error", c.err)
		if problems := problemsOf(c.err); len(problems) > 0 {
			refuseWith(w, problem{Status: http.StatusUnprocessableEntity, Problems: problems,
				Detail: fmt.Sprintf("the configuration has %s; generation %d goes on serving", count(len(problems), "problem"), c.before.Generation)})
			return
		}
		refuse(w, http.StatusConflict, fmt.Sprintf("%v; generation %d goes on serving", c.err, c.before.Generation))
		return
	}
	v := appliedView{Generation: c.after.Generation, SHA256: c.after.Config.SHA256(), DryRun: c.dryRun, Changes: []changeView{}}
	for _, d := range config.Diff(c.before.Config, c.after.Config) {
		v.Changes = append(v.Changes, changeView(d))
	}
	if !c.dryRun {
		a.log.Info("admin: "+c.what, "from", r.RemoteAddr, "generation", v.Generation, "changes", len(v.Changes))
	}
	answer(w, http.StatusOK, v)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// dryRunOf reads ?dry_run. What it does not know it refuses: a mistyped dry_run must not be a real one.
func dryRunOf(r *http.Request) (bool, error) {
	if err := onlyParameters(r, "dry_run"); err != nil {
		return false, err
	}
	values := r.URL.Query()["dry_run"]
	if len(values) > 1 {
		return false, errors.New("dry_run is given more than once")
	}
	if len(values) == 0 {
		return false, nil
	}
	switch values[0] {
	case "1", "true", "":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("dry_run=%q (1, true, 0 and false are accepted)", values[0])
}

// onlyParameters refuses a query that cannot be read or holds other parameters.
func onlyParameters(r *http.Request, known ...string) error {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	for name := range given {
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found {
			near := config.Nearest(name, known)
			if near == "" {
				return fmt.Errorf("unknown parameter %q", name)
			}
			return fmt.Errorf("unknown parameter %q (did you mean %s?)", name, near)
		}
	}
	return nil
}

// readable says whether a body of this type is worth parsing. JSON is YAML; curl calls whatever it sends a form.
func readable(contentType string) bool {
	if contentType == "" {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch kind {
	case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json", "text/plain",
		"application/octet-stream", "application/x-www-form-urlencoded":
		return true
	}
	return false
}
