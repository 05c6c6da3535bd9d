package config

import (
	"maps"
	"slices"
	"strings"
)

// LoadIntact is Intact for what Load refuses.
func LoadIntact(path string) *Config {
	files, err := readFiles(path)
	if err != nil {
		return nil
	}
	return Intact(files...)
}

// Intact is for a configuration that Parse refuses: it gives the part of it that has no problem and needs nothing that has one, so that
// problems which only a compiled snapshot finds can be told together with those of Parse. nil when there is no such part, or when it
// cannot be told apart. It must not be served.
//
// An HTTP listener with a problem has its place taken by one that has only its name and its policies, because without listeners no
// route would be looked at.
func Intact(files ...File) *Config {
	c, problems := parse(files)
	if c == nil || c.source.root == nil || c.source.root.kind != kindMapping {
		return nil
	}
	left := remainder{Config: c, standIns: map[string]bool{}}
	for round := 0; len(problems) > 0; round++ {
		removed := false
		for _, p := range problems {
			gone, fits := left.remove(p.Path)
			if !fits {
				return nil
			}
			removed = removed || gone
		}
		if !removed && round > 0 { // a problem of the whole, not of a part
			return nil
		}
		problems = c.check()
	}
	return c
}

// remainder is a configuration on its way to one without problems.
type remainder struct {
	*Config
	standIns map[string]bool // listeners
}

// remove takes the named thing that path leads to, or into, out of the configuration. It says false when what remains could have
// problems only because of that: consumers are referred to from too many places.
func (c *remainder) remove(path string) (gone, fits bool) {
	within := func(name string) bool {
		rest, found := strings.CutPrefix(path, name)
		return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	for _, section := range []string{"", "listeners", "services", "routes", "databases", "policies"} {
		if path == section || within("consumers") { // all of it
			return false, false
		}
	}
	for _, name := range sorted(c.Listeners) {
		l := c.Listeners[name]
		if at := join("listeners", name); within(at) {
			delete(c.Listeners, name)
			gone = true
			if l == nil || l.Protocol != ProtocolHTTP || c.standIns[name] {
				continue
			}
			with, err := Parse(File{Data: []byte("listeners: {x: {address: ':0'}}")})
			if err != nil {
				panic("BUG: a listener with an address alone is refused: " + err.Error())
			}
			other := with.Listeners["x"]
			c.standIns[name] = true
			if !within(join(at, "policies")) {
				other.Policies = l.Policies
			}
			c.Listeners[name] = other
		}
	}
	take := func(section string, name string) bool {
		if !within(join(section, name)) {
			return false
		}
		gone = true
		for _, lifted := range slices.Collect(maps.Keys(c.source.lifted)) { // services written in it
			if strings.HasPrefix(lifted, join(section, name)+".") {
				delete(c.Services, lifted)
			}
		}
		return true
	}
	maps.DeleteFunc(c.Routes, func(name string, _ *Route) bool { return take("routes", name) })
	maps.DeleteFunc(c.Services, func(name string, _ *Service) bool { return take("services", name) })
	maps.DeleteFunc(c.Databases, func(name string, _ *Database) bool { return take("databases", name) })
	maps.DeleteFunc(c.Policies, func(name string, _ []Policy) bool { return take("policies", name) })
	return gone, true
}
