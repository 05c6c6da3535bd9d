package httpdoor

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/poll"
)

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
