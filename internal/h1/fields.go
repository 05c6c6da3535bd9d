package h1

import (
	"bytes"
	"slices"
)

// Known is the id of a field name that the gateway itself looks at, found while parsing.
type Known uint8

// The known names. KnownNone is every other one. Those of most messages come first: what the parser compares them with
// then takes few cache lines.
const (
	KnownNone Known = iota
	KnownHost
	KnownUserAgent
	KnownAccept
	KnownAcceptEncoding
	KnownCookie
	KnownXRequestID
	KnownConnection
	KnownReferer
	KnownServer
	KnownDate
	KnownContentType
	KnownContentLength
	KnownCacheControl
	KnownETag
	KnownVary
	KnownTransferEncoding
	KnownSetCookie
	KnownOrigin
	KnownLocation
	KnownExpect
	KnownUpgrade
	KnownKeepAlive
	KnownProxyConnection
	KnownHTTP2Settings
	KnownTE
	KnownTrailer
	KnownXForwardedFor
	KnownXForwardedProto
	KnownXForwardedHost
	KnownXRealIP
	KnownForwarded
	KnownVia
	KnownAuthorization
	KnownWWWAuthenticate
	KnownProxyAuthenticate
	KnownProxyAuthorization
	KnownContentEncoding
	KnownContentRange
	KnownRange
	KnownRetryAfter
	KnownXResponseTime
	KnownServerTiming
	KnownClientCert
	KnownClientCertChain
	KnownAlias      // no name of its own: any of the others, with underscores for hyphens
	KnownXForwarded // no name of its own: any other that begins with X-Forwarded- (-Port, -Prefix, -Ssl, ...)
	knownEnd
)

// trait is how a field may be used.
type trait uint8

const (
	hop            trait = 1 << iota // is for this connection only (RFC 9110, 7.6.1), never forwarded
	everyHop                         // must reach everybody: Connection may not name it
	trailerRefused                   // framing and connection: as a trailer it is an attack
	trailerDropped                   // routing, credentials, content handling: as a trailer it is ignored (RFC 9110, 6.5.1)
)

// known lists each known name in lower case, with its traits. Trailer is not a hop field: trailers are forwarded, so
// may be their announcement.
var known = [knownEnd]struct {
	name   string
	traits trait
}{
	KnownHost:               {"host", everyHop | trailerRefused},
	KnownContentLength:      {"content-length", everyHop | trailerRefused},
	KnownTransferEncoding:   {"transfer-encoding", hop | trailerRefused},
	KnownConnection:         {"connection", hop | trailerRefused},
	KnownExpect:             {"expect", everyHop | trailerRefused},
	KnownUpgrade:            {"upgrade", hop | trailerRefused},
	KnownKeepAlive:          {"keep-alive", hop | trailerRefused},
	KnownProxyConnection:    {"proxy-connection", hop | trailerRefused},
	KnownHTTP2Settings:      {"http2-settings", hop | trailerRefused},
	KnownTE:                 {"te", hop | trailerRefused},
	KnownTrailer:            {"trailer", trailerRefused},
	KnownXForwardedFor:      {"x-forwarded-for", everyHop | trailerDropped},
	KnownXForwardedProto:    {"x-forwarded-proto", everyHop | trailerDropped},
	KnownXForwardedHost:     {"x-forwarded-host", everyHop | trailerDropped},
	KnownXRealIP:            {"x-real-ip", everyHop | trailerDropped},
	KnownForwarded:          {"forwarded", everyHop | trailerDropped},
	KnownVia:                {"via", everyHop | trailerDropped},
	KnownXRequestID:         {"x-request-id", everyHop | trailerDropped},
	KnownCookie:             {"cookie", everyHop | trailerDropped},
	KnownSetCookie:          {"set-cookie", everyHop | trailerDropped},
	KnownAuthorization:      {"authorization", everyHop | trailerDropped},
	KnownWWWAuthenticate:    {"www-authenticate", everyHop | trailerDropped},
	KnownProxyAuthenticate:  {"proxy-authenticate", hop | trailerDropped},
	KnownProxyAuthorization: {"proxy-authorization", hop | trailerDropped},
	KnownDate:               {"date", trailerDropped},
	KnownServer:             {"server", 0},
	KnownContentType:        {"content-type", everyHop | trailerDropped},
	KnownContentEncoding:    {"content-encoding", everyHop | trailerDropped},
	KnownContentRange:       {"content-range", everyHop | trailerDropped},
	KnownRange:              {"range", trailerDropped},
	KnownOrigin:             {"origin", everyHop | trailerDropped},
	KnownAccept:             {"accept", trailerDropped},
	KnownAcceptEncoding:     {"accept-encoding", trailerDropped},
	KnownUserAgent:          {"user-agent", 0},
	KnownReferer:            {"referer", 0},
	KnownCacheControl:       {"cache-control", everyHop | trailerDropped},
	KnownVary:               {"vary", trailerDropped},
	KnownETag:               {"etag", 0},
	KnownLocation:           {"location", everyHop | trailerDropped},
	KnownRetryAfter:         {"retry-after", trailerDropped},
	KnownXResponseTime:      {"x-response-time", 0},
	KnownServerTiming:       {"server-timing", 0},
	KnownClientCert:         {"client-cert", everyHop | trailerDropped},
	KnownClientCertChain:    {"client-cert-chain", everyHop | trailerDropped},
	KnownAlias:              {"", trailerDropped},
	KnownXForwarded:         {"", everyHop | trailerDropped},
}

// String gives the name in lower case, "" for those that are not one name.
func (k Known) String() string {
	if k < knownEnd {
		return known[k].name
	}
	return ""
}

// EqualName compares the name of a field with one that has no underscores as servers do that take an underscore for a
// hyphen: in any case.
func EqualName(name []byte, other string) bool {
	if len(name) != len(other) {
		return false
	}
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		if lower(c) != lower(other[i]) {
			return false
		}
	}
	return true
}

// Field is one field line. Name is as received; Value has no surrounding space and may be empty.
type Field struct {
	Name, Value []byte
	Known       Known

	at int32 // where the line lies in the head, when it reads as AppendTo writes it; else 0, where no field's line can be
}

// AppendTo appends the field as a line. Fields that Parse or Trailers gave out are valid, so nothing is checked again.
func (f Field) AppendTo(dst []byte) []byte {
	dst = append(dst, f.Name...)
	dst = append(dst, ": "...)
	dst = append(dst, f.Value...)
	return append(dst, "\r\n"...)
}

// fieldsUsual is for how many fields memory is made at once.
const fieldsUsual = 16

// Run appends fields of one head as their AppendTo does, but lines that stand together in the head are copied at once. It
// holds them back until Append meets another or Flush is called; the head's views must live until then.
type Run struct {
	head     []byte
	from, to int // what is held back; nothing when both are -1, where no line begins
}

// Extend holds f back, a field of the head, when it stands right behind what is held back. Else it does nothing: Append does. It
// is apart because it is inlined, which saves a sixth of the time of a head with 14 fields.
func (r *Run) Extend(f *Field) bool {
	if int(f.at) != r.to {
		return false
	}
	r.to += len(f.Name) + len(f.Value) + lineExtra
	return true
}

// lineExtra is what a line has beside name and value: ": " and CRLF.
const lineExtra = 4

// Append appends what is held back and then f, a field of the head, or holds it back.
func (r *Run) Append(dst []byte, f *Field) []byte {
	if r.Extend(f) {
		return dst
	}
	dst = r.Flush(dst)
	if f.at == 0 {
		return f.AppendTo(dst)
	}
	r.from, r.to = int(f.at), int(f.at)
	r.Extend(f)
	return dst
}

// Flush appends what is held back.
func (r *Run) Flush(dst []byte) []byte {
	if r.from < r.to {
		dst = append(dst, r.head[r.from:r.to]...)
	}
	r.from, r.to = -1, -1
	return dst
}

// nominatedMax bounds what Connection may name: real messages name one or two.
const nominatedMax = 16

// Head is what requests and responses have in common. All views die with the parsed buffer.
type Head struct {
	Minor           uint8   // HTTP/1.Minor: 0 or 1
	Fields          []Field // in the order received
	ContentLength   int64   // -1 when none was declared
	Chunked         bool
	Close           bool   // the connection cannot be used after this exchange
	Upgrade         []byte // the value of Upgrade when Connection lists it, else nil
	ConnectionNames bool   // Connection names fields that are not hop-by-hop anyway: HopByHop knows them

	viewBytes     []byte // the whole head
	has           uint64 // a bit for each Known among Fields
	seen          seen
	viewHost      []byte
	viewUpgrade   []byte
	viewNominated [nominatedMax][]byte
	nominated     int
	tried         int // bytes of an incomplete head that were looked at in vain
	parsed        int // bytes of it that were parsed in vain; see again
}

// seen notes what the fields said, until the whole head is known.
type seen uint16

const (
	seenHost seen = 1 << iota
	seenTransferEncoding
	seenOtherCoding // Transfer-Encoding is not just "chunked"
	seenUpgrade
	seenExpect100
	optionClose
	optionKeepAlive
	optionUpgrade
)

var (
	errBareLF           = &Error{BadSyntax, "line ends with LF instead of CRLF"}
	errBareCR           = &Error{BadSyntax, "CR without LF"}
	errFold             = &Error{BadSyntax, "folded or indented field line"}
	errNameEmpty        = &Error{BadSyntax, "empty field name"}
	errNameSpace        = &Error{BadSyntax, "space in or after a field name"}
	errNameInvalid      = &Error{BadSyntax, "invalid character in a field name"}
	errNoColon          = &Error{BadSyntax, "field line without a colon"}
	errValueInvalid     = &Error{BadSyntax, "control character in a field value"}
	errHeadTooLarge     = &Error{HeadTooLarge, "head exceeds its bound"}
	errUnderscore       = &Error{BadSyntax, "underscore in a field name"}
	errTooManyFields    = &Error{TooManyFields, "more fields than allowed"}
	errHostTwice        = &Error{BadSyntax, "more than one Host"}
	errUpgradeTwice     = &Error{BadSyntax, "more than one Upgrade"}
	errOptionInvalid    = &Error{BadSyntax, "Connection lists something that is not a token"}
	errOptionForbidden  = &Error{BadSyntax, "Connection names a field that is for every hop"}
	errOptionsTooMany   = &Error{BadSyntax, "Connection names too many fields"}
	errLengthTwice      = &Error{BadFraming, "more than one Content-Length"}
	errLengthInvalid    = &Error{BadFraming, "malformed Content-Length"}
	errLengthAndCoding  = &Error{BadFraming, "Content-Length beside Transfer-Encoding"}
	errCodingTwice      = &Error{BadFraming, "more than one Transfer-Encoding"}
	errCodingInHTTP10   = &Error{BadFraming, "Transfer-Encoding in HTTP/1.0"}
	errCodingOther      = &Error{BadFraming, "transfer coding other than chunked"}
	errCodingNotOffered = &Error{NotImplemented, "transfer coding other than chunked"}
)

// reset forgets the message, but keeps the memory of Fields.
func (h *Head) reset() {
	h.Minor = 0
	h.Fields = h.Fields[:0]
	h.ContentLength = -1
	h.Chunked, h.Close, h.ConnectionNames = false, false, false
	h.Upgrade, h.viewHost, h.viewUpgrade, h.viewBytes = nil, nil, nil, nil
	h.has, h.seen = 0, 0
	h.nominated = 0
}

// again says whether parsing b is worth while after an incomplete attempt: because the new bytes hold the end of the
// head or a line end that is wrong, or because b doubled. So a head that trickles in costs O(its length) overall, and
// most errors in it are still seen as soon as their line is complete.
func (h *Head) again(b []byte) bool {
	if h.tried == 0 || len(b) < h.tried || len(b) >= 2*h.parsed {
		return true
	}
	for i := h.tried; i < len(b); i++ {
		if b[i] == '\n' && (i < 2 || b[i-1] != '\r' || b[i-2] == '\n') {
			return true
		}
	}
	h.tried = len(b)
	return false
}

// pause remembers that b was parsed to its end in vain.
func (h *Head) pause(b []byte) { h.tried, h.parsed = len(b), len(b) }

// parseFields parses the field lines from b[i:] to the end of the head. n is the index behind the empty line, or 0 when
// b ends before it.
func (h *Head) parseFields(b []byte, i, fieldsMax int, underscores Underscores) (n int, err *Error) {
	fields := h.Fields[:0]
	for i < len(b) {
		if b[i] == '\r' {
			h.Fields = fields
			return endOfHead(b, i)
		}
		count := len(fields)
		if count == fieldsMax {
			return 0, errTooManyFields
		}
		if count == cap(fields) {
			fields = slices.Grow(fields, fieldsUsual)
			h.Fields = fields[:0] // kept, whatever becomes of this head
		}
		// The line is parsed right into its place: building a Field and appending it costs 15 % of the whole head.
		f := &fields[:count+1][count]
		next := f.parseUsual(b, i)
		if next == 0 {
			if next, err = parseLine(b, i, f); next == 0 {
				return 0, err
			}
		}
		i = next
		if underscores == UnderscoresSafe {
			if f.Known == KnownAlias {
				continue
			}
		} else if underscores != UnderscoresAllow && bytes.IndexByte(f.Name, '_') >= 0 {
			if underscores == UnderscoresRefuse {
				return 0, errUnderscore
			}
			continue
		}
		fields = fields[:count+1]
		h.has |= 1 << f.Known
		if 1<<f.Known&noted != 0 {
			if err = h.note(f); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// endOfHead gives the index behind the empty line whose CR is b[i], or 0 when its LF is not there yet.
func endOfHead(b []byte, i int) (n int, err *Error) {
	if i+1 == len(b) {
		return 0, nil
	}
	if b[i+1] != '\n' {
		return 0, errBareCR
	}
	return i + 2, nil
}

// parseLine parses the field line at b[i:] into f and gives the index behind it, or 0 with an error, or 0 when b ends
// before the line does.
func parseLine(b []byte, i int, f *Field) (next int, err *Error) {
	colon := skip(b, i, token)
	if colon == len(b) {
		return 0, nil
	}
	if b[colon] != ':' || colon == i {
		return 0, nameError(b[colon], colon == i)
	}
	start := colon + 1
	for start < len(b) && (b[start] == ' ' || b[start] == '\t') {
		start++
	}
	end := skipValue(b, start)
	if end+1 >= len(b) {
		if end == len(b) || b[end] == '\r' {
			return 0, nil
		}
		return 0, lineEndError(b[end], errValueInvalid)
	}
	if b[end] != '\r' || b[end+1] != '\n' {
		return 0, lineEndError(b[end], errValueInvalid)
	}
	next = end + 2
	for end > start && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	f.Name, f.Value = b[i:colon:colon], b[start:end:end]
	f.Known, f.at = lookupKnown(f.Name), 0
	return next, nil
}

// nameError says what is wrong with a name that ends at c instead of a colon, or is empty.
func nameError(c byte, empty bool) *Error {
	switch {
	case empty && (c == ' ' || c == '\t'):
		return errFold
	case empty && c == ':':
		return errNameEmpty
	case c == ' ' || c == '\t':
		return errNameSpace
	case c == '\n':
		return errBareLF
	case c == '\r':
		return errNoColon
	}
	return errNameInvalid
}

// lineEndError says what is wrong with c where CRLF was due; other is for what is no line end at all.
func lineEndError(c byte, other *Error) *Error {
	switch c {
	case '\r':
		return errBareCR
	case '\n':
		return errBareLF
	}
	return other
}

// noted has a bit for each known field that note looks at.
const noted = 1<<KnownHost | 1<<KnownContentLength | 1<<KnownTransferEncoding | 1<<KnownConnection | 1<<KnownUpgrade | 1<<KnownExpect

// note takes in what a known field says about the message.
func (h *Head) note(f *Field) *Error {
	switch f.Known {
	case KnownHost:
		if h.seen&seenHost != 0 {
			return errHostTwice
		}
		h.seen |= seenHost
		h.viewHost = f.Value
	case KnownContentLength:
		return h.noteLength(f.Value)
	case KnownTransferEncoding:
		if h.seen&seenTransferEncoding != 0 {
			return errCodingTwice
		}
		h.seen |= seenTransferEncoding
		if !EqualFold(f.Value, "chunked") {
			h.seen |= seenOtherCoding
		}
	case KnownConnection:
		return h.noteConnection(f.Value)
	case KnownUpgrade:
		if h.seen&seenUpgrade != 0 {
			return errUpgradeTwice
		}
		h.seen |= seenUpgrade
		h.viewUpgrade = f.Value
	case KnownExpect:
		if EqualFold(f.Value, "100-continue") {
			h.seen |= seenExpect100
		}
	}
	return nil
}

// noteLength parses a Content-Length. A second one is refused even when equal, as are lists, signs and leading zeros
// (which some read as octal).
func (h *Head) noteLength(v []byte) *Error {
	if h.ContentLength >= 0 {
		return errLengthTwice
	}
	if len(v) == 0 || len(v) > 18 || v[0] == '0' && len(v) > 1 { // 18 digits always fit
		return errLengthInvalid
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return errLengthInvalid
		}
		n = n*10 + int64(c-'0')
	}
	h.ContentLength = n
	return nil
}

// noteConnection takes in a Connection field. To name a field that is meant for everybody (Host, Content-Length,
// Cookie, X-Forwarded-For, ...) is an attempt to have it dropped on the way, and refused.
func (h *Head) noteConnection(list []byte) *Error {
	for more := true; more; {
		var option []byte
		option, list, more = cutElement(list)
		switch {
		case len(option) == 0:
		case EqualFold(option, "close"):
			h.seen |= optionClose
		case EqualFold(option, "keep-alive"):
			h.seen |= optionKeepAlive
		case EqualFold(option, "upgrade"):
			h.seen |= optionUpgrade
		case skip(option, 0, token) < len(option):
			return errOptionInvalid
		default:
			switch traits := known[lookupKnown(option)].traits; {
			case traits&everyHop != 0:
				return errOptionForbidden
			case traits&hop != 0: // often TE, and Transfer-Encoding from some: nothing to remember
			case h.nominated == nominatedMax:
				return errOptionsTooMany
			default:
				h.viewNominated[h.nominated] = option
				h.nominated++
				h.ConnectionNames = true
			}
		}
	}
	return nil
}

// settle draws the conclusions when all fields are known. otherCoding is the error for a coding that we do not speak.
func (h *Head) settle(otherCoding *Error) *Error {
	if h.seen&seenTransferEncoding != 0 {
		switch {
		case h.ContentLength >= 0:
			return errLengthAndCoding
		case h.Minor == 0:
			return errCodingInHTTP10
		case h.seen&seenOtherCoding != 0:
			return otherCoding
		}
		h.Chunked = true
	}
	h.Close = h.seen&optionClose != 0 || h.Minor == 0 && h.seen&optionKeepAlive == 0
	if h.seen&optionUpgrade != 0 && h.Minor > 0 { // RFC 9110, 7.8: not in HTTP/1.0
		h.Upgrade = h.viewUpgrade
	}
	return nil
}

// HopByHop says whether f is for this connection only, by definition or because Connection names it, and must not be
// forwarded. Transfer-Encoding and Upgrade are among them: who forwards a body or an upgrade writes its own.
func (h *Head) HopByHop(f Field) bool {
	if known[f.Known].traits&hop != 0 {
		return true
	}
	for _, name := range h.viewNominated[:h.nominated] {
		if EqualFold(name, f.Name) {
			return true
		}
	}
	return false
}

// Run gives a Run over the fields.
func (h *Head) Run() Run { return Run{h.viewBytes, -1, -1} }

// Has says whether there is a field k.
func (h *Head) Has(k Known) bool { return h.has>>k&1 != 0 }

// Get gives the value of the first field k, nil when there is none.
func (h *Head) Get(k Known) []byte {
	if !h.Has(k) {
		return nil
	}
	for i := range h.Fields {
		if h.Fields[i].Known == k {
			return h.Fields[i].Value
		}
	}
	return nil
}

// Lookup gives the value of the first field of this name, in any case.
func (h *Head) Lookup(name string) ([]byte, bool) {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}
