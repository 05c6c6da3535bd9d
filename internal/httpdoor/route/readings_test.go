package route

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestReadings(t *testing.T) {
	t.Parallel()
	f := func(path string, want Reading, readings ...string) { // in the order of Ways, of those that are in want
		t.Helper()
		all := Readings([]byte(path))
		if all != want {
			t.Errorf("%s: readings %05b, want %05b", path, all, want)
		}
		var got []string
		for _, way := range Ways {
			if way&all != way {
				continue
			}
			read, err := way.Of([]byte(path))
			if err != nil {
				read = []byte(err.Error())
			}
			got = append(got, string(read))
		}
		if !slices.Equal(got, readings) {
			t.Errorf("%s: read %q, want %q", path, got, readings)
		}
	}
	const raw = DropRaw | DropDecoded
	f("/", 0)
	f("/a/b.c/~d", 0)
	f("/%C3%A9%20%3F%23%25/", 0) // what cannot stand raw in a path, and is the same for everybody
	f("/a%253B", 0)              // decoded once
	f("/a;x/b;y=1", raw, "/a/b")
	f("/;x/b", raw, "/b")
	f("/v1/users%3Adelete%40", Decode, "/v1/users:delete@")
	f("/%2F%2Fa", Decode|Slash, "/%2F%2Fa", "/a")
	f("/a%2F.%2Fb", Decode|Slash, "/a%2F.%2Fb", "/a/b")
	f("/a%2Fb%5Cc%3A", Decode|Slash|Backslash, "/a%2Fb%5Cc:", "/a/b%5Cc:", "/a/b/c:")
	f("/a%3Bx/b", DropDecoded|Decode, "/a;x/b", "/a/b")
	f("/a/..%3Bx/b", DropDecoded|Decode, ErrPathHiddenDot.Error(), "/b")
	f("/a;x%2Fy/b%3Bc", raw|Decode|Slash, "/a;x%2Fy/b;c", "/a;x/y/b;c", "/a/b%3Bc", "/a/b;c", "/a/b;c", "/a/b", "/a/y/b")
	f("/a;%5Cx/b%2Fc", raw|Decode|Slash|Backslash,
		"/a;%5Cx/b%2Fc", "/a;%5Cx/b/c", "/a;/x/b/c",
		"/a/b%2Fc", "/a/b%2Fc", "/a/b/c", "/a/b/c",
		"/a/b%2Fc", "/a/b/c", "/a/x/b/c")
}

var (
	testEscape     = regexp.MustCompile(`%[0-9A-F]{2}`)
	testParameters = regexp.MustCompile(`;[^/]*`)
)

// readStepwise reads a path as servers do: one step after the other.
func readStepwise(r Reading, path string) string {
	if r&DropRaw != 0 {
		path = testParameters.ReplaceAllString(path, "")
	}
	if r&Decode != 0 {
		path = testEscape.ReplaceAllStringFunc(path, func(escape string) string {
			c := unhex(escape[1])<<4 | unhex(escape[2])
			if escape == "%2F" && r&Slash == 0 || escape == "%5C" && r&Backslash == 0 || !readable(c) {
				return escape
			}
			return string(rune(c))
		})
	}
	path = strings.ReplaceAll(path, "\\", "/")
	if r&DropDecoded != 0 {
		path = testParameters.ReplaceAllString(path, "")
	}
	return path
}

// Each way reads a path step by step, and one that Readings leaves out finds nothing that the others do not.
func FuzzReadings(f *testing.F) {
	for _, s := range []string{"/", "/a;b", "/a%2fb", "/%3b;%5c/", "/a/..;/b", "/%", "/a;%2fb%5c%3a/c%3b%2fd", "/a/..%3bx", "/%5c%3a", "/%2f%3b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, _, err := Normalize(nil, []byte(s))
		if err != nil || path[0] != '/' {
			return
		}
		all := Readings(path)
		type outcome struct {
			read string
			err  error
		}
		tried := []outcome{{string(path), nil}}
		var left []outcome
		for _, way := range Ways {
			read, err := way.Of(path)
			want, _, wantErr := Normalize(nil, []byte(readStepwise(way, string(path))))
			if !bytes.Equal(read, want) || err != wantErr {
				t.Errorf("%q is read as %q, %v by %05b, want %q, %v", path, read, err, way, want, wantErr)
			}
			if way&all == way {
				tried = append(tried, outcome{string(read), err})
			} else {
				left = append(left, outcome{string(read), err})
			}
		}
		for _, o := range left {
			if !slices.Contains(tried, o) {
				t.Errorf("%q could be read as %q, %v, which is not tried", path, o.read, o.err)
			}
		}
	})
}
