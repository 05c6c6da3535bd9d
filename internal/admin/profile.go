package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profileSecondsMax bounds how long one profile of the processors is taken.
const profileSecondsMax = 60

// kinds of profiles, the first by default.
var kinds = []string{"cpu", "heap", "goroutine"}

// profile answers in the form that "go tool pprof" reads. cpu is what the processors did in the next seconds, which costs them about 1 %; heap and
// goroutine are what is there now. It shows names of functions and numbers, nothing of what they worked on.
func (a *api) profile(w http.ResponseWriter, r *http.Request) {
	if err := onlyParameters(r, "kind", "seconds"); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	query := r.URL.Query()
	kind, seconds := kinds[0], 10
	if query.Has("kind") {
		kind = query.Get("kind")
	}
	if !slices.Contains(kinds, kind) {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("kind=%q (one of %s is accepted)", kind, strings.Join(kinds, ", ")))
		return
	}
	if query.Has("seconds") {
		var err error
		if seconds, err = strconv.Atoi(query.Get("seconds")); err != nil || seconds < 1 || seconds > profileSecondsMax {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("seconds=%q (a number from 1 to %d is accepted)", query.Get("seconds"), profileSecondsMax))
			return
		}
	}
	var body bytes.Buffer
	if kind != "cpu" {
		if err := pprof.Lookup(kind).WriteTo(&body, 0); err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
	} else if r.Method != http.MethodHead {
		if err := pprof.StartCPUProfile(&body); err != nil { // there is one at a time
			refuse(w, http.StatusConflict, "a profile is being taken already")
			return
		}
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
		pprof.StopCPUProfile()
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="menshen-%s.pb.gz"`, kind))
	write(w, http.StatusOK, body.Bytes())
}
