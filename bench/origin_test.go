//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"strings"
)

// originBodies are the answers of the origin by path.
var originBodies = map[string]int{"/100": 100, "/10k": 10 << 10, "/1m": 1 << 20}

// runOrigin is the server behind all HTTP subjects: it answers what stands ready in memory as soon as a blank line has come.
func runOrigin(arguments []string) error {
	l, err := newLoop()
	if err != nil {
		return err
	}
	answers := make(map[string][]byte)
	for path, size := range originBodies {
		answers[path] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"+
			"Content-Length: %d\r\nCache-Control: private, max-age=0\r\nETag: \"5f1b-4a\"\r\nVary: Accept-Encoding\r\nX-Origin: 1\r\n\r\n%s", size, strings.Repeat("x", size))
	}
	missing := []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	l.input = func(p *peer, data []byte) bool {
		if len(p.kept) > 0 {
			p.kept = append(p.kept, data...)
			data = p.kept
		}
		for {
			end := bytes.Index(data, []byte("\r\n\r\n"))
			if end < 0 {
				p.kept = append(p.kept[:0], data...)
				return len(data) < 64<<10
			}
			answer := missing
			if rest, ok := bytes.CutPrefix(data, []byte("GET ")); ok {
				path, _, _ := bytes.Cut(rest[:end], []byte(" "))
				if a := answers[string(path)]; a != nil {
					answer = a
				}
			}
			if !l.send(p, answer) {
				return false
			}
			data = data[end+4:]
			if len(data) == 0 {
				p.kept = p.kept[:0]
				return true
			}
		}
	}
	return l.serve(arguments[0])
}
