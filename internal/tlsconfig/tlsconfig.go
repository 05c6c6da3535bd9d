// Package tlsconfig turns the tls sections of the config into crypto/tls configurations, for both doors: Server for
// listeners, Client for connections to endpoints and instances. It reads the files that they name when a snapshot is
// compiled, so a changed file takes effect with the next reload and a broken one fails it. It holds no state.
package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"github.com/menshen-gateway/menshen/internal/config"
)

// Problem is a setting that cannot be used; Field is relative to the tls section ("cert", "certificates[1].key").
type Problem struct {
	Field   string
	Message string
}

// Server compiles a listener's section. crypto/tls chooses the certificate by SNI; the first serves names that none
// covers. A nil section gives nil.
func Server(l *config.ListenerTLS, protocols ...string) (*tls.Config, []Problem) {
	if l == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols}
	if l.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	var problems []Problem
	load := func(prefix, cert, key string) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			problems = append(problems, Problem{prefix + "cert", fmt.Sprintf("cannot use certificate %s with key %s: %v", cert, key, err)})
			return
		}
		c.Certificates = append(c.Certificates, pair)
	}
	if l.Cert != "" || l.Key != "" {
		load("", l.Cert, l.Key)
	}
	for i, p := range l.Certificates {
		load(fmt.Sprintf("certificates[%d].", i), p.Cert, p.Key)
	}
	if len(problems) == 0 && len(c.Certificates) == 0 {
		problems = append(problems, Problem{"", "no certificate (cert and key, or certificates)"})
	}
	return c, problems
}

// Client compiles a client section; each connection needs ForAddress of the result. A nil section gives nil.
func Client(t *config.ClientTLS, protocols ...string) (*tls.Config, []Problem) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
		NextProtos:         protocols,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	var problems []Problem
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			problems = append(problems, Problem{"ca", err.Error()})
		} else if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			problems = append(problems, Problem{"ca", t.CA + " holds no PEM certificate"})
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			problems = append(problems, Problem{"cert", fmt.Sprintf("cannot use certificate %s with key %s: %v", t.Cert, t.Key, err)})
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, problems
}

// ForAddress gives the configuration for a connection to host:port: with the host as server name unless one is set.
func ForAddress(c *tls.Config, address string) *tls.Config {
	if c.ServerName != "" {
		return c
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	c = c.Clone()
	c.ServerName = host
	return c
}
