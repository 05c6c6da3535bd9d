// Package ratelimit bounds how many requests a client, a consumer or whatever a key stands for may send in a time. Too many are
// refused with 429, Retry-After (rounded up) and fields that tell well-behaved clients beforehand.
//
// A limit that is written once is one limit: in a named list it counts the requests of all routes that use the list, on a
// listener those of all its routes. Limits on a listener and on a route both apply. Two limits with the same scope are one,
// and must be written alike. Counts survive a reload as long as the limit stays where it is written (or keeps its scope).
//
// It counts in this process alone: with several gateways, each admits the rate. It refuses to queue: who is over the rate is
// told so at once.
package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
)

// Kind is the policy rate_limit. Several may apply: 10/s and 1000/h, a listener's and a route's.
var Kind = policy.Define("rate_limit", compile).Multiple()

// Settings of the policy. The short form is Rate.
type Settings struct {
	Rate      config.Rate `yaml:"rate" short:"true" required:"true" doc:"Requests in a time: 10/s, 600/m, 1000/h, 5/10s."`
	Burst     int         `yaml:"burst" default:"0" max:"1000000" doc:"token_bucket: requests that may come at once. 0 means as many as the rate's number."`
	Algorithm string      `yaml:"algorithm" enum:"token_bucket,sliding_window" default:"token_bucket" doc:"token_bucket: evenly, with bursts. sliding_window: never more than the number in any such time, approximated from two windows of the clock."`
	Key       string      `yaml:"key" default:"client_address" doc:"What is counted apart: client_address (an IPv6 /64 counts as one), consumer, header:NAME, cookie:NAME, or path. A request without it is counted by its client address."`
	Scope     string      `yaml:"scope" form:"name" doc:"Limits with the same scope count together, wherever they are written."`
	Headers   string      `yaml:"headers" enum:"draft,legacy,off" default:"draft" doc:"draft: RateLimit and RateLimit-Policy (IETF draft). legacy: X-RateLimit-Limit, -Remaining and -Reset. off: only Retry-After."`
	Status    int         `yaml:"status" default:"429" min:"400" max:"599" doc:"Status of a refusal."`
	Entries   int         `yaml:"entries" default:"100000" min:"64" max:"100000000" doc:"Most keys that are remembered, about 60 bytes each. Beyond it, those with the least to tell are forgotten."`
}

type keyKind uint8

const (
	byAddress keyKind = iota
	byConsumer
	byHeader
	byCookie
	byPath
)

type limit struct {
	algorithm algorithm
	table     *Table
	entries   int
	key       keyKind
	name      string // of the header or the cookie
	status    int
	// The lines before and between the two numbers that change.
	before, between, after string
	fields                 bool
	legacy                 bool
}

var legacyNames = policy.NewNames("X-RateLimit-*")

func compile(s *Settings, e *policy.Env) policy.Policy {
	l := &limit{entries: s.Entries, status: s.Status}
	burst := s.Burst
	if burst == 0 {
		burst = s.Rate.Count
	}
	quota, window := s.Rate.Count, s.Rate.Per
	if s.Algorithm == "sliding_window" {
		if s.Burst != 0 {
			e.Problem("burst", "does not belong to sliding_window (accepted: with token_bucket)")
		}
		l.algorithm = slidingWindow{int64(s.Rate.Count), int64(s.Rate.Per)}
	} else {
		bucket := newTokenBucket(s.Rate.Count, s.Rate.Per, burst)
		if int64(burst) > int64(burstMax)/bucket.interval {
			e.Problem("burst", "%d requests at %s take longer than a year to refill (accepted: a smaller burst)", burst, s.Rate)
		}
		l.algorithm = bucket
		quota, window = burst, time.Duration(float64(s.Rate.Per)*float64(burst)/float64(s.Rate.Count)) // bucket.full is a little more: its interval is rounded up
	}
	l.readKey(s.Key, e)
	name := s.Scope
	if name == "" {
		name = e.Place[strings.IndexByte(e.Place, '.')+1:]
	}
	l.writeFields(s.Headers, name, quota, ceilSeconds(int64(window)))
	// The words of a window are counts in windows of one width; those of a bucket are times.
	key := "at " + e.Place
	if s.Scope != "" {
		key = "scope " + s.Scope
	}
	key += " " + s.Algorithm
	if s.Algorithm == "sliding_window" {
		key += " " + s.Rate.Per.String()
	}
	table, elsewhere := policy.State(e, key, *s, NewTable)
	if elsewhere != "" {
		e.Problem("scope", "%q is written differently at %s (accepted: the same settings)", s.Scope, elsewhere)
	}
	l.table = table
	return l
}

const burstMax = 366 * 24 * time.Hour

func (l *limit) readKey(text string, e *policy.Env) {
	kind, name, named := strings.Cut(text, ":")
	l.name = name
	switch {
	case text == "client_address":
		l.key = byAddress
	case text == "consumer":
		l.key = byConsumer
	case text == "path":
		l.key = byPath
	case kind == "header" && named && h1.ValidName(name):
		l.key = byHeader
	case kind == "cookie" && named && h1.ValidName(name):
		l.key = byCookie
	default:
		near := config.Nearest(kind, []string{"client_address", "consumer", "header", "cookie", "path"})
		if near != "" && near != kind {
			near = "; nearest: " + near
		} else {
			near = ""
		}
		e.Problem("key", "%q is no key (accepted: client_address, consumer, header:NAME, cookie:NAME, path%s)", text, near)
	}
}

// writeFields prepares the lines that every response carries (draft-ietf-httpapi-ratelimit-headers-10).
func (l *limit) writeFields(style, name string, quota int, window int64) {
	switch style {
	case "draft":
		l.fields = true
		l.before = `RateLimit-Policy: "` + name + `";q=` + strconv.Itoa(quota) + ";w=" + strconv.FormatInt(window, 10) + "\r\n" + `RateLimit: "` + name + `";r=`
		l.between, l.after = ";t=", "\r\n"
	case "legacy":
		l.fields, l.legacy = true, true
		l.before = "X-RateLimit-Limit: " + strconv.Itoa(quota) + "\r\nX-RateLimit-Remaining: "
		l.between, l.after = "\r\nX-RateLimit-Reset: ", "\r\n"
	}
}

func ceilSeconds(ns int64) int64 { return (ns + int64(time.Second) - 1) / int64(time.Second) }

// Request counts the request, and refuses it when there were too many.
func (l *limit) Request(x *policy.Exchange) policy.Outcome {
	v := l.table.take(l.algorithm, l.hash(x), int64(x.Now), l.entries)
	wait := ceilSeconds(v.wait)
	if l.fields {
		if l.legacy {
			x.ToClient.Remove(legacyNames) // of two limits, the last one is told
		}
		x.ToClient.AddCounts(l.before, v.left, l.between, wait, l.after)
	}
	if v.admitted {
		return policy.Continue
	}
	f := fault.New(fault.Limited, "too many requests")
	f.RetryWait = int(max(1, wait))
	return x.RefuseWith(l.status, f)
}

// hash gives the hash of the request's key; without it, that of the client's address.
func (l *limit) hash(x *policy.Exchange) uint64 {
	switch l.key {
	case byConsumer:
		if x.Consumer != nil {
			return hash(l.table, byConsumer, x.Consumer.Name)
		}
	case byPath:
		return hash(l.table, byPath, x.Path)
	case byHeader:
		if v, found := x.Head.Lookup(l.name); found {
			return hash(l.table, byHeader, v)
		}
	case byCookie:
		if v, found := policy.Cookie(x.Head, l.name); found {
			return hash(l.table, byCookie, v)
		}
	}
	address := x.Client.As16()
	if x.Client.Is6() {
		clear(address[8:]) // one customer has at least a /64
	}
	return hash(l.table, byAddress, address[:])
}
