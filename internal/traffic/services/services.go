// Package services compiles the services of the config: each becomes one set of endpoints with its timeouts, which every door
// uses, so that health and load are seen once however many doors lead there. What is kept for an endpoint of a protocol (a
// pool of connections) comes from the caller. It holds no state and starts nothing.
package services

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Service is a compiled service. It is immutable.
type Service struct {
	Name           string
	Set            *upstream.Set
	HashKey        string      // what the hash balancer hashes, as in the config; "" for the other balancers
	HTTP2          bool        // the endpoints speak HTTP/2 to the HTTP door
	TLS            *tls.Config // to the endpoints; nil: plain text. Each connection needs tlsconfig.ForAddress of it
	Retries        int         // further attempts of one request
	TimeoutConnect time.Duration
	TimeoutFirst   time.Duration // first byte
	TimeoutIdle    time.Duration
	ProxyProtocol  proxyproto.Version // with which connections begin; only of services that no route leads to
	IdleMax        int                // idle connections kept for each endpoint
}

// Compile makes all services of a config, leased from the generation g. newPool makes what an endpoint keeps.
func Compile(c *config.Config, g *upstream.Generation, newPool func(s *Service, address string) io.Closer) (map[string]*Service, config.Problems) {
	all := make(map[string]*Service, len(c.Services))
	var problems config.Problems
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s, unusable := compile(name, c.Services[name], g, newPool)
		for _, p := range unusable {
			problems = append(problems, c.Problem(strings.TrimSuffix("services."+name+"."+p.Field, "."), "%s", p.Message))
		}
		all[name] = s
	}
	return all, problems
}

func compile(name string, from *config.Service, g *upstream.Generation, newPool func(s *Service, address string) io.Closer) (*Service, []tlsconfig.Problem) {
	alpn, settings := "http/1.1", from.TLS
	if speaksHTTP2(from) {
		alpn = "h2"
	}
	if from.Protocol == config.ServiceH2 && settings == nil {
		settings = new(config.ClientTLS)
	}
	clientTLS, problems := tlsconfig.Client(settings, alpn)
	for i := range problems {
		problems[i].Field = "tls." + problems[i].Field
	}
	s := &Service{
		Name:           name,
		HTTP2:          speaksHTTP2(from),
		TLS:            clientTLS,
		Retries:        from.Retry.Attempts,
		TimeoutConnect: time.Duration(from.Timeouts.Connect),
		TimeoutFirst:   time.Duration(from.Timeouts.FirstByte),
		TimeoutIdle:    time.Duration(from.Timeouts.Idle),
		IdleMax:        from.Connections.MaxIdlePerEndpoint,
		ProxyProtocol:  proxyproto.ParseVersion(string(from.ProxyProtocol)),
	}
	if from.Balance.Algorithm == config.Hash {
		s.HashKey = from.Balance.Key
	}
	spec := upstream.Spec{
		Name:    name,
		Balance: balance.Algorithm(from.Balance.Algorithm),
		Outlier: upstream.OutlierSettings{
			ConsecutiveFailures: from.Outlier.ConsecutiveFailures,
			Ejection:            time.Duration(from.Outlier.Ejection),
			EjectionMax:         time.Duration(from.Outlier.EjectionMax),
		},
		PanicThreshold: float64(from.PanicThreshold) / 100,
		MaxConnections: from.Connections.MaxPerEndpoint,
		RetryBudget:    float64(from.Retry.Budget) / 100,
		Identity:       identity(from),
		NewPool:        func(e *upstream.Endpoint) io.Closer { return newPool(s, e.Address) },
	}
	for _, e := range from.Endpoints {
		spec.Endpoints = append(spec.Endpoints, upstream.EndpointSpec{Address: e.Address, Weight: e.Weight, Labels: e.Labels})
	}
	if h := from.HealthCheck; h != nil {
		spec.Health = health.Settings{Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout), Rise: h.Rise, Fall: h.Fall}
		preamble := proxyproto.Header{}.AppendTo(nil, s.ProxyProtocol) // a check speaks for itself
		spec.Probe = health.TCP(preamble)
		if h.Path != "" {
			status, err := health.ParseStatus(h.Status)
			if err != nil {
				problems = append(problems, tlsconfig.Problem{Field: "health_check.status", Message: err.Error()})
			}
			spec.Probe = health.HTTP(health.HTTPOptions{Path: h.Path, Host: h.Host, Status: status, TLS: clientTLS, HTTP2: s.HTTP2, Preamble: preamble})
		}
	}
	s.Set = g.Set(spec)
	return s, problems
}

func speaksHTTP2(s *config.Service) bool {
	return s.Protocol != config.ServiceHTTP && s.Protocol != ""
}

// identity is what makes an endpoint another one although its address is the same: how connections to it are made.
func identity(s *config.Service) string {
	id := fmt.Sprintf("protocol=%s connect=%v idle=%d proxy=%s", s.Protocol, s.Timeouts.Connect, s.Connections.MaxIdlePerEndpoint, s.ProxyProtocol)
	if s.TLS != nil {
		id += fmt.Sprintf(" tls=%+v", *s.TLS)
		for _, file := range []string{s.TLS.CA, s.TLS.Cert, s.TLS.Key} { // a changed file makes new connections
			if info, err := os.Stat(file); err == nil {
				id += " " + info.ModTime().String()
			}
		}
	}
	return id
}
