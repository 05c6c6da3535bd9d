package config

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// scalar is how values of one Go type are written. The same pattern serves the decoder and the JSON Schema, so that
// they accept the same texts; what a pattern cannot say (ranges) stands in parse.
type scalar struct {
	want    string         // "a duration such as 250ms, 5s or 1h30m"
	pattern *regexp.Regexp // of the text
	number  bool           // a plain number is accepted as its own text
	parse   func(text string) (any, error)
	format  func(v any) string
}

var (
	durationPattern = regexp.MustCompile(`^(0|([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+)$`)
	sizePattern     = regexp.MustCompile(`^[0-9]+([.][0-9]+)?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`)
	percentPattern  = regexp.MustCompile(`^[0-9]+([.][0-9]+)?%$`)
	boundPattern    = regexp.MustCompile(`^(0|[0-9]+/(([1-9][0-9]*)?(ms|s|m|h)|d))$`)
	weightPattern   = regexp.MustCompile(`^[0-9]+([.][0-9]+)?%?$`)
	ratePattern     = regexp.MustCompile(`^[0-9]+/(([1-9][0-9]*)?(ms|s|m|h)|d)$`)
	prefixPattern   = regexp.MustCompile(`^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$`)
)

// scalars are the types with a way of writing of their own; the basic kinds are in decode.go.
var scalars = map[reflect.Type]*scalar{
	reflect.TypeFor[Duration]():     {want: "a duration such as 250ms, 5s or 1h30m", pattern: durationPattern, number: true, parse: parseDuration, format: formatDuration},
	reflect.TypeFor[Size]():         {want: "a size such as 512, 64KiB or 2MB", pattern: sizePattern, number: true, parse: parseSize, format: formatSize},
	reflect.TypeFor[Percent]():      {want: "a share from 0% to 100%", pattern: percentPattern, parse: parsePercent, format: formatPercent},
	reflect.TypeFor[Weight]():       {want: "a share such as 90%, or a number of parts", pattern: weightPattern, number: true, parse: parseWeight, format: formatWeight},
	reflect.TypeFor[Rate]():         {want: "a rate such as 10/s, 600/m, 1000/h, 5000/d or 5/10s", pattern: ratePattern, parse: parseRate, format: formatRate},
	reflect.TypeFor[RateOrNone]():   {want: "a rate such as 10/s, 600/m, 1000/h, 5000/d or 5/10s, or 0 for no bound", pattern: boundPattern, number: true, parse: parseRateOrNone, format: formatRateOrNone},
	reflect.TypeFor[netip.Prefix](): {want: "an address or a network such as 10.0.0.0/8", pattern: prefixPattern, parse: parsePrefix, format: formatPrefix},
}

// String gives the duration as it is written: 250ms, 1h30m, 0.
func (d Duration) String() string { return formatDuration(d) }

// String gives the size as it is written: 512, 64KiB, 2MiB.
func (s Size) String() string { return formatSize(s) }

// String gives the percentage as it is written: 50%.
func (p Percent) String() string { return formatPercent(p) }

// String gives the rate as it is written: 10/s or 5/10s.
func (r Rate) String() string { return formatRate(r) }

// String gives the rate as it is written: 10/s, 5/10s, or 0.
func (r RateOrNone) String() string { return formatRateOrNone(r) }

// Share gives the percentage as a part of one: 0.5 for 50%.
func (p Percent) Share() float64 { return float64(p) / 100 }

// String gives the weight as it is written: 90% or 9.
func (w Weight) String() string { return formatWeight(w) }

// String never gives the secret, so that no log and no error can hold it by accident. Convert to string to read it.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString is String: %#v keeps the secret as well.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// masked stands in place of a secret.
const masked = "***"

func parseDuration(text string) (any, error) {
	d, err := time.ParseDuration(text)
	if err != nil { // the pattern held, so it is the range
		return nil, fmt.Errorf("%s is longer than 290 years", text)
	}
	return Duration(d), nil
}

func formatDuration(v any) string {
	d := time.Duration(v.(Duration))
	if d == 0 {
		return "0"
	}
	text := d.String() // 1h30m0s
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// units of Size, largest first among those of one kind. Binary ones are used for printing.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

func parseSize(text string) (any, error) {
	number, unit := strings.TrimRight(text, "TGMKiB"), int64(1)
	for _, u := range units {
		if text[len(number):] == u.name {
			unit = u.bytes
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n <= math.MaxInt64/unit {
		return Size(n * unit), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if f *= float64(unit); err != nil || f >= math.MaxInt64 {
		return nil, fmt.Errorf("%s is too large", text)
	}
	if f != math.Trunc(f) {
		return nil, fmt.Errorf("%s is not a whole number of bytes", text)
	}
	return Size(f), nil
}

func formatSize(v any) string {
	n := int64(v.(Size))
	for _, u := range units[:4] {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parsePercent(text string) (any, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || f > 100 {
		return nil, fmt.Errorf("%s is more than 100%%", text)
	}
	return Percent(f), nil
}

func formatPercent(v any) string {
	return strconv.FormatFloat(float64(v.(Percent)), 'f', -1, 64) + "%"
}

func parseWeight(text string) (any, error) {
	number, percent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f > 1e9 {
		return nil, fmt.Errorf("%s is too large", text)
	}
	if percent && f > 100 {
		return nil, fmt.Errorf("%s is more than 100%%", text)
	}
	return Weight{Value: f, Percent: percent}, nil
}

func formatWeight(v any) string {
	w := v.(Weight)
	text := strconv.FormatFloat(w.Value, 'f', -1, 64)
	if w.Percent {
		text += "%"
	}
	return text
}

func parsePrefix(text string) (any, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address", text)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a network", text)
	}
	if p != p.Masked() {
		return nil, fmt.Errorf("%s is an address inside %s, with bits beyond its prefix", text, p.Masked())
	}
	return p, nil
}

func formatPrefix(v any) string { return v.(netip.Prefix).String() }

// Bounds of a rate: what a counter of a policy can hold, and a time that a process may well live.
const (
	rateCountMax = 1_000_000
	ratePerMax   = 31 * 24 * time.Hour
)

func parseRate(text string) (any, error) {
	count, per, _ := strings.Cut(text, "/")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > rateCountMax {
		return nil, fmt.Errorf("%s is out of range (from 1 to %d in a time)", text, rateCountMax)
	}
	if per == "d" {
		return Rate{n, 24 * time.Hour}, nil
	}
	if per[0] > '9' {
		per = "1" + per
	}
	d, err := time.ParseDuration(per)
	if err != nil || d > ratePerMax {
		return nil, fmt.Errorf("%s is over too long a time (at most 31 days)", text)
	}
	return Rate{n, d}, nil
}

func parseRateOrNone(text string) (any, error) {
	if text == "0" {
		return RateOrNone{}, nil
	}
	v, err := parseRate(text)
	if err != nil {
		return nil, err
	}
	return RateOrNone(v.(Rate)), nil
}

func formatRateOrNone(v any) string {
	r := v.(RateOrNone)
	if r == (RateOrNone{}) {
		return "0"
	}
	return formatRate(Rate(r))
}

func formatRate(v any) string {
	r := v.(Rate)
	switch r.Per {
	case time.Millisecond, time.Second, time.Minute, time.Hour:
		return strconv.Itoa(r.Count) + "/" + strings.TrimLeft(formatDuration(Duration(r.Per)), "1")
	case 24 * time.Hour:
		return strconv.Itoa(r.Count) + "/d"
	}
	return rateText(r)
}

// rateText writes the time in the largest unit that it is a whole number of.
func rateText(r Rate) string {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if r.Per%u.unit == 0 {
			return fmt.Sprintf("%d/%d%s", r.Count, r.Per/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d/%dms", r.Count, r.Per.Milliseconds())
}
