package group

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Position is the transactions that an instance has, by their global ids. The zero value is empty. It is never changed.
//
// MariaDB numbers transactions in one sequence per domain, so a domain's last number stands for all before it; who wrote
// them is remembered too, because two servers that never met may use the same domain. MySQL has sets of numbers for each
// server (and tag).
type Position struct {
	domains map[uint32]domain
	sets    map[string][]span
}

// domain is how far a MariaDB domain is.
type domain struct {
	last    uint64
	head    uint32            // who wrote that
	servers map[uint32]uint64 // the last of each that wrote in it, as far as is known
}

// span is the transactions first to last of a MySQL server.
type span struct{ first, last uint64 }

// ParseMariaDB reads positions such as "0-1-100,5-2-7" (domain, server, sequence). Several, of one instance, are united: a
// later one may name other servers of the same domain.
func ParseMariaDB(texts ...string) (Position, error) {
	p := Position{domains: map[uint32]domain{}}
	for _, text := range texts {
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			parts := strings.Split(item, "-")
			if len(parts) != 3 {
				return Position{}, fmt.Errorf("%q is not domain-server-sequence", clip(item))
			}
			number, err1 := strconv.ParseUint(parts[0], 10, 32)
			server, err2 := strconv.ParseUint(parts[1], 10, 32)
			sequence, err3 := strconv.ParseUint(parts[2], 10, 64)
			if err := cmp.Or(err1, err2, err3); err != nil {
				return Position{}, fmt.Errorf("%q is not domain-server-sequence", clip(item))
			}
			d := p.domains[uint32(number)]
			p.domains[uint32(number)] = d.with(uint32(server), sequence)
		}
	}
	return p, nil
}

// with adds a transaction. The map of servers may be changed in place.
func (d domain) with(server uint32, sequence uint64) domain {
	if d.servers == nil {
		d.servers = map[uint32]uint64{}
	}
	d.servers[server] = max(d.servers[server], sequence)
	if sequence > d.last || len(d.servers) == 1 {
		d.last, d.head = max(d.last, sequence), server
	}
	return d
}

// ParseMySQL reads a set such as "3E11FA47-...:1-5:11-18, other:tag:7".
func ParseMySQL(text string) (Position, error) {
	p := Position{sets: map[string][]span{}}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.ToLower(strings.Join(strings.Fields(item), "")); item == "" {
			continue
		}
		parts := strings.Split(item, ":")
		if len(parts) < 2 || len(parts[0]) != 36 {
			return Position{}, fmt.Errorf("%q is not server:numbers", clip(item))
		}
		key := parts[0]
		for _, part := range parts[1:] {
			if part == "" {
				return Position{}, fmt.Errorf("%q has an empty part", clip(item))
			}
			if part[0] < '0' || part[0] > '9' { // a tag, for the numbers that follow
				key = parts[0] + ":" + part
				continue
			}
			from, to, ranged := strings.Cut(part, "-")
			first, err := strconv.ParseUint(from, 10, 63)
			last := first
			if err == nil && ranged {
				last, err = strconv.ParseUint(to, 10, 63)
			}
			if err != nil || first == 0 || last < first {
				return Position{}, fmt.Errorf("%q is not a range of numbers", clip(part))
			}
			p.sets[key] = append(p.sets[key], span{first, last})
		}
	}
	for key, spans := range p.sets {
		p.sets[key] = merged(spans)
	}
	return p, nil
}

// merged sorts spans and joins those that touch.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Empty says that there is no transaction in it, or that nothing is known.
func (p Position) Empty() bool { return len(p.domains) == 0 && len(p.sets) == 0 }

// Covers says that p has every transaction of q, if both are of one history: MariaDB's numbers alone tell no more. Every position covers the
// empty one.
func (p Position) Covers(q Position) bool {
	for number, d := range q.domains {
		if p.domains[number].last < d.last {
			return false
		}
	}
	for key, spans := range q.sets {
		have := p.sets[key]
		for _, s := range spans {
			if !slices.ContainsFunc(have, func(h span) bool { return h.first <= s.first && s.last <= h.last }) {
				return false
			}
		}
	}
	return true
}

// Contains says that p has every transaction of q, also when their histories may have parted: in each domain it has the very last one of q, by number and server,
// and with it all before.
func (p Position) Contains(q Position) bool {
	for number, d := range q.domains {
		if p.domains[number].servers[d.head] < d.last {
			return false
		}
	}
	return p.Covers(q)
}

// Related says that p and q share a piece of history: a server's transactions in the same domain (MariaDB), or a
// transaction (MySQL). An empty position is related to none.
func (p Position) Related(q Position) bool {
	for number, d := range q.domains {
		for server := range d.servers {
			if _, both := p.domains[number].servers[server]; both {
				return true
			}
		}
	}
	for key, spans := range q.sets {
		for _, s := range spans {
			if slices.ContainsFunc(p.sets[key], func(h span) bool { return h.first <= s.last && s.first <= h.last }) {
				return true
			}
		}
	}
	return false
}

// Union gives the transactions of both.
func (p Position) Union(q Position) Position {
	out := Position{domains: map[uint32]domain{}, sets: map[string][]span{}}
	for _, from := range []Position{p, q} {
		for number, d := range from.domains {
			to := out.domains[number]
			for server, sequence := range d.servers {
				to = to.with(server, sequence)
			}
			out.domains[number] = to
		}
		for key, spans := range from.sets {
			out.sets[key] = merged(append(slices.Clone(out.sets[key]), spans...))
		}
	}
	return out
}

func clip(s string) string { return s[:min(len(s), 40)] }
