//go:build linux

package bench

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// originBodies are the answers of the origin by path that stand ready in memory.
var originBodies = map[string]int{"/100": 100, "/10k": 10 << 10, "/1m": 1 << 20}

// largePath has a body of largeBody, which the origin sends piece by piece; what is posted there is thrown away.
const (
	largePath = "/1g"
	largeBody = 1 << 30
)

// The states of an origin's connection.
const (
	originHead = iota
	originBody // left bytes of the request's body are to come, then it is answered
	originEcho // a WebSocket: each message comes back
)

// origin is the server behind all HTTP subjects: it answers what stands ready in memory as soon as a blank line has come.
type origin struct {
	loop           *loop
	answers        map[string][]byte
	large, missing []byte // heads
	taken          []byte
}

// runOrigin serves until it is killed.
func runOrigin(arguments []string) error {
	l, err := newLoop()
	if err != nil {
		return err
	}
	o := &origin{
		loop:    l,
		answers: make(map[string][]byte),
		large:   originHeadOf(largeBody),
		missing: []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
		taken:   originHeadOf(0),
	}
	for path, size := range originBodies {
		o.answers[path] = append(originHeadOf(size), strings.Repeat("x", size)...)
	}
	l.piece = bytes.Repeat([]byte("x"), 256<<10)
	l.input = o.input
	return l.serve(arguments[0])
}

func originHeadOf(length int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nCache-Control: private, max-age=0\r\nETag: \"5f1b-4a\"\r\nVary: Accept-Encoding\r\nX-Origin: 1\r\n\r\n", length)
}

func (o *origin) input(p *peer, data []byte) bool {
	if p.state == originBody {
		n := min(len(data), p.left)
		if p.left -= n; p.left > 0 {
			return true
		}
		p.state = originHead
		return n == len(data) && o.loop.send(p, o.taken)
	}
	if len(p.kept) > 0 {
		p.kept = append(p.kept, data...)
		data = p.kept
	}
	for len(data) > 0 {
		n, ok := 0, true
		if p.state == originEcho {
			n, ok = o.echo(p, data)
		} else {
			n, ok = o.request(p, data)
		}
		if !ok {
			return false
		}
		if n == 0 {
			break
		}
		data = data[n:]
	}
	p.kept = append(p.kept[:0], data...)
	return len(data) < 64<<10
}

// request answers the request that data begins with. It gives how many bytes were used, none when it is not whole.
func (o *origin) request(p *peer, data []byte) (int, bool) {
	end := bytes.Index(data, []byte("\r\n\r\n")) + 4
	if end < 4 {
		return 0, true
	}
	method, rest, _ := bytes.Cut(data[:end], []byte(" "))
	path, fields, _ := bytes.Cut(rest, []byte(" "))
	switch {
	case string(method) == "POST":
		length, err := strconv.Atoi(originField(fields, "content-length"))
		if err != nil {
			return 0, false
		}
		body := min(length, len(data)-end)
		if p.left = length - body; p.left > 0 {
			p.state = originBody
			return end + body, true
		}
		return end + body, o.loop.send(p, o.taken)
	case string(path) == largePath:
		p.more = largeBody
		return end, o.loop.send(p, o.large)
	case string(path) == "/ws":
		p.state = originEcho
		sum := sha1.Sum([]byte(originField(fields, "sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		return end, o.loop.send(p, fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:])))
	}
	if answer := o.answers[string(path)]; answer != nil {
		return end, o.loop.send(p, answer)
	}
	return end, o.loop.send(p, o.missing)
}

// originField gives a field's value, in a head whose names may be written in any case.
func originField(fields []byte, name string) string {
	for line := range bytes.Lines(fields) {
		n, v, _ := bytes.Cut(line, []byte(":"))
		if strings.EqualFold(string(n), name) {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}

// echo answers one short message of a client, whose mask is all zeros: the payload goes back as it is, with the head of a server's frame.
func (o *origin) echo(p *peer, data []byte) (int, bool) {
	if len(data) < 6 {
		return 0, true
	}
	length := int(data[1] & 0x7f)
	if data[1]&0x80 == 0 || length > 125 {
		return 0, false
	}
	if len(data) < 6+length {
		return 0, true
	}
	answer := append(make([]byte, 0, 2+length), data[0], byte(length))
	return 6 + length, o.loop.send(p, append(answer, data[6:6+length]...))
}
