package route

import (
	"fmt"
	"testing"
)

// benchRules makes n rules as a large site has them: a hundred hosts and, for each, resources with exact paths, captures and
// prefixes.
func benchRules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		host, resource := fmt.Sprintf("api%d.example.com", i%100), i/100
		r := Rule{Name: fmt.Sprintf("r%06d", i), Hosts: []string{host}}
		switch resource % 4 {
		case 0:
			r.Paths = []string{fmt.Sprintf("/v1/resource%d/list", resource)}
		case 1:
			r.Paths = []string{fmt.Sprintf("/v1/resource%d/{id}", resource)}
		case 2:
			r.Paths = []string{fmt.Sprintf("/v1/resource%d/{id}/items/{item}", resource)}
			r.Methods = []string{"GET"}
		case 3:
			r.Paths = []string{fmt.Sprintf("/v1/resource%d/*", resource)}
		}
		rules[i] = r
	}
	return rules
}

// benchRequests spreads requests over all rules, so that a large table is not measured on cached lines alone.
func benchRequests(n int) []Request {
	requests := make([]Request, 0, 4096)
	for i := range cap(requests) {
		at := i * 7919 % n
		path := fmt.Sprintf("/v1/resource%d/", at/100)
		switch at / 100 % 4 {
		case 0:
			path += "list"
		case 1:
			path += "12345"
		case 2:
			path += "12345/items/67"
		case 3:
			path += "a/b/c"
		}
		requests = append(requests, Request{Method: []byte("GET"), Host: fmt.Appendf(nil, "api%d.example.com:8080", at%100), Path: []byte(path)})
	}
	return requests
}

// What does finding a route cost, and how does it grow with the number of routes?
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			table := compile(b, benchRules(n)...)
			requests := benchRequests(n)
			var c Captures
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if v := table.Match(&requests[i%len(requests)], &c); v.Rule < 0 {
					b.Fatal(string(requests[i%len(requests)].Path))
				}
			}
		})
	}
}

// And when all routes belong to one host, or nothing matches?
func BenchmarkMatchOneHost(b *testing.B) {
	rules := benchRules(100_000)
	for i := range rules {
		rules[i].Hosts = nil
		rules[i].Paths[0] = fmt.Sprintf("/tenant%d%s", i%100, rules[i].Paths[0])
	}
	table := compile(b, rules...)
	requests := benchRequests(100_000)
	for i := range requests {
		requests[i].Path = fmt.Appendf(nil, "/tenant%d%s", i*7919%100_000%100, requests[i].Path)
	}
	var c Captures
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if v := table.Match(&requests[i%len(requests)], &c); v.Rule < 0 {
				b.Fatal(string(requests[i%len(requests)].Path))
			}
		}
	})
	miss := Request{Method: []byte("GET"), Host: []byte("a.b.c.example"), Path: []byte("/tenant1/v1/none/at/all")}
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table.Match(&miss, &c)
		}
	})
}

// How long does a reload hold its breath for the routes?
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			rules := benchRules(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, problems := Compile(rules); problems != nil {
					b.Fatal(problems)
				}
			}
		})
	}
}

// What does every request pay for its path, plain and not?
func BenchmarkNormalize(b *testing.B) {
	dst := make([]byte, 0, 256)
	for name, path := range map[string]string{"plain": "/api/v1/users/12345/orders/67890", "dots": "/api/v1/../v2/./users//12345/%7Eorders"} {
		b.Run(name, func(b *testing.B) {
			in := []byte(path)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Normalize(dst, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
