package mysql

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
)

// The authentication plugins.
const (
	NativePassword = "mysql_native_password"
	CachingSHA2    = "caching_sha2_password"
	ClearPassword  = "mysql_clear_password" // the password itself: only ever inside TLS
)

// What follows AuthMore in caching_sha2_password.
const (
	SHA2PublicKey = 0x02 // client: send me your RSA key
	SHA2FastDone  = 0x03 // server: the scramble was right, OK follows
	SHA2Full      = 0x04 // server: I need the password itself, inside TLS or under my RSA key
)

// NewNonce fills a nonce with random bytes that are neither zero nor above 127, as MySQL does.
func NewNonce(random io.Reader) (n [NonceLen]byte, err error) {
	if _, err := io.ReadFull(random, n[:]); err != nil {
		return n, fmt.Errorf("read random bytes: %w", err)
	}
	for i := range n {
		n[i] &= 0x7f
		// '$' is avoided as MySQL avoids it: it divides the parts of a stored SHA-2 password.
		if n[i] == 0 || n[i] == '$' {
			n[i]++
		}
	}
	return n, nil
}

// NativeVerifier is what a server keeps of a password for mysql_native_password: SHA1(SHA1(password)).
func NativeVerifier(password string) [sha1.Size]byte {
	h := sha1.Sum([]byte(password))
	return sha1.Sum(h[:])
}

// NativeScramble is a client's answer in mysql_native_password: SHA1(p) XOR SHA1(nonce + SHA1(SHA1(p))); nothing for an
// empty password.
func NativeScramble(password string, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	stage1 := sha1.Sum([]byte(password))
	stage2 := sha1.Sum(stage1[:])
	mask := sha1Of(nonce, stage2[:])
	subtle.XORBytes(mask[:], mask[:], stage1[:])
	return mask[:]
}

// CheckNative says whether an answer was made from the password that the verifier was made from. It takes the same time
// for every wrong answer of the right length.
func CheckNative(verifier [sha1.Size]byte, nonce, answer []byte) bool {
	if len(answer) != sha1.Size {
		empty := NativeVerifier("")
		return len(answer) == 0 && subtle.ConstantTimeCompare(verifier[:], empty[:]) == 1
	}
	mask := sha1Of(nonce, verifier[:])
	subtle.XORBytes(mask[:], mask[:], answer)
	got := sha1.Sum(mask[:])
	return subtle.ConstantTimeCompare(got[:], verifier[:]) == 1
}

func sha1Of(a, b []byte) (sum [sha1.Size]byte) {
	h := sha1.New()
	h.Write(a)
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// SHA2Verifier is what a server keeps of a password for the fast path of caching_sha2_password: SHA256(SHA256(password)).
func SHA2Verifier(password string) [sha256.Size]byte {
	h := sha256.Sum256([]byte(password))
	return sha256.Sum256(h[:])
}

// SHA2Scramble is a client's first answer in caching_sha2_password: SHA256(p) XOR SHA256(SHA256(SHA256(p)) + nonce);
// nothing for an empty password.
func SHA2Scramble(password string, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	stage1 := sha256.Sum256([]byte(password))
	stage2 := sha256.Sum256(stage1[:])
	mask := sha256Of(stage2[:], nonce)
	subtle.XORBytes(mask[:], mask[:], stage1[:])
	return mask[:]
}

// CheckSHA2 says whether a first answer was made from the password that the verifier was made from. Some clients send a
// single NUL for an empty password.
func CheckSHA2(verifier [sha256.Size]byte, nonce, answer []byte) bool {
	if len(answer) != sha256.Size {
		empty := SHA2Verifier("")
		none := len(answer) == 0 || len(answer) == 1 && answer[0] == 0
		return none && subtle.ConstantTimeCompare(verifier[:], empty[:]) == 1
	}
	mask := sha256Of(verifier[:], nonce)
	subtle.XORBytes(mask[:], mask[:], answer)
	got := sha256.Sum256(mask[:])
	return subtle.ConstantTimeCompare(got[:], verifier[:]) == 1
}

// CheckSHA2Full says whether a password sent in full is the one that the verifier was made from. One closing NUL is part
// of the message, not of the password.
func CheckSHA2Full(verifier [sha256.Size]byte, password []byte) bool {
	if n := len(password); n > 0 && password[n-1] == 0 {
		password = password[:n-1]
	}
	h := sha256.Sum256(password)
	got := sha256.Sum256(h[:])
	return subtle.ConstantTimeCompare(got[:], verifier[:]) == 1
}

func sha256Of(a, b []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(a)
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// AppendPublicKey appends the payload that answers SHA2PublicKey.
func AppendPublicKey(dst []byte, key *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return dst, fmt.Errorf("encode RSA key: %w", err)
	}
	return AppendAuthMore(dst, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// DecodePublicKey reads that payload.
func DecodePublicKey(payload []byte) (*rsa.PublicKey, error) {
	if len(payload) == 0 || payload[0] != AuthMore {
		return nil, malformed("RSA key")
	}
	block, _ := pem.Decode(payload[1:])
	if block == nil {
		return nil, malformed("RSA key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: RSA key: %w", ErrMalformed, err)
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, malformed("public key is not RSA")
	}
	return pub, nil
}

// EncryptPassword makes the answer to a server's RSA key: the password and its NUL, XOR the nonce, in OAEP with SHA-1 (the
// protocol's choice).
func EncryptPassword(key *rsa.PublicKey, password string, nonce []byte) ([]byte, error) {
	if len(nonce) == 0 {
		return nil, malformed("empty nonce")
	}
	text := make([]byte, len(password)+1)
	copy(text, password)
	for i := range text {
		text[i] ^= nonce[i%len(nonce)]
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, key, text, nil)
}

// DecryptPassword reverses EncryptPassword; the closing NUL is kept (see CheckSHA2Full).
func DecryptPassword(key *rsa.PrivateKey, sealed, nonce []byte) ([]byte, error) {
	if len(nonce) == 0 {
		return nil, malformed("empty nonce")
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, key, sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: password under RSA: %w", ErrMalformed, err)
	}
	for i := range text {
		text[i] ^= nonce[i%len(nonce)]
	}
	return text, nil
}
