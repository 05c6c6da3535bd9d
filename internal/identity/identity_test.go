package identity

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
)

func directory(t *testing.T) *Directory {
	t.Helper()
	d, problems := Compile(&config.Config{Consumers: map[string]*config.Consumer{
		"app":  {Groups: []string{"checkout", "admin", "checkout"}, MySQL: &config.ConsumerMySQL{Password: "secret"}},
		"web":  {Groups: []string{"checkout"}}, // may not use the SQL door
		"bare": nil,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return d
}

func TestCompile(t *testing.T) {
	t.Parallel()
	d := directory(t)
	if d.Len() != 3 {
		t.Errorf("%d consumers", d.Len())
	}
	c, ok := d.Consumer("app")
	if !ok || c.Name != "app" || !slices.Equal(c.Groups, []string{"admin", "checkout"}) {
		t.Errorf("%+v, %v", c, ok)
	}
	f := func(c *Consumer, group string, want bool) {
		t.Helper()
		if c.In(group) != want {
			t.Errorf("%v in %s: want %v", c, group, want)
		}
	}
	f(c, "admin", true)
	f(c, "checkout", true)
	f(c, "", false)
	f(c, "adm", false)
	f(nil, "admin", false)
	if _, ok := d.Consumer("nobody"); ok {
		t.Error("knows nobody")
	}
	var none *Directory
	if _, ok := none.Consumer("app"); ok || none.Len() != 0 {
		t.Error("a nil directory knows somebody")
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", userBytesMax+1)
	d, problems := Compile(&config.Config{Consumers: map[string]*config.Consumer{
		"open": {MySQL: &config.ConsumerMySQL{}},
		long:   {MySQL: &config.ConsumerMySQL{Password: "secret"}},
	}})
	if len(problems) != 2 {
		t.Fatalf("%v", problems)
	}
	if p := problems[0]; p.Path != "consumers.open.mysql.password" || !strings.Contains(p.Message, "anybody could sign in as open") {
		t.Errorf("%v", p)
	}
	if p := problems[1]; p.Path != "consumers."+long || !strings.Contains(p.Message, "at most 320 bytes") {
		t.Errorf("%v", p)
	}
	for _, name := range []string{"open", long} {
		if c, known := d.MySQL(name); known || c.VerifyPassword(nil) || c.VerifyNative(nil, nil) || c.VerifySHA2(nil, nil) {
			t.Errorf("%.5s can sign in", name)
		}
	}
}

func bytesOf(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The proofs were made by other clients, for the password "secret".
const (
	nativeNonce = "46725c5e01260b743f7217657e671a5f51111815"
	nativeProof = "35b18c9ffbbd7f356dfcac32d3c0f0a41a30cf2d"
	sha2Nonce   = "0a2f4a6f4b492230584c724a250d035052021715"
	sha2Proof   = "f490e76f66d9d86665ce54d98c78d0acfe2fb0b08b423da807144873d30b312c"
	sha2Nonce2  = "5a694a7e1e3025380317737f45162954207b2b76"
	sha2Proof2  = "662005238fa18cf1abe8388b2b0e6bc4f9aa933cdccc78b2d60fb8961a3d39eb"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	c, known := directory(t).MySQL("app")
	if !known || c.Name != "app" {
		t.Fatalf("%+v, %v", c, known)
	}
	f := func(name string, verify func(nonce, proof []byte) bool, nonce, proof string, want bool) {
		t.Helper()
		if got := verify(bytesOf(t, nonce), bytesOf(t, proof)); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	f("native", c.VerifyNative, nativeNonce, nativeProof, true)
	f("native, other nonce", c.VerifyNative, sha2Nonce, nativeProof, false)
	f("native, one bit", c.VerifyNative, nativeNonce, nativeProof[:39]+"c", false)
	f("native, short", c.VerifyNative, nativeNonce, nativeProof[:38], false)
	f("native, long", c.VerifyNative, nativeNonce, nativeProof+"00", false)
	f("native, empty", c.VerifyNative, nativeNonce, "", false)
	f("native, no nonce", c.VerifyNative, "", nativeProof, false)
	f("native, the other's proof", c.VerifyNative, sha2Nonce, sha2Proof, false)
	f("sha2", c.VerifySHA2, sha2Nonce, sha2Proof, true)
	f("sha2 again", c.VerifySHA2, sha2Nonce2, sha2Proof2, true)
	f("sha2, other nonce", c.VerifySHA2, sha2Nonce2, sha2Proof, false)
	f("sha2, one bit", c.VerifySHA2, sha2Nonce, sha2Proof[:63]+"d", false)
	f("sha2, short", c.VerifySHA2, sha2Nonce, sha2Proof[:62], false)
	f("sha2, long", c.VerifySHA2, sha2Nonce, sha2Proof+"00", false)
	f("sha2, empty", c.VerifySHA2, sha2Nonce, "", false)
	// "secret2"
	f("sha2, other password", c.VerifySHA2, sha2Nonce, "abc3934a012cf342e876071c8ee202de51785b430258a7a0138bc79c4d800bc6", false)

	for password, want := range map[string]bool{"secret": true, "secret\x00": false, "Secret": false, "secre": false, "": false} {
		if c.VerifyPassword([]byte(password)) != want {
			t.Errorf("%q: want %v", password, want)
		}
	}
}

// Whoever cannot sign in gets a stand-in that refuses everything, even a proof made from its own secrets.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*Directory{"full": directory(t), "zero": {}, "nil": nil} {
		for _, user := range []string{"", "web", "bare", "nobody", "APP", "app\x00"} {
			c, known := d.MySQL(user)
			if known || c == nil || c.Name != "" || len(c.Groups) > 0 {
				t.Fatalf("%s, %q: %+v, %v", name, user, c, known)
			}
			nonce := bytesOf(t, nativeNonce)
			if c.VerifyPassword([]byte("secret")) || c.VerifyPassword(nil) || c.VerifyNative(nonce, bytesOf(t, nativeProof)) ||
				c.VerifySHA2(bytesOf(t, sha2Nonce), bytesOf(t, sha2Proof)) || c.VerifyNative(nonce, nil) || c.VerifySHA2(nonce, nil) {
				t.Errorf("%s: %q signed in", name, user)
			}
		}
	}
	closed := newMySQLVerifier([]byte("secret"))
	closed.open = false
	c := &Consumer{mysql: closed}
	if c.VerifyPassword([]byte("secret")) || c.VerifyNative(bytesOf(t, nativeNonce), bytesOf(t, nativeProof)) || c.VerifySHA2(bytesOf(t, sha2Nonce), bytesOf(t, sha2Proof)) {
		t.Error("a closed verifier opened")
	}
}

// A proof made as MySQL's manual says, of any password and nonce, is taken; with one bit changed it is not.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("secret"), []byte("01234567890123456789"), uint(3))
	f.Add([]byte{0}, []byte{}, uint(0))
	f.Fuzz(func(t *testing.T, password, nonce []byte, bit uint) {
		c := &Consumer{mysql: newMySQLVerifier(password)}
		one := sha1.Sum(password)
		two := sha1.Sum(one[:])
		mask := sha1.Sum(append(slices.Clone(nonce), two[:]...))
		native := make([]byte, len(one))
		subtle.XORBytes(native, one[:], mask[:])
		first := sha256.Sum256(password)
		second := sha256.Sum256(first[:])
		mask2 := sha256.Sum256(append(second[:], nonce...))
		sha2 := make([]byte, len(first))
		subtle.XORBytes(sha2, first[:], mask2[:])
		if !c.VerifyNative(nonce, native) || !c.VerifySHA2(nonce, sha2) || !c.VerifyPassword(password) {
			t.Error("a right proof is refused")
		}
		native[bit/8%uint(len(native))] ^= 1 << (bit % 8)
		sha2[bit/8%uint(len(sha2))] ^= 1 << (bit % 8)
		if c.VerifyNative(nonce, native) || c.VerifySHA2(nonce, sha2) || c.VerifyPassword(append(password, 0)) {
			t.Error("a wrong proof is taken")
		}
	})
}

// Does a user that exists take longer to refuse than one that does not? The two must not differ.
func BenchmarkRefuse(b *testing.B) {
	d, _ := Compile(&config.Config{Consumers: map[string]*config.Consumer{"app": {MySQL: &config.ConsumerMySQL{Password: "secret"}}}})
	nonce, proof := make([]byte, 20), make([]byte, 20)
	for _, user := range []string{"app", "nobody"} {
		b.Run(user, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, _ := d.MySQL(user)
				if c.VerifyNative(nonce, proof) {
					b.Fatal("taken")
				}
			}
		})
	}
}
