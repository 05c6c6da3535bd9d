package ratelimit

import (
	"math"
	"time"
)

// algorithm counts requests of one key in one word. Its methods are pure; a Table makes them atomic. Times are nanoseconds on one
// monotonic clock that starts above 0. The word 0 is a key that was never seen.
type algorithm interface {
	// take counts one request at now, unless that is too much: then next is word.
	take(word, now int64) (next int64, v verdict)
	// debt is how long the word still matters, in nanoseconds; 0 or less: it says no more than the word 0.
	debt(word, now int64) int64
}

// verdict is what came of a request.
type verdict struct {
	admitted bool
	left     int64 // requests that would be admitted right now, after this one
	// wait is, for one that was refused, the time until it would be admitted; otherwise the time until the
	// bucket is full again, or until the window ends.
	wait int64
}

// tokenBucket is the generic cell rate algorithm: a bucket of burst tokens that refills evenly, one in each interval. The
// word is the moment at which the bucket would be full again (the "theoretical arrival time"). So a word is a time and not a count,
// it stays meaningful when a reload changes rate or burst.
type tokenBucket struct {
	interval int64 // of one token
	full     int64 // burst * interval
}

func newTokenBucket(count int, per time.Duration, burst int) tokenBucket {
	interval := max(1, (int64(per)+int64(count)-1)/int64(count)) // rounded up: never more than the rate
	return tokenBucket{interval: interval, full: int64(burst) * interval}
}

func (b tokenBucket) take(word, now int64) (int64, verdict) {
	at := min(max(word, now), now+b.full) // a word from before a reload may lie further ahead than this bucket is deep
	next := at + b.interval
	if over := next - now - b.full; over > 0 {
		return word, verdict{wait: over}
	}
	return next, verdict{admitted: true, left: (b.full - (next - now)) / b.interval, wait: next - now}
}

func (b tokenBucket) debt(word, now int64) int64 { return word - now }

// slidingWindow counts requests in windows of the clock, and weighs the window before by how much of it is still inside the
// sliding one. The word holds the window's number (24 bits), the count in it and that in the one before (20 bits each).
// What is refused does not count, so a client that keeps hammering is not locked out for ever.
type slidingWindow struct {
	limit int64 // at most 1<<20 - 1
	width int64
}

const (
	countBits  = 20
	countMask  = 1<<countBits - 1
	windowMask = 1<<24 - 1
)

func (s slidingWindow) load(word, now int64) (window, count, before int64) {
	window = now / s.width & windowMask
	count, before = word>>countBits&countMask, word&countMask
	switch word >> (2 * countBits) & windowMask {
	case window:
	case (window - 1) & windowMask:
		count, before = 0, count
	default: // also a window ahead: a goroutine that read the clock earlier is a window late, and counts there from nothing
		count, before = 0, 0
		if word>>(2*countBits)&windowMask == (window+1)&windowMask && word != 0 {
			window, count, before = (window+1)&windowMask, word>>countBits&countMask, word&countMask
		}
	}
	return window, count, before
}

func (s slidingWindow) take(word, now int64) (int64, verdict) {
	window, count, before := s.load(word, now)
	into := now % s.width
	if window != now/s.width&windowMask {
		into = 0 // the word is a window ahead of this reading of the clock
	}
	rest := s.width - into
	// before*rest/width + count + 1 <= limit, without a division that rounds in the client's favour
	used := (float64(before) * float64(rest)) / float64(s.width)
	if used+float64(count)+1 > float64(s.limit) {
		return word, verdict{wait: s.wait(count, before, rest)}
	}
	count++
	next := window<<(2*countBits) | count<<countBits | before
	return next, verdict{admitted: true, left: s.limit - count - int64(math.Ceil(used)), wait: rest}
}

// wait gives the time until one more request fits.
func (s slidingWindow) wait(count, before, rest int64) int64 {
	room := float64(s.limit - 1)
	if count < s.limit && before > 0 { // when enough of the window before has slid out
		if at := rest - int64((room-float64(count))/float64(before)*float64(s.width)); at > 0 && at <= rest {
			return at
		}
	}
	if count <= s.limit-1 {
		return rest
	}
	return rest + s.width - int64(room/float64(count)*float64(s.width)) // the next one, and a part of it
}

func (s slidingWindow) debt(word, now int64) int64 {
	window, count, before := s.load(word, now)
	rest := s.width - now%s.width
	switch {
	case window != now/s.width&windowMask:
		return rest + 2*s.width
	case count > 0:
		return rest + s.width*count/(count+1)
	case before > 0:
		return rest
	}
	return 0
}
