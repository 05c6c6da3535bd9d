package scan

import (
	"encoding/binary"
	"strings"
)

// word is a keyword that the scanner knows; none is every other word.
type word uint16

// reservedWords cannot be unquoted identifiers in any server we speak to (MySQL 5.7 to 9, MariaDB 10.2 to 12: the manuals' lists of reserved words, cut down
// to what all have in common). So folding their case never makes two tables one.
const reservedWords = `accessible add all alter analyze and as asc asensitive before between bigint binary blob both by call cascade case change char
character check collate column condition constraint continue convert create cross current_date current_time current_timestamp current_user cursor
databases day_hour day_microsecond day_minute day_second dec decimal declare default delayed delete desc describe deterministic distinct
distinctrow div double drop dual each else elseif enclosed escaped exists exit explain false fetch float float4 float8 for force foreign from fulltext grant
group having high_priority hour_microsecond hour_minute hour_second if ignore in index infile inner inout insensitive insert int int1 int2 int3 int4 int8
integer interval into is iterate join key keys kill leading leave left like limit linear lines load localtime localtimestamp lock long longblob longtext
loop low_priority match maxvalue mediumblob mediumint mediumtext middleint minute_microsecond minute_second mod modifies natural not
no_write_to_binlog null numeric on optimize optionally or order out outer outfile partition precision primary procedure purge range read reads
read_write real references regexp release rename repeat replace require resignal restrict return revoke right rlike schemas second_microsecond
select sensitive separator set show signal smallint spatial specific sql sqlexception sqlstate sqlwarning sql_big_result sql_calc_found_rows
sql_small_result ssl starting straight_join table terminated then tinyblob tinyint tinytext to trailing trigger true undo union unique unlock unsigned update
usage use using utc_date utc_time utc_timestamp values varbinary varchar varcharacter varying when where while with write xor year_month zerofill`

// reserved says that the word cannot be an unquoted identifier.
func (w word) reserved() bool { return w != none && w <= lastReserved }

// wordEntry is a word in the table, with what it is compared by: see wordKeys.
type wordEntry struct {
	first, last uint64
	text        string // in small letters
	word        word
}

// wordTable is an open hash table over all the known words, five times as large as they are many.
var wordTable = func() (table [2048]wordEntry) {
	for w, text := range wordTexts {
		if text == "" {
			continue
		}
		first, last := wordKeys([]byte(text))
		h := wordHash(first, last)
		for table[h].text != "" {
			h = (h + 1) % uint64(len(table))
		}
		table[h] = wordEntry{first, last, text, word(w)}
	}
	return table
}()

// wordTexts holds the text of each word: the reserved ones first.
var wordTexts = func() []string {
	texts := append([]string{""}, strings.Fields(reservedWords)...)
	return append(texts, strings.Fields(otherWords)...)
}()

const wordLongest = 19 // sql_calc_found_rows

const small = 0x2020202020202020

// wordKeys returns the first and the last eight bytes of s, which may overlap, in small letters; all of s if it has fewer. Setting the bit 0x20 makes letters
// small and keeps apart what can stand in an identifier, since _ is the only one of its column.
func wordKeys(s []byte) (first, last uint64) {
	switch n := len(s); {
	case n >= 8:
		first, last = binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[n-8:])
	case n >= 4:
		first, last = uint64(binary.LittleEndian.Uint32(s)), uint64(binary.LittleEndian.Uint32(s[n-4:]))
	default:
		first, last = uint64(binary.LittleEndian.Uint16(s)), uint64(s[n-1])
	}
	return first | small, last | small
}

func wordHash(first, last uint64) uint64 {
	return (first*0x9E3779B97F4A7C15 ^ last*0xC2B2AE3D27D4EB4F) >> 53
}

// wordOf returns which known word s is, in any case, and its text in small letters. It costs 3 to 5 ns.
func wordOf(s []byte) (word, string) {
	if len(s) < 2 || len(s) > wordLongest {
		return none, ""
	}
	first, last := wordKeys(s)
	for h := wordHash(first, last); ; h = (h + 1) % uint64(len(wordTable)) {
		e := &wordTable[h]
		switch {
		case e.text == "":
			return none, ""
		case e.first == first && e.last == last && len(e.text) == len(s) && (len(s) <= 16 || foldEqual(s, e.text)):
			return e.word, e.text
		}
	}
}

// foldEqual compares to a text in small ASCII letters, digits and underscores of the same length.
func foldEqual(s []byte, small string) bool {
	for i, c := range s {
		if c-'A' <= 'Z'-'A' {
			c |= 0x20
		}
		if c != small[i] {
			return false
		}
	}
	return true
}

// folds says that s is the small text, in any case.
func folds(s []byte, small string) bool { return len(s) == len(small) && foldEqual(s, small) }
