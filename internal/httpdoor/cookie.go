package httpdoor

import (
	"bytes"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// cookie finds a cookie's value (RFC 6265, 4.2.1).
func cookie(r *h1.Request, name string) ([]byte, bool) {
	for i := range r.Fields {
		if r.Fields[i].Known != h1.KnownCookie {
			continue
		}
		rest := r.Fields[i].Value
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			key, value, ok := bytes.Cut(bytes.TrimLeft(pair, " \t"), []byte{'='})
			if ok && string(key) == name {
				return value, true
			}
		}
	}
	return nil, false
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// dated is the text of a Date field and the second that it is for.
type dated struct {
	second int64
	text   []byte
}

var lastDate atomic.Pointer[dated]

// date gives the Date of a moment, made anew once a second.
func date(at poll.Instant) []byte {
	second := int64(at) / int64(time.Second)
	d := lastDate.Load()
	if d == nil || d.second != second {
		d = &dated{second: second, text: h1.AppendDate(nil, at.Time())}
		lastDate.Store(d)
	}
	return d.text
}
