package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"time"
)

//go:embed page.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page.html").Parse(pageText))

// page is the demo's third service: the landing page, which shows what runs and asks the gateway how it is.
type page struct {
	layout Layout
	config []byte
	client *http.Client
}

// newPage serves / and /config.yaml.
func newPage(layout Layout, config []byte) http.Handler {
	p := &page{
		layout: layout,
		config: config,
		// No connection is kept: the page is asked rarely, and must not hold up the gateway's drain.
		client: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.show)
	mux.HandleFunc("GET /config.yaml", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", configType)
		w.Write(p.config)
	})
	return mux
}

// view is what the template shows.
type view struct {
	Layout
	Commands []Command
	Services []serviceView
	Problem  string // why the state could not be read, or nothing
	Via      string // the request id that the gateway gave
	Now      string
}

// show renders the page with the state of this moment. A gateway that does not answer costs the state, not the page.
func (p *page) show(w http.ResponseWriter, r *http.Request) {
	v := view{
		Layout:   p.layout,
		Commands: Commands(p.layout),
		Via:      r.Header.Get("X-Request-Id"),
		Now:      time.Now().Format("15:04:05"),
	}
	services, err := p.state(r.Context())
	if err != nil {
		v.Problem = err.Error()
	}
	v.Services = services

	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	out.WriteTo(w)
}

// serviceView is a service or a database with its endpoints.
type serviceView struct {
	Name      string
	Database  bool
	Endpoints []endpointView
}

// endpointView is an endpoint or an instance, as the admin API tells it.
type endpointView struct {
	Address string `json:"address"`
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason"`
}

// state asks the admin API for all endpoints and instances and their health.
func (p *page) state(ctx context.Context) ([]serviceView, error) {
	var services struct {
		Services []struct {
			Name      string         `json:"name"`
			Endpoints []endpointView `json:"endpoints"`
		} `json:"services"`
	}
	if err := p.ask(ctx, "/api/v1/services", &services); err != nil {
		return nil, err
	}
	var databases struct {
		Databases []struct {
			Name   string `json:"name"`
			Shards []struct {
				Primary endpointView `json:"primary"`
			} `json:"shards"`
		} `json:"databases"`
	}
	if err := p.ask(ctx, "/api/v1/databases", &databases); err != nil {
		return nil, err
	}
	var views []serviceView
	for _, s := range services.Services {
		views = append(views, serviceView{Name: s.Name, Endpoints: s.Endpoints})
	}
	for _, d := range databases.Databases {
		v := serviceView{Name: d.Name, Database: true}
		for _, s := range d.Shards {
			v.Endpoints = append(v.Endpoints, s.Primary)
		}
		views = append(views, v)
	}
	return views, nil
}

// statusBytesMax bounds what is read of one answer of the admin API.
const statusBytesMax = 1 << 20

// ask reads one answer of the admin API.
func (p *page) ask(ctx context.Context, path string, into any) error {
	url := "http://" + p.layout.Admin + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the admin API: %s answers %s", url, response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, statusBytesMax)).Decode(into); err != nil {
		return fmt.Errorf("read what %s answers: %w", url, err)
	}
	return nil
}
