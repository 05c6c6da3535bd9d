package scan

// Scope says what a SET sets.
type Scope uint8

// The scopes.
const (
	SessionScope     Scope = iota // SET a, SET SESSION a, SET LOCAL a, SET @@a, SET @@session.a
	GlobalScope                   // SET GLOBAL a, SET @@global.a
	PersistScope                  // SET PERSIST a, SET PERSIST_ONLY a
	UserScope                     // SET @a
	TransactionScope              // SET TRANSACTION ..., for the next transaction only: Names transaction_isolation, transaction_read_only
)

// Setting is one assignment of a SET.
//
// SET NAMES and SET CHARACTER SET appear as settings called "names" and "character set". Their value is the character set, and Collation what stands behind
// COLLATE. SET TRANSACTION appears as "transaction_isolation" and "transaction_read_only" (MySQL manual 15.3.7), with values "READ COMMITTED", "ONLY" and so on.
type Setting struct {
	Scope Scope
	// Name as written, without scope and @; it may be quoted, and may have dots ("default.key_buffer_size"). It aliases the text, or is a constant.
	Name []byte
	// Value is the text of the value, quotes and sign included; an alias of the text.
	Value     []byte
	Collation []byte
	// Kind is what the value is: a literal's kind (Text, Integer, ...), Word or Quoted for a single word such as ON, gbk or DEFAULT, Parameter, Operator for any
	// other expression, whose value only a server knows.
	Kind Kind
}

// Literal says that the value can be read off the text.
func (s *Setting) Literal() bool {
	return s.Kind.Literal() || s.Kind == Word || s.Kind == Name || s.Kind == Quoted
}

// AppendSettings appends the assignments of one SET statement. It returns false if the statement is not a SET or is not understood to its end; then what was
// appended is not all, and the server must be asked.
func AppendSettings(to []Setting, statement []byte, m *Mode) ([]Setting, bool) {
	statement = Trim(statement, m)
	end, next, _ := Split(statement, m)
	if next < len(statement) {
		return to, false
	}
	r := reader{text: statement, stop: end}
	r.Reset(statement, m)
	r.advance()
	if !r.take(wSet) {
		return to, false
	}
	for modified := false; ; {
		var one Setting
		ok := false
		switch {
		case r.word == wTransaction && r.ahead.Kind == Word:
			one.Scope = TransactionScope
			return r.transaction(to, one)
		case (r.word == wSession || r.word == wLocal || r.word == wGlobal) && r.aheadWord() == wTransaction:
			if r.word == wGlobal {
				one.Scope = GlobalScope
			}
			r.advance()
			return r.transaction(to, one)
		default:
			one, ok = r.setting(&modified)
		}
		if !ok {
			return to, false
		}
		to = append(to, one)
		if r.tok.Kind == End {
			return to, !r.Odd
		}
		if !r.is(',') {
			return to, false
		}
		r.advance()
	}
}

// setting reads one assignment, up to the comma or the end. modified remembers that GLOBAL or PERSIST was met: servers let it reach on to the assignments
// behind it that have none (MySQL manual 15.7.6.1), which nobody expects, so such statements are not understood.
func (r *reader) setting(modified *bool) (one Setting, ok bool) {
	switch {
	case r.tok.Kind == UserVar:
		one.Scope = UserScope
		one.Name = r.text[r.tok.Start+1 : r.tok.End]
		r.advance()
		return r.assignment(one)
	case r.tok.Kind == SysVar:
		one.Name = r.text[r.tok.Start+2 : r.tok.End]
		r.advance()
		if r.tok.Kind == Dot {
			switch {
			case folds(one.Name, "session"), folds(one.Name, "local"):
			case folds(one.Name, "global"):
				one.Scope = GlobalScope
			case folds(one.Name, "persist"), folds(one.Name, "persist_only"):
				one.Scope = PersistScope
			default:
				return one, false
			}
			r.advance()
			one.Name = r.text[r.tok.Start:r.tok.End]
			r.advance()
		}
		return r.assignment(one)
	case r.word == wNames && !r.aheadIs('='):
		r.advance()
		one.Name = names
		return r.charset(one)
	case r.word == wCharset && !r.aheadIs('='):
		r.advance()
		one.Name = characterSet
		return r.charset(one)
	case r.word == wCharacter && r.aheadWord() == wSet:
		r.advance()
		r.advance()
		one.Name = characterSet
		return r.charset(one)
	}
	if r.ahead.Kind == Word || r.ahead.Kind == Name || r.ahead.Kind == Quoted {
		switch r.word {
		case wSession, wLocal:
		case wGlobal:
			one.Scope, *modified = GlobalScope, true
		case wPersist, wPersistOnly:
			one.Scope, *modified = PersistScope, true
		default:
			return one, false
		}
		r.advance()
	} else if *modified || r.word == wPassword {
		return one, false
	}
	start, end := r.tok.Start, r.tok.End
	if r.tok.Kind != Word && r.tok.Kind != Name && r.tok.Kind != Quoted {
		return one, false
	}
	r.advance()
	for r.tok.Kind == Dot { // default.key_buffer_size, or a column of NEW in a trigger
		r.advance()
		end = r.tok.End
		r.advance()
	}
	one.Name = r.text[start:end]
	return r.assignment(one)
}

var names, characterSet, transactionIsolation, transactionReadOnly = []byte("names"), []byte("character set"), []byte("transaction_isolation"), []byte("transaction_read_only")

// assignment reads = value or := value.
func (r *reader) assignment(one Setting) (Setting, bool) {
	if !r.is('=') && (r.tok.Kind != Operator || string(r.text[r.tok.Start:r.tok.End]) != ":=") {
		return one, false
	}
	r.advance()
	start, end, tokens, depth := r.tok.Start, r.tok.Start, 0, 0
	signed := r.is('-') || r.is('+')
	for ; r.tok.Kind != End && (depth > 0 || !r.is(',')); r.advance() {
		switch {
		case r.tok.Kind == Bad || r.tok.Kind == Semicolon:
			return one, false
		case r.is('('):
			depth++
		case r.is(')'):
			depth--
		}
		tokens++
		one.Kind = r.tok.Kind
		end = r.tok.End
	}
	if tokens == 0 {
		return one, false
	}
	one.Value = r.text[start:end]
	number := one.Kind == Integer || one.Kind == Decimal || one.Kind == Float
	if tokens > 1 && (tokens != 2 || !signed || !number) {
		one.Kind = Operator
	}
	if k := one.Kind; !one.Literal() && k != Parameter {
		one.Kind = Operator
	}
	return one, true
}

// charset reads charset [COLLATE collation], charset a word, a string or DEFAULT.
func (r *reader) charset(one Setting) (Setting, bool) {
	if r.is('=') {
		return one, false
	}
	one.Kind = r.tok.Kind
	if !one.Literal() && one.Kind != Parameter || r.word == wCollate {
		return one, false
	}
	one.Value = r.text[r.tok.Start:r.tok.End]
	r.advance()
	if r.take(wCollate) {
		if k := r.tok.Kind; k != Word && k != Text && k != Quoted {
			return one, false
		}
		one.Collation = r.text[r.tok.Start:r.tok.End]
		r.advance()
	}
	return one, true
}

// transaction reads TRANSACTION ISOLATION LEVEL level | READ ONLY | READ WRITE, ...
func (r *reader) transaction(to []Setting, one Setting) ([]Setting, bool) {
	r.advance()
	for {
		one.Kind = Word
		switch {
		case r.word == wIsolation && r.aheadWord() == wLevel:
			one.Name = transactionIsolation
			r.advance()
			r.advance()
			start := r.tok.Start
			switch first := r.word; {
			case first == wSerializable:
			case (first == wRead && (r.aheadWord() == wCommitted || r.aheadWord() == wUncommitted)), first == wRepeatable && r.aheadWord() == wRead:
				r.advance()
			default:
				return to, false
			}
			one.Value = r.text[start:r.tok.End]
		case r.word == wRead && (r.aheadWord() == wOnly || r.aheadWord() == wWrite):
			one.Name = transactionReadOnly
			r.advance()
			one.Value = r.text[r.tok.Start:r.tok.End]
		default:
			return to, false
		}
		to = append(to, one)
		r.advance()
		if r.tok.Kind == End {
			return to, !r.Odd
		}
		if !r.is(',') {
			return to, false
		}
		r.advance()
	}
}

// set classifies a SET: what it says, AppendSettings tells in full.
func (r *reader) set() {
	f := &r.facts
	r.kind(Set, 0)
	r.writes("sets variables")
	second := r.aheadWord()
	switch second {
	case wPassword:
		f.Kind = SetPassword
		f.Effects |= ChangesLogin | CommitsImplicitly
		return
	case wRole, wDefault:
		f.Kind = SetRole
		f.Effects |= ChangesLogin
		return
	case wStatement:
		r.setStatement()
		return
	case wResource:
		f.Effects |= SetsVariables
		return
	}
	// The values may hold anything that an expression can: @a := 1, function calls, sub-selects.
	values := *r
	values.advance()
	values.expressions(-1)
	f.Effects |= r.assignments() | values.facts.Effects
	f.Hint = max(f.Hint, values.facts.Hint)
	r.Odd = r.Odd || values.Odd
}

// setStatement classifies SET STATEMENT a = 1, ... FOR a statement, which sets variables for the time of that statement. MariaDB's drivers bound statements in that
// way, so that is understood for bounds: then it is a statement of the kind behind FOR, which nobody takes for read-only. With other variables, or for other statements, its effect is
// not known.
func (r *reader) setStatement() {
	r.facts.Kind = SetStatement
	to := *r
	if to.bounds() {
		switch to.aheadWord() {
		case wSelect, wInsert, wReplace, wUpdate, wDelete:
			*r = to
			r.statement()
			return
		}
	}
	r.unknown("SET STATEMENT")
	r.expressions(-1)
}

// bounds reads from SET to FOR; false when anything else than bounds is set.
func (r *reader) bounds() bool {
	r.advance() // STATEMENT
	for {
		r.advance()
		name := r.text[r.tok.Start:r.tok.End]
		if r.tok.Kind != Word || !folds(name, "max_statement_time") && !folds(name, "lock_wait_timeout") && !folds(name, "innodb_lock_wait_timeout") {
			return false
		}
		if r.advance(); !r.is('=') {
			return false
		}
		if r.advance(); r.tok.Kind != Integer && r.tok.Kind != Decimal {
			return false
		}
		if r.advance(); !r.is(',') {
			return r.word == wFor
		}
	}
}

// assignments gathers the effects of what a SET assigns.
func (r *reader) assignments() (effects Effect) {
	r.advance()
	if r.word == wTransaction || r.aheadWord() == wTransaction {
		if r.word == wGlobal {
			return SetsGlobals
		}
		return SetsVariables
	}
	for modified := false; ; r.advance() {
		one, ok := r.setting(&modified)
		if !ok {
			return effects | SetsVariables | UnknownEffect
		}
		switch one.Scope {
		case UserScope:
			effects |= SetsUserVariables
		case GlobalScope, PersistScope:
			effects |= SetsGlobals
		default:
			effects |= SetsVariables
			if folds(bare(one.Name), "autocommit") {
				effects |= SetsAutocommit
			}
		}
		switch {
		case r.tok.Kind == End:
			return effects
		case !r.is(','):
			return effects | UnknownEffect
		}
	}
}

// bare takes the quotes off a name.
func bare(name []byte) []byte {
	if n := len(name); n > 2 && (name[0] == '`' || name[0] == '"') {
		return name[1 : n-1]
	}
	return name
}
