package scan

import "strings"

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

type wordEntry struct {
	text string // in small letters
	word word
}

// wordTable is an open hash table over all the known words; its size keeps chains at two probes at most in nearly all look-ups.
var wordTable = func() (table [2048]wordEntry) {
	for w, text := range wordTexts {
		if text == "" {
			continue
		}
		h := wordHash(text)
		for table[h].text != "" {
			h = (h + 1) % uint32(len(table))
		}
		table[h] = wordEntry{text, word(w)}
	}
	return table
}()

// wordTexts holds the text of each word: the reserved ones first.
var wordTexts = func() []string {
	texts := append([]string{""}, strings.Fields(reservedWords)...)
	return append(texts, strings.Fields(otherWords)...)
}()

const wordLongest = 20 // sql_calc_found_rows, no_write_to_binlog: 19, 18

func wordHash[T string | []byte](s T) uint32 {
	n := len(s)
	h := uint32(n)*0x9E37 ^ uint32(s[0]|0x20)*0x85EB ^ uint32(s[n-1]|0x20)*0xC2B3 ^ uint32(s[n/2]|0x20)*0x27D5 ^ uint32(s[n/3]|0x20)*0x1656
	return (h ^ h>>9) % 2048
}

// wordOf returns which known word s is, in any case, and its text in small letters.
func wordOf(s []byte) (word, string) {
	if len(s) < 2 || len(s) > wordLongest {
		return none, ""
	}
	for h := wordHash(s); ; h = (h + 1) % uint32(len(wordTable)) {
		e := &wordTable[h]
		if e.text == "" {
			return none, ""
		}
		if len(e.text) == len(s) && foldEqual(s, e.text) {
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
