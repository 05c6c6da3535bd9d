// Package config reads what the user wrote: YAML in a file or a folder becomes a Config, with defaults filled in,
// references expanded and names checked against each other, or a list of every problem, each with its place.
//
// Load and Parse are the way in; Config is the model, whose field tags are at once its strict decoder, its defaults, its
// manual and its JSON Schema (see fields.go). Export, Diff and SHA256 are the way out. A Node is a part that was kept as
// written, for an owner that decodes it later.
//
// The package opens no socket, reads no clock, and starts no goroutine. It refuses YAML that says one thing in two ways:
// anchors, aliases, merge keys, tags, several documents in a file. It does not judge what only a compiled snapshot can:
// ambiguous routes, unreadable certificates, ports in use.
package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// File is configuration text with the name that messages give it. Relative paths inside start in the name's folder.
type File struct {
	Name string
	Data []byte
}

// source is what Parse remembers beside the values.
type source struct {
	root  *Node
	files []string
	// lifted holds the path of each service that was written in place, which is also its name.
	lifted map[string]*Node
}

// Load reads a file, or every *.yaml in a folder (not in folders below it), and parses it. An error is Problems when the
// user can mend it in the text, and an I/O error otherwise.
func Load(path string) (*Config, error) {
	files, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	return Parse(files...)
}

// readFiles reads what Load parses.
func readFiles(path string) ([]File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	names := []string{path}
	if info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("read config: %w", err)
		}
		names = nil
		for _, e := range entries { // sorted by name
			name := filepath.Join(path, e.Name())
			if filepath.Ext(e.Name()) != ".yaml" || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			// A mounted ConfigMap holds links, so the entry's own type says little.
			if info, err := os.Stat(name); err == nil && info.IsDir() {
				continue
			}
			names = append(names, name)
		}
		if len(names) == 0 {
			return nil, Problems{{File: path, Message: "the folder holds no *.yaml file"}}
		}
	}
	files, total := make([]File, len(names)), 0
	for i, name := range names {
		data, err := readUpTo(name, bytesMax+1)
		if err != nil {
			return nil, fmt.Errorf("read config: %w", err)
		}
		files[i] = File{Name: name, Data: data}
		if total += len(data); total > bytesMax {
			break // Parse says so
		}
	}
	return slices.DeleteFunc(files, func(f File) bool { return f.Name == "" }), nil
}

func readUpTo(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var size int64 // known or not, it is only where to begin: io.ReadAll alone would allocate and copy a large file several times over
	if info, err := f.Stat(); err == nil {
		size = min(info.Size(), limit)
	}
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err = data.ReadFrom(io.LimitReader(f, limit))
	return data.Bytes(), err
}

// Parse reads the files as one configuration. An error is Problems. References are looked up in the environment and in
// files, so the result depends on more than the arguments.
func Parse(files ...File) (*Config, error) {
	c, problems := parse(files)
	if len(problems) > 0 {
		return nil, problems.finish()
	}
	return c, nil
}

// parse gives the problems as they were found, and beside them what could be decoded; nil when nothing could.
func parse(files []File) (*Config, Problems) {
	var problems Problems
	var roots []*Node
	s := &source{lifted: make(map[string]*Node)}
	total := 0
	for _, f := range files {
		s.files = append(s.files, f.Name)
		if total += len(f.Data); total > bytesMax {
			return nil, Problems{{File: f.Name, Message: fmt.Sprintf("is too large (accepted: %d MiB in all files together)", bytesMax>>20)}}
		}
		root, found := parseYAML(&document{name: f.Name, dir: filepath.Dir(f.Name)}, f.Data)
		problems = append(problems, found...)
		if root != nil {
			roots = append(roots, root)
		}
	}
	c := &Config{source: s}
	sections := shapeOf(configType)
	root, found := merge(roots, sections)
	problems = append(problems, found...)
	if root == nil {
		if len(problems) == 0 {
			problems = Problems{{File: firstName(files), Line: 1, Column: 1, Message: "is empty (" + minimal + ")"}}
		}
		return nil, problems
	}
	s.root = root
	e := expander{files: make(map[string]bool)}
	e.tree(root)
	problems = append(problems, e.problems...)
	d := decoder{lift: func(name string, service *Service) {
		if c.Services == nil {
			c.Services = make(map[string]*Service)
		}
		c.Services[name] = service
		s.lifted[name] = root.find(name)
	}}
	d.config(root, c)
	c.settleDefaults()
	problems = append(problems, d.problems...)
	if len(problems) == 0 || root.kind == kindMapping {
		problems = append(problems, c.check()...)
	}
	if len(problems) == 0 {
		s.files = append(s.files, c.namedFiles(e.files)...)
	}
	return c, problems
}

// idleSQL is the default of timeouts.idle for mysql listeners, MySQL's own wait_timeout: clients there keep connections in
// pools of their own for hours.
const idleSQL = Duration(8 * time.Hour)

// settleDefaults sets the defaults that depend on other settings.
func (c *Config) settleDefaults() {
	for name, l := range c.Listeners {
		if l != nil && l.Protocol == ProtocolMySQL && c.node(join(join(join("listeners", name), "timeouts"), "idle")) == nil {
			l.Timeouts.Idle = idleSQL
		}
	}
}

const minimal = "a minimal configuration is: listeners: {web: {address: \":8080\"}} and routes: {ping: {match: /ping, respond: 200}}"

func firstName(files []File) string {
	if len(files) == 0 {
		return ""
	}
	return files[0].Name
}

// Problem places a remark about the value at path (listeners.web.address, routes.users.match.paths[0]): at its own
// position, or at that of its nearest ancestor that was written. It has no position when c was not read from text.
func (c *Config) Problem(path, format string, args ...any) Problem {
	p := Problem{Path: path, Message: fmt.Sprintf(format, args...)}
	if c.source == nil || c.source.root == nil {
		return p
	}
	// A service that was written in place is known as services.<its path>: point at where it stands.
	if rest, found := strings.CutPrefix(path, "services."); found {
		for name := range c.source.lifted {
			if after, found := strings.CutPrefix(rest, name); found && (after == "" || after[0] == '.' || after[0] == '[') && c.source.root.get("services").get(name) == nil {
				p.Path = rest
			}
		}
	}
	n := c.source.root.find(p.Path)
	placed := n.Problem("")
	p.File, p.Line, p.Column = placed.File, placed.Line, placed.Column
	return p
}

// Node gives what the user wrote, merged into one tree; nil when c was built by code.
func (c *Config) Node() *Node {
	if c.source == nil {
		return nil
	}
	return c.source.root
}

// Files gives the files that the configuration was made of: those parsed, in their order, then those named by ${file:}
// references and by TLS settings, sorted. A change of any of them is a change of the configuration.
func (c *Config) Files() []string {
	if c.source == nil {
		return c.namedFiles(nil)
	}
	return slices.Clone(c.source.files)
}

// namedFiles gives the files of TLS settings, together with more.
func (c *Config) namedFiles(more map[string]bool) []string {
	named := make(map[string]bool)
	add := func(paths ...string) {
		for _, p := range paths {
			if p != "" {
				named[p] = true
			}
		}
	}
	client := func(t *ClientTLS) {
		if t != nil {
			add(t.CA, t.Cert, t.Key)
		}
	}
	for path := range more {
		add(path)
	}
	for _, l := range c.Listeners {
		if l.TLS == nil {
			continue
		}
		add(l.TLS.Cert, l.TLS.Key)
		for _, pair := range l.TLS.Certificates {
			add(pair.Cert, pair.Key)
		}
		if a := l.TLS.ClientAuth; a != nil {
			add(a.CA)
		}
	}
	for _, s := range c.Services {
		client(s.TLS)
	}
	for _, d := range c.Databases {
		client(d.TLS)
	}
	files := make([]string, 0, len(named))
	for path := range named {
		files = append(files, path)
	}
	slices.Sort(files)
	return files
}

// SHA256 gives the hexadecimal digest of the effective configuration: every setting with its default, in a fixed order,
// so that neither comments nor the order of keys nor a short form instead of a long one change it. References count as
// they are written and secrets count as masked: the digest tells nothing about a secret, and so it does not tell that
// one was changed either. Whoever decides whether to reload must not decide by it.
func (c *Config) SHA256() string {
	sum := sha256.Sum256(c.Export(ExportOptions{MaskSecrets: true, Defaults: true, canonical: true}))
	return hex.EncodeToString(sum[:])
}
