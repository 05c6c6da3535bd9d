package observe

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// fieldBytesMax bounds one text field of a record. Longer values are cut and end in "…": a client can send a path of 64 KiB.
const fieldBytesMax = 4096

// clock keeps the text of the second last formatted: formatting a time costs about 100 ns, a second holds many records.
// The zero value is ready. It belongs to one shard and is guarded by its mutex.
type clock struct {
	second int64
	ready  bool
	text   [19]byte // 2006-01-02T15:04:05
}

// append adds t in RFC 3339 with microseconds, in UTC, 27 bytes. Years outside 0 to 9999 have no such form: the zero time stands in.
func (c *clock) append(dst []byte, t time.Time) []byte {
	second := t.Unix()
	if !c.ready || second != c.second {
		utc := t.UTC()
		c.second, c.ready = second, true
		if utc.Year() < 0 || utc.Year() > 9999 {
			utc, t, c.ready = time.Time{}, time.Time{}, false
		}
		utc.AppendFormat(c.text[:0], "2006-01-02T15:04:05")
	}
	dst = append(dst, c.text[:]...)
	micro := t.Nanosecond() / 1000
	return append(dst, '.', digit(micro/100000), digit(micro/10000), digit(micro/1000), digit(micro/100),
		digit(micro/10), digit(micro), 'Z')
}

func digit(n int) byte { return byte('0' + n%10) }

// appendRecord adds the record as one line of JSON. The order of the fields is fixed, so that lines read well side by side.
func appendRecord(dst []byte, r *Record, c *clock) []byte {
	dst = append(dst, `{"time":"`...)
	dst = c.append(dst, r.Time)
	dst = append(dst, '"')
	dst = text(dst, `,"door":`, r.Door)
	dst = text(dst, `,"listener":`, r.Listener)
	dst = address(dst, r.ClientAddress)
	dst = text(dst, `,"consumer":`, r.Consumer)
	dst = text(dst, `,"client_certificate":`, r.ClientCertificate)
	switch r.Door {
	case DoorHTTP:
		dst = text(dst, `,"request_id":`, r.RequestID)
		dst = text(dst, `,"protocol":`, r.Protocol)
		dst = text(dst, `,"method":`, r.Method)
		dst = text(dst, `,"host":`, r.Host)
		dst = text(dst, `,"path":`, r.Path)
		dst = text(dst, `,"user_agent":`, r.UserAgent)
		dst = text(dst, `,"route":`, r.Route)
		dst = text(dst, `,"service":`, r.Service)
	case DoorSQL:
		if r.Session != 0 {
			dst = strconv.AppendUint(append(dst, `,"session":`...), r.Session, 10)
		}
		dst = text(dst, `,"database":`, r.Database)
		dst = text(dst, `,"command":`, r.Command)
		dst = text(dst, `,"split":`, r.Split)
	default:
		dst = text(dst, `,"service":`, r.Service)
	}
	dst = text(dst, `,"endpoint":`, r.Endpoint)
	switch r.Door {
	case DoorHTTP:
		dst = strconv.AppendInt(append(dst, `,"status":`...), int64(r.Status), 10)
	case DoorSQL:
		dst = strconv.AppendInt(append(dst, `,"sql_code":`...), int64(r.SQLCode), 10)
		dst = text(dst, `,"sql_state":`, r.SQLState)
	}
	dst = text(dst, `,"fault":`, r.Fault)
	dst = milliseconds(append(dst, `,"duration_ms":`...), r.Total)
	if r.Endpoint != "" || r.Upstream > 0 {
		dst = milliseconds(append(dst, `,"upstream_ms":`...), r.Upstream)
	}
	dst = strconv.AppendInt(append(dst, `,"bytes_in":`...), r.BytesIn, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes_out":`...), r.BytesOut, 10)
	if r.Door == DoorHTTP {
		dst = strconv.AppendInt(append(dst, `,"retries":`...), int64(r.Retries), 10)
	}
	dst = strconv.AppendUint(append(dst, `,"generation":`...), r.Generation, 10)
	return append(dst, '}', '\n')
}

// milliseconds adds a duration as a number with three decimals, rounded to the microsecond. A negative one is zero.
func milliseconds(dst []byte, d time.Duration) []byte {
	micro := max(d, 0).Round(time.Microsecond).Microseconds()
	dst = strconv.AppendInt(dst, micro/1000, 10)
	rest := int(micro % 1000)
	return append(dst, '.', digit(rest/100), digit(rest/10), digit(rest))
}

// address adds the client's address, if there is one.
func address(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	return append(a.Unmap().WithZone("").AppendTo(append(dst, `,"client_address":"`...)), '"')
}

// text adds a field, key with its punctuation and value, unless the value is empty.
func text[T string | []byte](dst []byte, key string, value T) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(dst, key...)
	dst = append(dst, '"')
	if len(value) <= fieldBytesMax {
		dst = escape(dst, value)
	} else {
		dst = append(escape(dst, cut(value)), "…"...)
	}
	return append(dst, '"')
}

// cut shortens a value to fieldBytesMax, not inside a character.
func cut[T string | []byte](value T) T {
	end := fieldBytesMax
	for end > fieldBytesMax-utf8.UTFMax && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}

const hex = "0123456789abcdef"

// plain says which bytes stand for themselves in a JSON string (RFC 8259, section 7).
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i < 0x7f && i != '"' && i != '\\'
	}
	return t
}()

// allPlain says that every byte stands for itself: eight at a time, which is most of what an access record costs.
func allPlain[T string | []byte](value T) bool {
	n := len(value)
	if n < 8 {
		for i := range n {
			if !plain[value[i]] {
				return false
			}
		}
		return true
	}
	var bad uint64
	for i := 0; i < n-8; i += 8 {
		bad |= special(word(value, i))
	}
	return bad|special(word(value, n-8)) == 0
}

// word gives eight bytes from i on.
func word[T string | []byte](v T, i int) uint64 {
	_ = v[i+7]
	return uint64(v[i]) | uint64(v[i+1])<<8 | uint64(v[i+2])<<16 | uint64(v[i+3])<<24 |
		uint64(v[i+4])<<32 | uint64(v[i+5])<<40 | uint64(v[i+6])<<48 | uint64(v[i+7])<<56
}

// special is zero when all eight bytes are plain. (x - ones) &^ x has the high bit of a byte for each that is zero, and w - 0x20... for
// each below a space; a borrow can only add to that, and then the slow way decides.
func special(w uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash, del := w^ones*'"', w^ones*'\\', w^ones*0x7f
	return (w | (w-ones*0x20)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash | (del-ones)&^del) & high
}

// escape adds a value as the inside of a JSON string. Invalid UTF-8 becomes U+FFFD, one for each bad byte; control
// characters, DEL, and the line separators that break JavaScript are escaped; <, > and & stay as they are.
func escape[T string | []byte](dst []byte, value T) []byte {
	if allPlain(value) {
		return append(dst, value...)
	}
	start := 0
	for i := 0; i < len(value); {
		b := value[i]
		if plain[b] {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, size := decode(value[i:])
			if r != utf8.RuneError && r != '\u2028' && r != '\u2029' && r > 0x9f || size == 3 && r == utf8.RuneError {
				i += size
				continue
			}
			dst = append(dst, value[start:i]...)
			switch {
			case r == utf8.RuneError:
				dst = append(dst, `\ufffd`...)
			default:
				dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			}
			i += size
			start = i
			continue
		}
		dst = append(dst, value[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
		i++
		start = i
	}
	return append(dst, value[start:]...)
}

// decode reads one character of a string or a byte slice without a conversion, which would allocate.
func decode[T string | []byte](value T) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], value)
	return utf8.DecodeRune(b[:n])
}
