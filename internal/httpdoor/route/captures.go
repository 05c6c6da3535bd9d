package route

// capturesMax is the most captures of one pattern.
const capturesMax = 16

// Captures holds what the captures of the winning pattern stood for. Its zero value is ready; one value serves many calls
// of Match, one after the other. Values are views into Request.Path: still percent-encoded, and valid as long as it.
type Captures struct {
	path  []byte
	names []string // of the pattern; shared, never written
	spans [capturesMax]span
	star  span
}

// span is path[from:to]; a group of a regular expression that took no part has from -1.
type span struct{ from, to int }

// Get gives what the capture {name}, or the named group of a regular expression, stood for.
func (c *Captures) Get(name string) ([]byte, bool) {
	for i, n := range c.names {
		if n == name {
			if c.spans[i].from < 0 {
				return nil, false
			}
			return c.path[c.spans[i].from:c.spans[i].to], true
		}
	}
	return nil, false
}

// Star gives what the star at the pattern's end stood for, without the slash before it. It is empty for patterns without
// a star, and where nothing followed.
func (c *Captures) Star() []byte { return c.path[c.star.from:c.star.to] }

// Names lists the captures, without the star. The slice must not be written to.
func (c *Captures) Names() []string { return c.names }

func (c *Captures) reset() {
	c.path, c.names, c.star = nil, nil, span{}
}

// fill takes p apart over path, which p matches.
func (c *Captures) fill(p *pattern, path []byte) {
	c.path, c.names, c.star = path, p.names, span{}
	switch p.kind {
	case kindRegex:
		if len(p.names) == 0 {
			return
		}
		found := p.re.FindSubmatchIndex(path)
		for i, group := range p.groups {
			c.spans[i] = span{found[2*group], found[2*group+1]}
		}
	case kindSegments:
		at, captured := 0, 0
		for _, s := range p.segments {
			from := at + 1
			at = segmentEnd(path, from)
			if s.capture {
				c.spans[captured] = span{from, at}
				captured++
			}
		}
		if p.star {
			c.star = span{min(at+1, len(path)), len(path)}
		}
	}
}

// segmentEnd gives the index of the slash after from, or the path's length.
func segmentEnd(path []byte, from int) int {
	for from < len(path) && path[from] != '/' {
		from++
	}
	return from
}
