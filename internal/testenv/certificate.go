package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// Certificate is a certificate with the authority that signed it, as PEM files and as a pool.
type Certificate struct {
	CertFile, KeyFile string
	AuthorityFile     string
	Pool              *x509.CertPool  // trusts the authority
	Pair              tls.Certificate // the certificate with its key, and the authorities between it and the one of Pool
}

// NewCertificate makes an authority and a certificate for the given host names and addresses; 127.0.0.1 and localhost when none are given. Both are
// valid from an hour ago until tomorrow, for servers and clients.
func NewCertificate(t testing.TB, names ...string) *Certificate {
	t.Helper()
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1"}
	}
	return NewAuthority(t, "Menshen test authority").Issue(t, nil, names...)
}

// Dir is the directory that holds the files.
func (c *Certificate) Dir() string { return filepath.Dir(c.CertFile) }

// Authority signs certificates.
type Authority struct {
	File string // its own certificate, as PEM
	Pool *x509.CertPool

	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	above       [][]byte // DER of the authorities that a server or client has to show, this one first
	root        *Authority
}

// NewAuthority makes an authority that is signed by itself.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{name: name}
	a.root = a
	a.sign(t, a)
	a.Pool = x509.NewCertPool()
	a.Pool.AddCert(a.certificate)
	return a
}

// Below makes an authority that a signs.
func (a *Authority) Below(t testing.TB, name string) *Authority {
	t.Helper()
	b := &Authority{name: name, root: a.root, Pool: a.Pool}
	b.sign(t, a)
	b.above = append([][]byte{b.certificate.Raw}, a.above...)
	return b
}

func (a *Authority) sign(t testing.TB, by *Authority) {
	t.Helper()
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustMake(t, err)
	own := template(t, a.name)
	own.IsCA, own.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	parent := by.certificate
	if parent == nil {
		parent = own
	}
	der, err := x509.CreateCertificate(rand.Reader, own, parent, a.key.Public(), by.key)
	mustMake(t, err)
	a.certificate, err = x509.ParseCertificate(der)
	mustMake(t, err)
	a.File = write(t, Dir(t), "ca.pem", block("CERTIFICATE", der))
}

// Issue makes a certificate for the names, of which the first is its common name. change, unless it is nil, has a hand in it before it is signed.
func (a *Authority) Issue(t testing.TB, change func(*x509.Certificate), names ...string) *Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustMake(t, err)
	leaf := template(t, names[0])
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	if change != nil {
		change(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, key.Public(), a.key)
	mustMake(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	mustMake(t, err)
	chain := block("CERTIFICATE", der)
	for _, between := range a.above {
		chain += block("CERTIFICATE", between)
	}
	dir := Dir(t)
	c := &Certificate{
		CertFile: write(t, dir, "cert.pem", chain), KeyFile: write(t, dir, "key.pem", block("PRIVATE KEY", keyDER)),
		AuthorityFile: a.root.File, Pool: a.Pool,
	}
	c.Pair, err = tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	mustMake(t, err)
	return c
}

// template is what all certificates have in common.
func template(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	mustMake(t, err)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
	}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func mustMake(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
