package httpdoor

import (
	"slices"

	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
)

// readElsewhere looks for another way to read the path by which the request would have taken another route, with other policies or to another place: who
// forwards it would let /admin%2Fusers and /admin;x/users pass by what protects /admin/*. rule is the route that was found; other is -1 when all readings
// agree, or when nobody would have answered the other one. read is nil when a dot segment comes to light.
func (s *site) readElsewhere(r route.Request, rule int, all route.Reading) (other int, read []byte) {
	for _, way := range route.Ways {
		if way&all != way {
			continue
		}
		path, err := way.Of(r.Path)
		if err != nil { // as in /a/..%3Bx/b: nobody means that
			return rule, nil
		}
		alternative := r
		alternative.Path = path
		if v := s.routes.Match(&alternative, nil); v.Rule >= 0 && !s.alike(v.Rule, rule) {
			return v.Rule, path
		}
	}
	return -1, nil
}

// alike says that two routes do the same to a request, so that it does not matter which of them it takes.
func (s *site) alike(a, b int) bool {
	x, y := s.bound[a], s.bound[b]
	if x == y {
		return true
	}
	if x.respond != nil || y.respond != nil || x.redirect != nil || y.redirect != nil || x.rewrite != nil || y.rewrite != nil {
		return false
	}
	same := func(x, y share) bool { return x.target == y.target && x.upTo == y.upTo }
	return slices.EqualFunc(x.shares, y.shares, same) && (!s.policed || slices.EqualFunc(s.chains[a].all(), s.chains[b].all(), link.same))
}

func (c *chain) all() []link {
	if c == nil {
		return nil
	}
	return c.links
}

// same says that two links hold one policy: written once, for both.
func (l link) same(other link) bool {
	return l.at == other.at && l.place == other.place && l.entry.Settings == other.entry.Settings
}
