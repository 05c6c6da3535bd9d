package h1

import (
	"bytes"
	"encoding/binary"
)

// parseUsual is parseLine for what almost every line is: a name, a colon, at most one space, and a value without spaces
// around it or tabs. It gives 0 for all else, be it odd or wrong or incomplete: parseLine knows. There is no loop over single
// bytes, which saves a third of the time of a head.
func (f *Field) parseUsual(b []byte, i int) (next int) {
	if i < 0 || i > len(b)-8*knownWords {
		return 0
	}
	colon := i
	for colon <= len(b)-8 {
		if m := find(binary.LittleEndian.Uint64(b[colon:]), ':'); m != 0 {
			colon += firstByte(m)
			break
		}
		colon += 8
	}
	start := colon + 1
	if start >= len(b) || colon == i {
		return 0
	}
	if b[start] == ' ' {
		start++
	}
	end := start
	for end <= len(b)-8 {
		if m := suspects(binary.LittleEndian.Uint64(b[end:])); m != 0 {
			end += firstByte(m)
			break
		}
		end += 8
	}
	if end > len(b)-8 { // the last word overlaps the one before
		end = len(b) - 8
		end += firstByte(suspects(binary.LittleEndian.Uint64(b[end:])))
	}
	if end < start || end+1 >= len(b) || b[end] != '\r' || b[end+1] != '\n' || b[start] == ' ' || b[end-1] == ' ' {
		return 0
	}
	k := knownSlots[hashName(b[i], b[colon-1], colon-i)]
	if !knownNames[k].begins((*window)(b[i:])) {
		k = KnownNone
	}
	if k == KnownNone {
		if !ordinary(b[i:], colon-i) {
			return 0
		}
		if b[i]|0x20 == forwardedFamily[0] && (*window)(b[i:]).forwarded(colon-i) {
			k = KnownXForwarded
		}
	}
	f.Name, f.Value, f.Known, f.at = b[i:colon:colon], b[start:end:end], k, int32(i)
	if start == colon+1 {
		f.at = 0
	}
	return end + 2
}

// ordinary says that the first length bytes of b are letters, digits and hyphens. b goes on behind them: it is read in words.
func ordinary(b []byte, length int) bool {
	for i := 0; i <= len(b)-8; i += 8 {
		if m := strangers(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i+firstByte(m) == length
		}
	}
	return false
}

// strangers has a bit for each byte of w that is no letter, digit or hyphen.
func strangers(w uint64) uint64 {
	const lows = ^uint64(highs)
	c := w & lows // no sum below is more than a byte
	l := c | ones*0x20
	letter := (l + ones*(0x80-'a')) &^ (l + ones*(0x7f-'z'))
	digit := (c + ones*(0x80-'0')) &^ (c + ones*(0x7f-'9'))
	hyphen := highs - (c ^ ones*'-')
	return (^(letter | digit | hyphen) | w) & highs
}

// knownWords is how many words a known name and the colon behind it may take. Longer names are not known.
const knownWords = 3

// knownName is a known name as the parser compares it: the name and its colon, where a byte of folds has bit 0x20 clear
// for a letter, which may have either case, and is 0 behind the colon. No other bytes than those of the name can be equal,
// be they a token or not.
type knownName struct{ words, folds [knownWords]uint64 }

func asKnown(text string) (n knownName) {
	for i := range len(text) {
		fold := uint64(0xff)
		if text[i] >= 'a' {
			fold = 0xdf
		}
		n.words[i/8] |= uint64(text[i]) & fold << (i % 8 * 8)
		n.folds[i/8] |= fold << (i % 8 * 8)
	}
	return n
}

// forwardedFamily is what the names of KnownXForwarded begin with.
const forwardedFamily = "x-forwarded-"

// knownNames has the names by id, and knownSlots the ids by hashName. Never written after start.
var (
	knownNames = func() (names [knownEnd]knownName) {
		for k := KnownNone + 1; k < KnownAlias; k++ {
			names[k] = asKnown(known[k].name + ":")
		}
		return names
	}()
	forwardedBegins = asKnown(forwardedFamily)
	knownSlots      = func() (slots [128]Known) {
		for k := KnownNone + 1; k < KnownAlias; k++ {
			name := known[k].name
			slot := &slots[hashName(name[0], name[len(name)-1], len(name))]
			if *slot != KnownNone {
				panic("BUG: h1: " + name + " and " + known[*slot].name + " need other factors in hashName")
			}
			*slot = k
		}
		return slots
	}()
)

// hashName tells the known names apart by their first and last letters, in any case, and their length: it is below 128 and
// different for each. The factors were found by trying them in order.
func hashName(first, last byte, length int) uint8 {
	return ((first|0x20)*11 + (last|0x20)*70 + uint8(length)) >> 1
}

// window holds a known name and its colon.
type window [8 * knownWords]byte

// begins says whether w begins with the name and a colon. That of KnownNone is everywhere.
func (n *knownName) begins(w *window) bool {
	return (binary.LittleEndian.Uint64(w[0:])&n.folds[0]^n.words[0])|
		(binary.LittleEndian.Uint64(w[8:])&n.folds[1]^n.words[1])|
		(binary.LittleEndian.Uint64(w[16:])&n.folds[2]^n.words[2]) == 0
}

// lookup gives the id of the name of length bytes that w begins with; a colon is behind it. Of a known name there is nothing
// more to check; any other may be invalid.
func (w *window) lookup(length int) Known {
	k := knownSlots[hashName(w[0], w[length-1], length)]
	if !knownNames[k].begins(w) {
		return KnownNone
	}
	return k
}

// forwarded says that w begins with a name of length bytes that is one of KnownXForwarded, if of none else.
func (w *window) forwarded(length int) bool {
	return length > len(forwardedFamily) && forwardedBegins.begins(w)
}

// lookupKnown gives the id of a name that stands by itself, which must be a token.
func lookupKnown(name []byte) Known {
	var line window
	n := copy(line[:], name)
	if k := line.lookupName(n, len(name)); k != KnownNone || bytes.IndexByte(name, '_') < 0 {
		return k
	}
	for i, c := range line[:n] {
		if c == '_' {
			line[i] = '-'
		}
	}
	if line.lookupName(n, len(name)) != KnownNone {
		return KnownAlias
	}
	return KnownNone
}

// lookupName gives the id of a name of length bytes, of which w holds n.
func (w *window) lookupName(n, length int) Known {
	if n > 0 && n < len(w) {
		w[n] = ':'
		if k := w.lookup(n); k != KnownNone {
			return k
		}
	}
	if w.forwarded(length) {
		return KnownXForwarded
	}
	return KnownNone
}
