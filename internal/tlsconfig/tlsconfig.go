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
	if a := l.ClientAuth; a != nil {
		var problem string
		if c.ClientCAs, problem = authorities(a.CA); problem != "" {
			problems = append(problems, Problem{"client_auth.ca", problem})
		}
		// crypto/tls checks the chain, the dates and the purpose (clientAuth). Each generation has session keys of its own, so a
		// session that was resumed was begun under the same authorities.
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if a.Mode == "optional" {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return c, problems
}

// authorities reads a file of certificates to trust; problem is "" when it can be used.
func authorities(file string) (pool *x509.CertPool, problem string) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err.Error()
	}
	if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(pem) {
		return nil, file + " holds no PEM certificate"
	}
	return pool, ""
}

// RequiresClient says that a listener's clients must show a certificate. A nil c requires none.
func RequiresClient(c *tls.Config) bool {
	return c != nil && c.ClientAuth == tls.RequireAndVerifyClientCert
}

// StillTrusted says whether a certificate that was verified when its connection began would be so under c, which has
// other authorities since a reload. verified are its chains of then.
func StillTrusted(c *tls.Config, verified [][]*x509.Certificate) bool {
	if c.ClientCAs == nil || len(verified) == 0 || len(verified[0]) == 0 {
		return false
	}
	o := x509.VerifyOptions{Roots: c.ClientCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, chain := range verified {
		for _, between := range chain[1:] {
			o.Intermediates.AddCert(between)
		}
	}
	_, err := verified[0][0].Verify(o)
	return err == nil
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
		var problem string
		if c.RootCAs, problem = authorities(t.CA); problem != "" {
			problems = append(problems, Problem{"ca", problem})
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
