package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/menshen-gateway/menshen/internal/config"
)

// answer sends a value as JSON, indented because people read it with curl.
func answer(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // patterns are full of <, > and &
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil { // a value of ours that cannot be encoded
		refuse(w, http.StatusInternalServerError, "BUG: "+err.Error())
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	write(w, status, body.Bytes())
}

// write sends a body whole. net/http leaves it out for HEAD. A client that left is nobody's concern.
func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// problem is an error document (RFC 9457). Problems is ours: what is wrong with a configuration, each with its place.
type problem struct {
	Type     string          `json:"type"`
	Title    string          `json:"title"`
	Status   int             `json:"status"`
	Detail   string          `json:"detail"`
	Problems []configProblem `json:"problems,omitempty"`
}

// configProblem is one thing that is wrong with a configuration.
type configProblem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// refuse sends an error document.
func refuse(w http.ResponseWriter, status int, detail string) {
	refuseWith(w, problem{Status: status, Detail: detail})
}

func refuseWith(w http.ResponseWriter, p problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	answer(w, p.Status, p)
}

// problemsOf gives the problems in an error's chain, in the API's form.
func problemsOf(err error) []configProblem {
	var found config.Problems
	if !errors.As(err, &found) {
		return nil
	}
	problems := make([]configProblem, len(found))
	for i, p := range found {
		problems[i] = configProblem(p)
	}
	return problems
}

// list makes an empty list out of nil, which JSON would show as null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
