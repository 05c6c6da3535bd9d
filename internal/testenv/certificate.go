package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// Certificate is a server certificate with the authority that signed it, as PEM files and as a pool.
type Certificate struct {
	CertFile, KeyFile string
	AuthorityFile     string
	Pool              *x509.CertPool // trusts the authority
}

// NewCertificate makes an authority and a certificate for the given host names and addresses; 127.0.0.1 and localhost when none are given. Both are
// valid from an hour ago until tomorrow.
func NewCertificate(t testing.TB, names ...string) *Certificate {
	t.Helper()
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1"}
	}
	dir := Dir(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	template := func(name string) *x509.Certificate {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
		must(err)
		return &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			BasicConstraintsValid: true,
		}
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	authority := template("Menshen test authority")
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := template(names[0])
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), authorityKey)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	parsed, err := x509.ParseCertificate(authorityDER)
	must(err)
	c := &Certificate{
		CertFile:      write(t, dir, "cert.pem", block("CERTIFICATE", der)),
		KeyFile:       write(t, dir, "key.pem", block("PRIVATE KEY", keyDER)),
		AuthorityFile: write(t, dir, "ca.pem", block("CERTIFICATE", authorityDER)),
		Pool:          x509.NewCertPool(),
	}
	c.Pool.AddCert(parsed)
	return c
}

// Dir is the directory that holds the files.
func (c *Certificate) Dir() string { return filepath.Dir(c.CertFile) }
