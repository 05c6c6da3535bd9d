package app

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// settle is how long the files must be quiet before they are read: an editor writes a file in several steps, and a
// ConfigMap changes by moving links. But no longer than settleMax: somebody may write all the time.
const (
	settle    = 100 * time.Millisecond
	settleMax = time.Second
)

// watcher reloads when the config, or a file that it names (certificates, secrets), changes. It watches folders and not
// files: editors and ConfigMaps replace files, and a watch on a replaced file sees nothing more.
type watcher struct {
	app    *App
	events *fsnotify.Watcher
	// seen holds the digest of each file as it was before the last reload read it, so that a change during a reload leads to
	// another one.
	seen digests
}

// digests are the contents of files, by path. A file that is not there has the zero digest.
type digests map[string][sha256.Size]byte

// newWatcher begins to watch: what changes from now on is noticed when run is called.
func (a *App) newWatcher() (*watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watcher{app: a, events: events, seen: digests{}}
	w.follow()
	return w, nil
}

// run ends with ctx.
func (w *watcher) run(ctx context.Context) {
	defer w.events.Close()
	quiet := time.NewTimer(0)
	<-quiet.C
	var first time.Time // the first event that was not looked at; zero: there is none
	look := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		quiet.Reset(min(settle, first.Add(settleMax).Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.events.Events:
			if w.concerns(e) {
				look()
			}
		case err := <-w.events.Errors: // events were lost, say
			w.app.log.Warn("watching the config's files", "error", err)
			look()
		case <-w.app.applied: // not by us, perhaps
			w.follow()
		case <-quiet.C:
			first = time.Time{}
			if changed, own := w.changed(); changed {
				w.app.filesChanged(ctx, own)
				w.follow()
			}
		}
	}
}

// changed says whether the files have another content than those that were read last, and whether the config's own text is among
// those that have.
func (w *watcher) changed() (changed, own bool) {
	now := w.app.digests()
	if maps.Equal(w.seen, now) {
		return false, false
	}
	own = w.own(now)
	w.seen = now
	// Whoever writes the file may also have sent SIGHUP: once is enough.
	w.app.mu.Lock()
	defer w.app.mu.Unlock()
	return !maps.Equal(w.app.read, now), own
}

// concerns says whether an event may be about the config. One that writes to another file of the folder (an access log, in the
// worst case) is not; one that makes or moves something may be, because a link can stand for our file.
func (w *watcher) concerns(e fsnotify.Event) bool {
	if e.Op&(fsnotify.Create|fsnotify.Rename|fsnotify.Remove) != 0 {
		return true
	}
	if e.Op&(fsnotify.Write|fsnotify.Chmod) == 0 {
		return false
	}
	return slices.ContainsFunc(w.app.files(), func(file string) bool {
		return filepath.Base(file) == filepath.Base(e.Name) || filepath.Base(target(file)) == filepath.Base(e.Name)
	})
}

// follow turns to the files of the config in service: their folders are watched, and those of the files that links point at.
func (w *watcher) follow() {
	now := w.app.digests()
	maps.DeleteFunc(w.seen, func(file string, _ [sha256.Size]byte) bool { _, ours := now[file]; return !ours })
	for file, digest := range now {
		if _, known := w.seen[file]; !known {
			w.seen[file] = digest
		}
	}
	var folders []string
	if info, err := os.Stat(w.app.options.ConfigPath); err == nil && info.IsDir() {
		folders = append(folders, w.app.options.ConfigPath)
	}
	for file := range now {
		folders = append(folders, filepath.Dir(file), filepath.Dir(target(file)))
	}
	slices.Sort(folders)
	listed := w.events.WatchList() // a folder that was removed or replaced is not in it any more
	for _, folder := range slices.Compact(folders) {
		if !slices.Contains(listed, folder) {
			_ = w.events.Add(folder) // it may not exist: its parent is not ours to watch, and the reload has said so
		}
	}
}

// target is the file that a path stands for.
func target(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// own says whether the config's own text is among what changed, and not only files that it names.
func (w *watcher) own(now digests) bool {
	for _, file := range w.app.ownFiles() {
		before, known := w.seen[file]
		if after, there := now[file]; known != there || before != after {
			return true
		}
	}
	return false
}

// digests sums up the content of each file.
func (a *App) digests() digests {
	all := digests{}
	for _, file := range a.files() {
		all[file] = [sha256.Size]byte{}
		if digest, err := digestOf(file); err == nil {
			all[file] = digest
		}
	}
	return all
}

// digestOf reads in pieces: of a large file at once, memory and time would be noticed by requests.
func digestOf(file string) (digest [sha256.Size]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return digest, err
	}
	defer f.Close()
	sum := sha256.New()
	for piece := make([]byte, 8<<10); ; pause.Moment() {
		n, err := f.Read(piece)
		sum.Write(piece[:n])
		if err == io.EOF {
			return [sha256.Size]byte(sum.Sum(nil)), nil
		}
		if err != nil {
			return digest, err
		}
	}
}

// files lists what decides about the config in service: our own files, and those it names.
func (a *App) files() []string {
	files := append(a.ownFiles(), a.store.Current().Config.Files()...)
	slices.Sort(files)
	return slices.Compact(files)
}

// ownFiles lists the files of our own source.
func (a *App) ownFiles() []string {
	if files, err := filepath.Glob(filepath.Join(a.options.ConfigPath, "*.yaml")); err == nil && len(files) > 0 {
		return files
	}
	return []string{a.options.ConfigPath}
}

// filesChanged puts changed files into service. own says that the config's own text is among them; if not, a config that was
// applied through the admin API stays, with the new content of the files that it names.
func (a *App) filesChanged(ctx context.Context, own bool) {
	a.mu.Lock()
	posted := a.posted
	if own {
		posted = nil
	}
	if posted != nil {
		a.read = nil // Reload is not the last to read the files
	}
	a.mu.Unlock()
	// Failures are logged, counted and shown by the admin API.
	if posted == nil {
		_, _ = a.Reload(ctx)
	} else {
		_, _ = a.Apply(ctx, posted, false)
	}
}
