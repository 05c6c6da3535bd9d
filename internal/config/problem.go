package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration, in words for its author.
type Problem struct {
	File    string // as it was named to Load or Parse; empty when the config was not read from text
	Line    int    // from 1; 0 when there is no position
	Column  int    // in characters, from 1
	Path    string // listeners.web.address, routes.users.match.paths[0]; empty for the whole file
	Message string // what is wrong (what would be accepted; nearest key)
}

// String gives file:line:column: path: message, without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	for _, part := range []string{p.Path, p.Message} {
		if part == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	return b.String()
}

// Problems are all the problems of one configuration, sorted by file and line. As an error it is the user's fault, and
// its text has one line for each problem.
type Problems []Problem

// Error gives one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err gives ps as an error, or nil when there is no problem: a nil slice inside an error would not be nil.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// problemsMax bounds what one refusal prints; nobody reads further, and a hostile file could ask for millions.
const problemsMax = 500

// finish sorts problems, drops doubles, and cuts the list at problemsMax.
func (ps Problems) finish() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	ps = slices.Compact(ps)
	if more := len(ps) - problemsMax; more > 0 {
		last := ps[problemsMax-1]
		ps = append(ps[:problemsMax:problemsMax], Problem{File: last.File, Line: last.Line, Column: last.Column,
			Message: fmt.Sprintf("and %d more problems", more)})
	}
	return ps
}

// With gives ps with more of them.
func (ps Problems) With(more Problems) Problems { return append(slices.Clone(ps), more...).finish() }

// Nearest gives the candidate that word was probably meant to be, or "" when nothing is near: at most one typing error
// (a letter missing, added, changed, or swapped with its neighbour) for each three letters, and not every letter wrong.
// Case does not count. A tie goes to the candidate that sorts first.
func Nearest(word string, candidates []string) string {
	if len(word) > 128 { // the cost is quadratic, and no name of ours is that long
		return ""
	}
	best, bestDistance := "", 0
	folded := []rune(strings.ToLower(word))
	for _, c := range candidates {
		if len(c) > 128 {
			continue
		}
		other := []rune(strings.ToLower(c))
		d := distance(folded, other)
		if d > max(1, (max(len(folded), len(other))+1)/3) || d >= len(folded) {
			continue
		}
		if best == "" || d < bestDistance || d == bestDistance && c < best {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance of a and b in its restricted form (no edit inside a swapped pair).
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
