package app

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestWatcherLeavesWhatWasReloaded: who writes the file and sends SIGHUP gets one reload, not another by the watcher; and what
// changes after that is seen.
func TestWatcherLeavesWhatWasReloaded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "menshen.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const text = "listeners: {web: {address: '127.0.0.1:0'}}\nroutes: {a: {match: /a, respond: 200}}\naccess_log: none\n"
	write(text)
	a, err := New(Options{ConfigPath: path, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx); err != nil { // closes what New has opened
			t.Error(err)
		}
	}()
	w, err := a.newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.events.Close()
	expect := func(when string, want bool) {
		t.Helper()
		if changed, own := w.changed(); changed != want || changed && !own {
			t.Errorf("%s: changed %t (own %t), want %t", when, changed, own, want)
		}
	}
	reload := func() { _, _ = a.Reload(t.Context()) }
	expect("at the start", false)
	write(text + "# 1\n")
	expect("a change", true)
	expect("the same change once more", false)
	write(text + "# 2\n")
	reload()
	expect("a change that was reloaded", false)
	write(text + "# 3\n")
	expect("a change after a reload", true)
	write("nonsense")
	reload()
	expect("a change that was refused", false)
	write(text + "# 2\n")
	expect("a change back to what an earlier reload read", true)
}

// TestWatcherFollowsFilesOfWhatWasPosted: a config from the admin API gets the content that the files it names have now, also when that
// is what an earlier reload read.
func TestWatcherFollowsFilesOfWhatWasPosted(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path, named := filepath.Join(folder, "menshen.yaml"), filepath.Join(folder, "named")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const text = "listeners: {web: {address: '127.0.0.1:0'}}\nroutes: {a: {match: /a, respond: {body: '${file:named}'}}}\naccess_log: none\n"
	write(path, text)
	write(named, "1")
	a, err := New(Options{ConfigPath: path, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx); err != nil { // closes what New has opened
			t.Error(err)
		}
	}()
	w, err := a.newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.events.Close()
	post := func() {
		t.Helper()
		if _, err := a.Apply(t.Context(), []byte(text+"# posted\n"), false); err != nil {
			t.Fatal(err)
		}
	}
	post()
	if _, err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	post()
	w.follow()
	for _, content := range []string{"2", "1", "2", "1"} {
		write(named, content)
		changed, own := w.changed()
		if !changed || own {
			t.Errorf("%s: changed %t, own %t", content, changed, own)
		}
		if changed { // as run does
			a.filesChanged(t.Context(), own)
			w.follow()
		}
		if got := a.store.Current(); got.Config.Routes["a"].Respond.Body != content || got.Source != "admin API" {
			t.Errorf("%q from %s is in service, want %q from the admin API", got.Config.Routes["a"].Respond.Body, got.Source, content)
		}
	}
}
