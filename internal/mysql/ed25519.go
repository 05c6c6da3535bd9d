package mysql

import (
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// Ed25519 is MariaDB's plugin of that name, as clients know it. Its nonce has 32 bytes, of any value.
const (
	Ed25519         = "client_ed25519"
	Ed25519NonceLen = 32
)

// Ed25519Sign is a client's answer in client_ed25519: the Ed25519 signature (RFC 8032, 5.1.6) of the nonce, where the password
// stands in the place of the private key. Since a password may have any length, and crypto/ed25519 takes only keys of 32 bytes,
// the signature is made here. The order of the steps and their names are those of the RFC.
func Ed25519Sign(password string, nonce []byte) []byte {
	h := sha512.Sum512([]byte(password))
	s := scalar(edwards25519.NewScalar().SetBytesWithClamping(h[:32]))
	a := new(edwards25519.Point).ScalarBaseMult(s).Bytes()
	r := scalar(edwards25519.NewScalar().SetUniformBytes(sha512Of(h[32:], nonce)))
	signature := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k := scalar(edwards25519.NewScalar().SetUniformBytes(sha512Of(signature, a, nonce)))
	return append(signature, k.MultiplyAdd(k, s, r).Bytes()...)
}

func sha512Of(parts ...[]byte) []byte {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// scalar takes a scalar that cannot fail: only the length of the bytes could be wrong, and it is that of a hash.
func scalar(s *edwards25519.Scalar, err error) *edwards25519.Scalar {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return s
}
