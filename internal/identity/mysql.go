package identity

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
)

// mysqlVerifier is what MySQL's sign-in proofs are checked against. These are what a MySQL server itself stores or
// caches: from them nobody can sign in, but a weak password can be guessed, so they are as secret as the config is.
type mysqlVerifier struct {
	open   bool              // false refuses every proof
	native [sha1.Size]byte   // SHA1(SHA1(password)), for mysql_native_password
	sha2   [sha256.Size]byte // SHA256(SHA256(password)), for caching_sha2_password
}

func newMySQLVerifier(password []byte) mysqlVerifier {
	one, two := sha1.Sum(password), sha256.Sum256(password)
	return mysqlVerifier{open: true, native: sha1.Sum(one[:]), sha2: sha256.Sum256(two[:])}
}

// VerifyNative checks a mysql_native_password proof: SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))), 20 bytes.
// nonce is what the server sent, 20 bytes without the final NUL. An empty proof, which stands for an empty password, is refused.
func (c *Consumer) VerifyNative(nonce, proof []byte) bool {
	var given [sha1.Size]byte
	sized := copy(given[:], proof) == len(given) && len(proof) == len(given)

	h := sha1.New()
	h.Write(nonce)
	h.Write(c.mysql.native[:])
	var mask [sha1.Size]byte
	h.Sum(mask[:0])
	subtle.XORBytes(given[:], given[:], mask[:])
	stage := sha1.Sum(given[:])
	equal := subtle.ConstantTimeCompare(stage[:], c.mysql.native[:]) == 1
	return equal && sized && c.mysql.open
}

// VerifySHA2 checks a caching_sha2_password proof of the fast path:
// SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce), 32 bytes. nonce and the empty proof as for VerifyNative.
func (c *Consumer) VerifySHA2(nonce, proof []byte) bool {
	var given [sha256.Size]byte
	sized := copy(given[:], proof) == len(given) && len(proof) == len(given)

	h := sha256.New()
	h.Write(c.mysql.sha2[:])
	h.Write(nonce)
	var mask [sha256.Size]byte
	h.Sum(mask[:0])
	subtle.XORBytes(given[:], given[:], mask[:])
	stage := sha256.Sum256(given[:])
	equal := subtle.ConstantTimeCompare(stage[:], c.mysql.sha2[:]) == 1
	return equal && sized && c.mysql.open
}

// VerifyPassword checks a password in plain text, as full caching_sha2_password authentication and mysql_clear_password
// hand it over: without the final NUL, and only ever over TLS or decrypted with the server's key.
func (c *Consumer) VerifyPassword(password []byte) bool {
	one := sha256.Sum256(password)
	two := sha256.Sum256(one[:])
	equal := subtle.ConstantTimeCompare(two[:], c.mysql.sha2[:]) == 1
	return equal && c.mysql.open
}
