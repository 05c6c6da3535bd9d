package scan

// statementsMax bounds the work on one text; nobody sends so many statements at once. From there on a text is of unknown effect.
const statementsMax = 1000

// Classify says what a text does, from its tokens alone. It allocates nothing; a print's worth of time for a short statement.
func Classify(text []byte, m *Mode) Facts {
	all := Facts{ReadOnly: true}
	text = Trim(text, m)
	for at := 0; ; {
		end, next, exact := Split(text[at:], m)
		c := reader{text: text[at:], stop: end}
		c.Reset(c.text, m)
		c.facts.ReadOnly = true
		c.statement()
		for c.tok.Kind != End && c.tok.Kind != Bad { // a hint, or what is odd, may stand anywhere
			c.advance()
		}
		if c.Odd {
			c.unknown("odd text")
		}
		if !exact && c.facts.Kind != Definition {
			c.unknown("compound or odd statement")
		}
		f := &c.facts
		if f.Name.End > 0 {
			f.Name.Start += at
			f.Name.End += at
		}
		all.Statements++
		if all.Statements == statementsMax && at+next < len(text) {
			c.unknown("too many statements")
			next = len(text) - at
		}
		if all.Kind == Unknown && all.Statements == 1 || all.Kind == Empty {
			all.Kind, all.Name, all.TransactionReadOnly, all.QueryOnly, all.Values = f.Kind, f.Name, f.TransactionReadOnly, f.QueryOnly, f.Values
		}
		all.Effects |= f.Effects
		all.Hint = max(all.Hint, f.Hint)
		if all.ReadOnly && !f.ReadOnly {
			all.ReadOnly, all.Why = false, f.Why
		}
		if at += next; at >= len(text) {
			return all
		}
	}
}

// reader walks over one statement with one token of look-ahead, and gathers its facts.
type reader struct {
	Scanner
	text  []byte // with what follows the statement: whether -- begins a comment depends on the byte behind it
	stop  int    // where the statement ends
	facts Facts

	tok      Token
	word     word // of tok, none if it is no keyword
	gap      bool // before tok
	ahead    Token
	aheadGap bool
	started  bool
}

// advance makes the next token the current one.
func (r *reader) advance() {
	if !r.started {
		r.started = true
		r.load()
	}
	r.tok, r.gap, r.word = r.ahead, r.aheadGap, none
	if r.tok.Kind == Word {
		r.word, _ = wordOf(r.text[r.tok.Start:r.tok.End])
	}
	if r.tok.Kind != End && r.tok.Kind != Bad {
		r.load()
	}
}

func (r *reader) load() {
	r.aheadGap = false
	for {
		t, gap := r.next()
		r.aheadGap = r.aheadGap || gap
		switch t.Kind {
		case Comment:
			r.facts.Hint = max(r.facts.Hint, hintOf(r.text[t.Start:t.End]))
			r.aheadGap = true
		case Hint:
			r.aheadGap = true
		default:
			if t.Start >= r.stop {
				t.Kind = End
			}
			r.ahead = t
			return
		}
	}
}

// take advances if the current token is the word.
func (r *reader) take(w word) bool {
	if r.word != w {
		return false
	}
	r.advance()
	return true
}

// is says that the current token is the operator c.
func (r *reader) is(c byte) bool {
	return r.tok.Kind == Operator && r.tok.End == r.tok.Start+1 && r.text[r.tok.Start] == c
}

func (r *reader) aheadIs(c byte) bool {
	return r.ahead.Kind == Operator && r.ahead.End == r.ahead.Start+1 && r.text[r.ahead.Start] == c
}

func (r *reader) aheadWord() word {
	if r.ahead.Kind != Word {
		return none
	}
	w, _ := wordOf(r.text[r.ahead.Start:r.ahead.End])
	return w
}

// writes says that the statement is not read-only.
func (r *reader) writes(why string) {
	if r.facts.ReadOnly {
		r.facts.ReadOnly, r.facts.Why = false, why
	}
}

func (r *reader) unknown(why string) {
	r.writes(why)
	r.facts.Effects |= UnknownEffect
}

func (r *reader) name() { r.facts.Name = Span{r.tok.Start, r.tok.End} }

// statement dispatches on the leading words, then reads the rest for what can stand anywhere.
func (r *reader) statement() {
	f := &r.facts
	r.advance()
	if r.tok.Kind == End {
		f.Kind = Empty
		return
	}
	brackets := false
	for r.is('(') {
		brackets = true
		r.advance()
	}
	first := r.word
	if r.ahead.Kind == Operator && r.aheadIs(':') {
		f.Kind = Compound
		r.unknown("compound statement")
		return
	}
	if brackets && first != wSelect && first != wWith && first != wValues && first != wTable {
		r.unknown("unknown statement")
		return
	}
	switch first {
	case wSelect, wValues, wTable:
		f.Kind, f.Values = Select, first == wValues
		r.expressions(-1)
	case wWith:
		r.with()
	case wInsert, wReplace:
		f.Kind = Insert
		if first == wReplace {
			f.Kind = Replace
		}
		r.writes("writes data")
		r.insert()
	case wUpdate, wDelete:
		f.Kind = Update
		if first == wDelete {
			f.Kind = Delete
		}
		r.writes("writes data")
		r.advance()
		r.expressions(-1)
	case wShow:
		r.show()
	case wExplain, wDescribe, wDesc:
		r.explain()
	case wAnalyze:
		switch r.aheadWord() {
		case wTable, wLocal, wNoWriteToBinlog:
			f.Kind = TableAdmin
			f.Effects |= CommitsImplicitly
			r.writes("table administration")
		default:
			f.Kind = Explain
			r.writes("ANALYZE runs its statement")
			r.advance()
			r.expressions(-1)
		}
	case wSet:
		r.set()
	default:
		r.control(first)
	}
}

// with finds what the common table expressions are for: the first of the statement words outside of brackets.
func (r *reader) with() {
	f := &r.facts
	f.Kind = Unknown
	depth := 0
	main := *r // a copy: the look for the main word must not swallow what expressions wants to see
	for main.tok.Kind != End && main.tok.Kind != Bad && f.Kind == Unknown {
		switch {
		case main.is('('):
			depth++
		case main.is(')'):
			depth--
		case depth == 0:
			switch main.word {
			case wSelect, wValues, wTable:
				f.Kind, f.Values = Select, main.word == wValues
			case wUpdate:
				f.Kind = Update
			case wDelete:
				f.Kind = Delete
			case wInsert:
				f.Kind = Insert
			case wReplace:
				f.Kind = Replace
			}
		}
		main.advance()
	}
	switch f.Kind {
	case Select:
	case Unknown:
		// WITH t AS (...) (SELECT ...) is a select too, but not worth being sure of.
		r.unknown("unknown statement behind WITH")
	default:
		r.writes("writes data")
	}
	r.expressions(-1)
}

// insert skips the table with its columns, which looks like a call.
func (r *reader) insert() {
	r.advance()
	for r.word == wLowPriority || r.word == wDelayed || r.word == wHighPriority || r.word == wIgnore || r.word == wInto {
		r.advance()
	}
	last := r.tok.Start
	for r.ahead.Kind == Dot {
		r.advance()
		r.advance()
		last = r.tok.Start
	}
	r.expressions(last)
}

// explain tells DESCRIBE t from EXPLAIN of a statement.
func (r *reader) explain() {
	f := &r.facts
	r.advance()
	f.Kind = Describe
	f.Effects |= AsksInstance
	for more := true; more; {
		switch r.word {
		case wExtended, wPartitions:
			if r.ahead.Kind == End {
				return // a table of that name
			}
			r.advance()
		case wFormat:
			if !r.aheadIs('=') {
				return
			}
			r.advance()
			r.advance()
			r.advance()
		case wAnalyze:
			r.advance()
			r.writes("EXPLAIN ANALYZE runs its statement")
		default:
			more = false
		}
	}
	switch r.word {
	case wSelect, wWith, wTable, wValues:
		f.Kind = Explain
	case wInsert, wReplace, wUpdate, wDelete:
		f.Kind = Explain
		r.writes("explains a write")
	case wFor:
		f.Kind = Explain
	default:
		if r.is('(') {
			f.Kind = Explain
		}
	}
	r.expressions(-1)
}

func (r *reader) show() {
	f := &r.facts
	r.advance()
	f.Kind = Show
	f.Effects |= AsksInstance
	switch r.word {
	case wMenshen:
		f.Kind = ShowMenshen
		r.advance()
		r.name()
		return
	case wWarnings, wErrors:
		f.Kind = ShowDiagnostics
		f.Effects |= ReadsDiagnostics
		return
	case wCount:
		f.Kind = ShowDiagnostics
		f.Effects |= ReadsDiagnostics
	case wProcesslist:
		f.Kind = ShowProcesses
	case none:
		if folds(r.text[r.tok.Start:r.tok.End], "full") && r.aheadWord() == wProcesslist {
			f.Kind = ShowProcesses
		}
		if r.tok.Kind != Word {
			r.unknown("unknown SHOW")
		}
	}
	r.expressions(-1)
}

// expressions reads to the end of the statement for what can stand anywhere in one. table is where the name of an INSERT's table begins, or -1.
func (r *reader) expressions(table int) {
	f := &r.facts
	selects := f.Kind == Select || f.Kind == Explain
	var before word  // the word before tok, none if it was something else
	dotted := false  // tok stands behind a dot
	operand := false // tok stands behind a value or a closing bracket: then it begins no call, as in "count(*) over (" and "match(a) against ("
	for {
		switch r.tok.Kind {
		case End, Bad:
			return
		case Word:
			r.keyword(before, selects)
			if r.word.reserved() {
				break
			}
			fallthrough
		case Name, Quoted:
			if r.aheadIs('(') && !operand && r.tok.Start != table && before != wAs && before != wWith && before != wRecursive && before != wInto && before != wTable {
				r.call(dotted)
			} else if r.ahead.Kind == Dot && !dotted && r.systemSchema() {
				f.Effects |= AsksInstance
			}
		case UserVar:
			if r.ahead.Kind == Operator && string(r.text[r.ahead.Start:r.ahead.End]) == ":=" {
				f.Effects |= SetsUserVariables
				r.writes("sets a user variable")
			}
			f.Effects |= ReadsUserVariables
		case SysVar:
			r.systemVariable()
		case Operator:
			if string(r.text[r.tok.Start:r.tok.End]) == ":=" {
				f.Effects |= SetsUserVariables
				r.writes("sets a user variable")
			}
		}
		before, dotted, operand = r.word, r.tok.Kind == Dot, r.tok.Kind.Literal() || r.tok.Kind == Parameter || r.is(')')
		r.advance()
	}
}

// keyword looks at a word wherever it stands in a statement.
func (r *reader) keyword(before word, selects bool) {
	f := &r.facts
	switch r.word {
	case wInto:
		if !selects {
			break
		}
		switch r.aheadWord() {
		case wOutfile, wDumpfile:
			f.Effects |= WritesFile
			r.writes("writes a file")
		default:
			f.Effects |= SetsUserVariables
			r.writes("selects into variables")
		}
	case wUpdate, wShare:
		if before == wFor {
			f.Effects |= LocksRows
			r.writes("locks rows")
		} else if r.word == wUpdate && selects {
			r.writes("UPDATE in a select")
		}
	case wLock:
		f.Effects |= LocksRows
		r.writes("locks rows")
	case wDelete:
		r.writes("DELETE in a select")
	case wInsert, wReplace:
		if !r.aheadIs('(') {
			r.writes("INSERT in a select")
		}
	case wProcedure:
		if selects {
			r.unknown("PROCEDURE in a select")
		}
	case wSqlCalcFoundRows:
		f.Effects |= CalculatesFoundRows
		r.writes("SQL_CALC_FOUND_ROWS is for a later statement")
	case wValue:
		switch before {
		case wNext:
			f.Effects |= SetsLastInsertID
			r.writes("takes a sequence value")
		case wPrevious:
			f.Effects |= ReadsLastInsertID
		}
	case wCurrentUser:
		f.Effects |= ReadsLogin
	}
}

// systemSchema says that tok names a schema whose tables each instance fills for itself.
func (r *reader) systemSchema() bool {
	b := r.text[r.tok.Start:r.tok.End]
	if r.tok.Kind == Quoted {
		b = b[1 : len(b)-1]
	}
	return folds(b, "sys") || folds(b, "mysql") || folds(b, "information_schema") || folds(b, "performance_schema")
}

// systemVariable reads @@name, @@scope.name.
func (r *reader) systemVariable() {
	f := &r.facts
	b := r.text[r.tok.Start+2 : r.tok.End]
	if r.ahead.Kind == Dot {
		r.advance()
		r.advance()
		b = r.text[r.tok.Start:r.tok.End]
	}
	switch {
	case folds(b, "last_insert_id"), folds(b, "identity"):
		f.Effects |= ReadsLastInsertID
	case folds(b, "warning_count"), folds(b, "error_count"):
		f.Effects |= ReadsDiagnostics
	case folds(b, "pseudo_thread_id"):
		f.Effects |= ReadsConnectionID
	default:
		f.Effects |= ReadsVariables
	}
}

// call looks at a name with a bracket behind it.
func (r *reader) call(qualified bool) {
	f := &r.facts
	name := r.text[r.tok.Start:r.tok.End]
	known, kind := builtin(name, r.mode.MariaDB)
	switch {
	case qualified, r.tok.Kind == Quoted, !known, r.aheadGap && (kind == spaced || kind == login):
		// A qualified or quoted name is never a built-in function; neither is one of the spaced ones with a space before the bracket (MySQL manual 11.2.5).
		f.Effects |= CallsUnknown
		r.writes("calls a function that is not built in")
		return
	}
	switch kind {
	case userLock:
		f.Effects |= TakesUserLock
		r.writes("takes or frees a user lock")
	case instance:
		f.Effects |= AsksInstance
	case foundRows:
		f.Effects |= ReadsFoundRows
	case rowCount:
		f.Effects |= ReadsRowCount
	case connectionID:
		f.Effects |= ReadsConnectionID
	case login:
		f.Effects |= ReadsLogin
	case lastValue:
		f.Effects |= ReadsLastInsertID
	case nextValue:
		f.Effects |= SetsLastInsertID
		r.writes("takes or sets a sequence value")
	case lastInsertID:
		after := *r
		after.advance() // (
		after.advance()
		if after.is(')') {
			f.Effects |= ReadsLastInsertID
		} else {
			f.Effects |= SetsLastInsertID
			r.writes("sets the last insert id")
		}
	case file:
		f.Effects |= AsksInstance
		r.writes("reads a file of the server")
	}
}
