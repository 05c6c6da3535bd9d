package mysql

import (
	"crypto/ed25519"
	"strings"
	"testing"
)

// A password of 32 bytes is a private key, so its signatures are those of the standard library. Longer and shorter ones are checked
// against a real server where instances are signed in to.
func TestEd25519Sign(t *testing.T) {
	t.Parallel()
	for _, password := range []string{strings.Repeat("p", 32), "0123456789abcdef0123456789ABCDEF", strings.Repeat("\x00", 32)} {
		for _, nonce := range []string{strings.Repeat("n", 32), strings.Repeat("\x00", 32), ""} {
			key := ed25519.NewKeyFromSeed([]byte(password))
			signature := Ed25519Sign(password, []byte(nonce))
			if string(signature) != string(ed25519.Sign(key, []byte(nonce))) || !ed25519.Verify(key.Public().(ed25519.PublicKey), []byte(nonce), signature) {
				t.Errorf("%q over %q is signed as %x", password, nonce, signature)
			}
		}
	}
	if len(Ed25519Sign("", []byte("nonce"))) != ed25519.SignatureSize {
		t.Error("an empty password has no signature")
	}
}

// The nonce of client_ed25519 may end with a zero, which is then not the end of a text.
func TestAuthSwitchKeepsTheNonce(t *testing.T) {
	t.Parallel()
	f := func(nonce, want string) {
		t.Helper()
		var a AuthSwitch
		if err := a.Decode([]byte("\xfeplugin\x00" + nonce)); err != nil || string(a.Nonce) != want || a.Plugin != "plugin" {
			t.Errorf("%q: %q, %v", nonce, a.Nonce, err)
		}
	}
	thirtyOne := strings.Repeat("n", 31)
	f(thirtyOne+"\x00", thirtyOne+"\x00")
	f(thirtyOne+"n", thirtyOne+"n")
	f(thirtyOne+"n\x00", thirtyOne+"n")
	f(strings.Repeat("n", 20)+"\x00", strings.Repeat("n", 20))
	f(strings.Repeat("n", 20), strings.Repeat("n", 20))
	f("", "")
}
