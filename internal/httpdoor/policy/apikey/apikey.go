// Package apikey identifies consumers by a key that they send with each request. The keys stand with the consumers
// (api_keys), in plain, by reference or as SHA-256 digests; several may be live at once, for rotation. The gateway keeps
// digests only.
//
// The key is taken out of the request before it is forwarded. The endpoint is told who it is by X-Consumer-Name and
// X-Consumer-Groups; fields X-Consumer-* that the client sent are removed first.
//
// It refuses to decide what a consumer may do, and to take short keys for secure: a key should be random and long.
package apikey

import (
	"bytes"
	"strings"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/identity"
)

// Kind is the policy api_key.
var Kind = policy.Define("api_key", compile)

// Settings of the policy. The short form is In.
type Settings struct {
	In        string `yaml:"in" short:"true" default:"header:X-API-Key" doc:"Where the key is: header:NAME, query:NAME, cookie:NAME, or bearer (Authorization: Bearer KEY)."`
	Anonymous bool   `yaml:"anonymous" default:"false" doc:"Requests without a key go on, as nobody. A wrong key is refused all the same."`
}

type place uint8

const (
	inHeader place = iota
	inQuery
	inCookie
	inBearer
)

type apiKey struct {
	consumers *identity.Directory
	place     place
	name      string
	field     *policy.Names // of the header that holds the key
	anonymous bool
	challenge string // the line WWW-Authenticate
	invalid   string // and the one for a wrong key
}

const realm = ` realm="menshen"`

func compile(s *Settings, e *policy.Env) policy.Policy {
	kind, name, named := strings.Cut(s.In, ":")
	k := &apiKey{consumers: e.Consumers, name: name, anonymous: s.Anonymous}
	k.challenge = "WWW-Authenticate: ApiKey" + realm + "\r\n"
	k.invalid = k.challenge
	switch {
	case s.In == "bearer":
		k.place, k.field = inBearer, policy.NewNames("Authorization")
		k.challenge = "WWW-Authenticate: Bearer" + realm + "\r\n" // RFC 6750, 3: no error without credentials
		k.invalid = "WWW-Authenticate: Bearer" + realm + `, error="invalid_token"` + "\r\n"
	case kind == "header" && named && policy.Writable(name, true) == "":
		k.place, k.field = inHeader, policy.NewNames(name)
	case kind == "cookie" && named && h1.ValidName(name):
		k.place, k.field = inCookie, policy.NewNames("Cookie")
	case kind == "query" && named && name != "" && !strings.ContainsAny(name, "%+&=#; "):
		k.place = inQuery
	default:
		e.Problem("in", "%q is no place of a key (accepted: header:NAME, query:NAME, cookie:NAME or bearer)", s.In)
	}
	return k
}

// Request finds out whose key it is.
func (k *apiKey) Request(x *policy.Exchange) policy.Outcome {
	key, found, several := k.take(x)
	switch {
	case several: // whose is it, then?
		x.ToClient.AddLines(k.invalid)
		return x.Refuse(fault.New(fault.Unauthenticated, "more than one API key"))
	case found:
		consumer := k.consumers.APIKey(key)
		if consumer == nil {
			x.ToClient.AddLines(k.invalid)
			return x.Refuse(fault.New(fault.Unauthenticated, "the API key is not known"))
		}
		x.Identify(consumer)
	case k.anonymous:
		x.Identify(nil)
	default:
		x.ToClient.AddLines(k.challenge)
		return x.Refuse(fault.New(fault.Unauthenticated, "an API key is needed"))
	}
	return policy.Continue
}

// take finds the key and takes it out of what is forwarded.
func (k *apiKey) take(x *policy.Exchange) (key []byte, found, several bool) {
	switch k.place {
	case inQuery:
		return k.takeQuery(x)
	case inCookie:
		return k.takeCookie(x)
	}
	for i := range x.Head.Fields {
		f := &x.Head.Fields[i]
		if !k.field.Has(f.Name) {
			continue
		}
		value := f.Value
		if k.place == inBearer {
			scheme, credentials, _ := bytes.Cut(value, []byte{' '})
			if !h1.EqualFold(scheme, "bearer") {
				continue // Basic, say: not ours
			}
			value = bytes.TrimLeft(credentials, " ")
		}
		several = several || found
		key, found = value, true
	}
	if found {
		x.ToEndpoint.Remove(k.field)
	}
	return key, found, several
}

// takeQuery takes every parameter of the name out of the query, without touching the others.
func (k *apiKey) takeQuery(x *policy.Exchange) (key []byte, found, several bool) {
	var kept []byte // made when the first one is found
	for at := 0; at <= len(x.Query); {
		end := bytes.IndexByte(x.Query[at:], '&')
		if end < 0 {
			end = len(x.Query)
		} else {
			end += at
		}
		name, value, _ := bytes.Cut(x.Query[at:end], []byte{'='})
		if string(name) == k.name || bytes.IndexByte(name, '%') >= 0 && string(unescape(name)) == k.name {
			if !found {
				kept = append(make([]byte, 0, len(x.Query)), x.Query[:max(at-1, 0)]...)
			}
			several = several || found
			key, found = unescape(value), true
		} else if found {
			if len(kept) > 0 {
				kept = append(kept, '&')
			}
			kept = append(kept, x.Query[at:end]...)
		}
		at = end + 1
	}
	if found {
		x.Query, x.HasQuery = kept, len(kept) > 0
	}
	return key, found, several
}

// unescape decodes percent escapes and plus signs. A broken escape stays as it is, and so is no key.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '+':
			out = append(out, ' ')
		case b[i] == '%' && i+2 < len(b) && digit(b[i+1]) >= 0 && digit(b[i+2]) >= 0:
			out = append(out, byte(digit(b[i+1])<<4|digit(b[i+2])))
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return out
}

func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// takeCookie takes the cookie out of the field Cookie, which is written anew with the others.
func (k *apiKey) takeCookie(x *policy.Exchange) (key []byte, found, several bool) {
	var kept []byte
	for i := range x.Head.Fields {
		if x.Head.Fields[i].Known != h1.KnownCookie {
			continue
		}
		for rest := x.Head.Fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			pair = bytes.Trim(pair, " \t")
			name, value, assigned := bytes.Cut(pair, []byte{'='})
			switch {
			case assigned && string(name) == k.name:
				several = several || found
				key, found = value, true
			case len(pair) > 0:
				if len(kept) > 0 {
					kept = append(kept, "; "...)
				}
				kept = append(kept, pair...)
			}
		}
	}
	if found {
		x.ToEndpoint.Remove(k.field)
		if len(kept) > 0 {
			x.ToEndpoint.AddBytes("Cookie", kept)
		}
	}
	return key, found, several
}
