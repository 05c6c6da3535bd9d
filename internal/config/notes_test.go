package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	f := func(routes, want string) {
		t.Helper()
		c, err := Parse(File{Name: "m.yaml", Data: []byte("routes:\n" + routes)})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if notes := c.Notes(); len(notes) > 0 {
			got = notes.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", routes, got, want)
		}
	}
	f("  r: {match: users/*, respond: 200}", `m.yaml:2:14: routes.r.match: matches the host "users" (for the path write "/users/*"; if the host is meant, {hosts: users, paths: "/*"} says so)`)
	f("  r: {match: GET users/a/b, respond: 200}", `m.yaml:2:14: routes.r.match: matches the host "users" (for the path write "/users/a/b"; if the host is meant, {hosts: users, paths: "/a/b"} says so)`)
	f("  r: {match: /users/*, respond: 200}", "")
	f("  r: {match: a.example/users/*, respond: 200}", "")
	f("  r: {match: localhost/users/*, respond: 200}", "")
	f("  r: {match: '[::1]/users/*', respond: 200}", "")
	f("  r: {match: '~^/users', respond: 200}", "")
	f("  r: {match: {hosts: users, paths: /*}, respond: 200}", "")
	f("  r: {match: gateway/users/*, respond: 200}\n  s: {match: Gateway/*, respond: 200}", "") // a host, for certain
}

func TestUnread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yml", "C.YML", ".d.yml", "README.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("admin: ':1'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const message = ": is not read (of a folder, names that end in .yaml are)"
	if got, want := Unread(dir).Error(), filepath.Join(dir, "C.YML")+message+"\n"+filepath.Join(dir, "b.yml")+message; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := Unread(filepath.Join(dir, "b.yml")); len(got) > 0 {
		t.Error(got)
	}
}

func TestSpaceBehindTilde(t *testing.T) {
	t.Parallel()
	_, err := Parse(File{Name: "m.yaml", Data: []byte("routes: {r: {match: '~ ^/a', respond: 200}}")})
	if want := `m.yaml:1:21: routes.r.match: "~ ^/a" has a space before its expression, which no path has (accepted: [METHOD ][host]/path; write "~^/a")`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
