package route

import (
	"bytes"
	"testing"
)

func TestReadings(t *testing.T) {
	t.Parallel()
	f := func(path string, want Reading, readings ...string) { // by DropParameters, Decode, both
		t.Helper()
		if got := Readings([]byte(path)); got != want {
			t.Errorf("%s: readings %d, want %d", path, got, want)
		}
		for i, w := range readings {
			got, err := Reading(i + 1).Of([]byte(path))
			if err != nil {
				got = []byte(err.Error())
			}
			if string(got) != w {
				t.Errorf("%s: read %d: %s, want %s", path, i+1, got, w)
			}
		}
	}
	f("/", 0, "/", "/", "/")
	f("/a/b.c/~d", 0, "/a/b.c/~d", "/a/b.c/~d", "/a/b.c/~d")
	f("/%C3%A9%20%3F%23%25/", 0) // what cannot stand raw in a path, and is the same for everybody
	f("/a;x/b;y=1", DropParameters, "/a/b", "/a;x/b;y=1", "/a/b")
	f("/;x/b", DropParameters, "/b", "/;x/b", "/b")
	f("/a%2Fb%5Cc", Decode, "/a%2Fb%5Cc", "/a/b/c", "/a/b/c")
	f("/%2F%2Fa", Decode, "/%2F%2Fa", "/a", "/a")
	f("/a%2F.%2Fb", Decode, "/a%2F.%2Fb", "/a/b", "/a/b")
	f("/v1/users%3Adelete%40", Decode, "/v1/users%3Adelete%40", "/v1/users:delete@", "/v1/users:delete@")
	f("/a%3Bx/b", DropParameters|Decode, "/a%3Bx/b", "/a;x/b", "/a/b")
	f("/a;x%2Fy", DropParameters|Decode, "/a", "/a;x/y", "/a/y")
	f("/a%253B", 0, "/a%253B", "/a%253B", "/a%253B") // decoded once
}

// A path that has no readings is read by everybody as it is.
func FuzzReadings(f *testing.F) {
	for _, s := range []string{"/", "/a;b", "/a%2fb", "/%3b;%5c/", "/a/..;/b", "/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, _, err := Normalize(nil, []byte(s))
		if err != nil || path[0] != '/' {
			return
		}
		all := Readings(path)
		for r := range Reading(4) {
			read, err := r.Of(path)
			if err == nil && r&all == 0 && !bytes.Equal(read, path) {
				t.Errorf("%q is read as %q by %d", path, read, r)
			}
			if err != nil && r&all == 0 {
				t.Errorf("%q cannot be read by %d: %v", path, r, err)
			}
		}
	})
}
