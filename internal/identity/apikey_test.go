package identity

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
)

func keyed(keys map[string][]config.Secret) (*Directory, config.Problems) {
	c := &config.Config{Consumers: map[string]*config.Consumer{}}
	for name, list := range keys {
		c.Consumers[name] = &config.Consumer{APIKeys: list}
	}
	return Compile(c)
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	digest := config.Secret(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("hashed-key"))))
	d, problems := keyed(map[string][]config.Secret{"app": {"plain-key", digest}, "web": {"other"}, "none": nil})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	f := func(key, want string) {
		t.Helper()
		got := ""
		if c := d.APIKey([]byte(key)); c != nil {
			got = c.Name
		}
		if got != want {
			t.Errorf("%.20q is the key of %q, want %q", key, got, want)
		}
	}
	f("plain-key", "app")
	f("hashed-key", "app")
	f("other", "web")
	f("", "")
	f("plain-ke", "")
	f("plain-key ", "")
	f("Plain-key", "")
	f(string(digest), "") // the digest is not the key
	f(strings.Repeat("x", apiKeyBytesMax+1), "")
	var none *Directory
	if none.APIKey([]byte("plain-key")) != nil {
		t.Error("a nil directory knows somebody")
	}
}

func TestAPIKeyAllocatesNothing(t *testing.T) {
	d, _ := keyed(map[string][]config.Secret{"app": {"plain-key"}})
	key := []byte("plain-key")
	if n := testing.AllocsPerRun(100, func() { d.APIKey(key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAPIKeyRefuses(t *testing.T) {
	t.Parallel()
	f := func(want string, keys ...config.Secret) {
		t.Helper()
		_, problems := keyed(map[string][]config.Secret{"app": keys})
		if len(problems) != 1 || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%v, want %s", problems, want)
		}
		for _, k := range keys {
			if k != "" && strings.Contains(problems.Error(), strings.TrimSpace(string(k))) {
				t.Errorf("%v shows a key", problems)
			}
		}
	}
	f("consumers.app.api_keys[0]: empty", "")
	f("is no SHA-256 digest", "sha256:5e88")
	f("is no SHA-256 digest", config.Secret("sha256:"+strings.Repeat("g", 64)))
	f("is no SHA-256 digest", config.Secret("sha256:"+strings.Repeat("a", 66)))
	f("no client could send", " spaced")
	f("no client could send", "a\nb")
	f("at most 4096", config.Secret(strings.Repeat("x", 5000)))
	f("api_keys[1]: is the same key as consumers.app.api_keys[0]", "twice", config.Secret(fmt.Sprintf("sha256:%X", sha256.Sum256([]byte("twice")))))
}
