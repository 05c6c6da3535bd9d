package config

import (
	"os"
	"path/filepath"
	"strings"
)

// Notes are remarks on a configuration that is right, and may still not say what was meant. There are few, and each can be silenced by
// writing the same in another way: who gets used to them reads none.
func (c *Config) Notes() Problems {
	var notes Problems
	named := make(map[string]int)
	for _, r := range c.Routes {
		for _, host := range r.Match.Hosts {
			named[strings.ToLower(host)]++
		}
	}
	for _, name := range sorted(c.Routes) {
		at := join(join("routes", name), "match")
		n := c.node(at)
		if n == nil || n.kind != kindScalar || len(c.Routes[name].Match.Hosts) != 1 {
			continue // the long form says what it means
		}
		host := c.Routes[name].Match.Hosts[0]
		if strings.ContainsAny(host, ".:[*") || strings.EqualFold(host, "localhost") || named[strings.ToLower(host)] > 1 {
			continue
		}
		path := c.Routes[name].Match.Paths[0]
		notes = append(notes, c.Problem(at, "matches the host %q (for the path write %q; if the host is meant, {hosts: %s, paths: %q} says so)", host, "/"+host+path, host, path))
	}
	return notes
}

// Unread lists the files of a folder that look like configuration and are none, for their names do not end in .yaml.
func Unread(path string) Problems {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // a file, then
	}
	var notes Problems
	for _, e := range entries {
		if name := e.Name(); !e.IsDir() && strings.HasSuffix(strings.ToLower(name), ".yml") && !strings.HasPrefix(name, ".") {
			notes = append(notes, Problem{File: filepath.Join(path, name), Message: "is not read (of a folder, names that end in .yaml are)"})
		}
	}
	return notes
}
