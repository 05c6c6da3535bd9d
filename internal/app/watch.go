package app

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the files must be quiet before they are read: an editor writes a file in several steps, and a
// ConfigMap changes by moving links.
const settle = 100 * time.Millisecond

// watch reloads when the config, or a file that it names (certificates, secrets), changes. It watches folders and not
// files: editors and ConfigMaps replace files, and a watch on a replaced file sees nothing more. It ends with ctx.
func (a *App) watch(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Error("cannot watch the config's files; SIGHUP still reloads", "error", err)
		return
	}
	defer w.Close()
	watched := map[string]bool{}
	follow := func() {
		for _, folder := range a.folders() {
			if !watched[folder] && w.Add(folder) == nil {
				watched[folder] = true
			}
		}
	}
	follow()
	last := a.digest()
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Events:
			quiet = time.After(settle)
		case err := <-w.Errors:
			a.log.Warn("watching the config's files", "error", err)
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			if now := a.digest(); now != last { // many events are of other files in the folder, or of a mere touch
				last = now
				_, _ = a.Reload(ctx) // its failure is logged, counted and shown there
				follow()
				last = a.digest()
			}
		}
	}
}

// files lists what decides about the config: its own files, and those it names.
func (a *App) files() []string {
	files := a.store.Current().Config.Files()
	if a.store.Current().Source != a.options.ConfigPath { // applied through the admin API: our own source still counts
		files = append(files, a.options.ConfigPath)
	}
	if more, err := filepath.Glob(filepath.Join(a.options.ConfigPath, "*.yaml")); err == nil {
		files = append(files, more...)
	}
	return files
}

func (a *App) folders() []string {
	folders := []string{}
	if info, err := os.Stat(a.options.ConfigPath); err == nil && info.IsDir() {
		folders = append(folders, a.options.ConfigPath)
	}
	for _, file := range append(a.files(), a.options.ConfigPath) {
		folders = append(folders, filepath.Dir(file))
	}
	return folders
}

// digest sums up the content of all files.
func (a *App) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, file := range append(a.files(), a.options.ConfigPath) {
		_, _ = io.WriteString(h, file+"\x00")
		if f, err := os.Open(file); err == nil {
			_, _ = io.Copy(h, f) // a folder, or a file that is gone, adds nothing
			f.Close()
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
