package scan

// control classifies the statements that are neither queries nor changes of rows: transactions, session, definitions, administration. None is read-only.
func (r *reader) control(first word) {
	f := &r.facts
	r.writes("not a query")
	second := r.aheadWord()
	switch first {
	case wBegin:
		if second == wNot {
			f.Kind = Compound
			r.unknown("compound statement")
			return
		}
		r.kind(Begin, BeginsTransaction)
	case wStart:
		r.start(second)
	case wCommit, wRollback:
		r.end(first)
	case wSavepoint:
		r.kind(Savepoint, 0)
		r.advance()
		r.name()
	case wRelease:
		r.kind(ReleaseSavepoint, 0)
		r.advance()
		r.advance()
		r.name()
	case wXa:
		r.xa(second)
	case wUse:
		r.kind(Use, ChangesSchema)
		r.advance()
		r.name()
	case wPrepare:
		r.kind(Prepare, PreparesStatement)
		r.advance()
		r.name()
		r.expressions(-1)
	case wExecute:
		if second == wImmediate {
			r.kind(ExecuteImmediate, UnknownEffect)
			return
		}
		r.kind(Execute, PreparesStatement|UnknownEffect)
		r.advance()
		r.name()
		r.expressions(-1)
	case wDeallocate:
		r.kind(Deallocate, PreparesStatement)
		r.advance()
		r.advance()
		r.name()
	case wDrop:
		if second == wPrepare {
			r.kind(Deallocate, PreparesStatement)
			r.advance()
			r.advance()
			r.name()
			return
		}
		r.definition()
	case wCreate, wAlter, wRename, wTruncate:
		r.definition()
	case wGrant, wRevoke:
		r.kind(Account, CommitsImplicitly)
	case wLock:
		if second == wTable || second == wTables {
			r.kind(LockTables, LocksTables|CommitsImplicitly)
		} else { // LOCK INSTANCE FOR BACKUP
			r.kind(ServerAdmin, LocksTables)
		}
	case wUnlock:
		r.kind(UnlockTables, UnlocksTables|CommitsImplicitly)
	case wCall:
		r.kind(Call, CallsUnknown)
		r.advance()
		// The procedure's name looks like a function's; what it calls may do anything anyway.
		r.expressions(-1)
	case wDo:
		r.kind(Do, 0)
		r.advance()
		r.expressions(-1)
	case wHandler:
		r.handler()
	case wLoad:
		if second == wIndex {
			r.kind(TableAdmin, CommitsImplicitly)
			return
		}
		r.kind(LoadData, 0)
		r.expressions(-1)
	case wKill:
		r.kill()
	case wHelp:
		r.kind(Help, AsksInstance)
	case wGet:
		r.kind(GetDiagnostics, ReadsDiagnostics)
		r.expressions(-1)
		if f.Effects.Has(ReadsUserVariables) {
			f.Effects |= SetsUserVariables
		}
	case wSignal, wResignal:
		r.kind(Signal, 0)
	case wCheck, wChecksum, wOptimize, wRepair, wCache:
		r.kind(TableAdmin, CommitsImplicitly)
	case wFlush:
		r.flush()
	case wReset, wPurge:
		r.kind(Flush, CommitsImplicitly)
		if second == wQuery {
			f.Effects &^= CommitsImplicitly
		}
	case wChange, wStop, wBinlog:
		r.kind(Replication, CommitsImplicitly)
	case wShutdown, wRestart, wInstall, wUninstall, wClone, wImport:
		r.kind(ServerAdmin, CommitsImplicitly)
	case wBackup: // BACKUP LOCK, BACKUP STAGE
		r.kind(ServerAdmin, LocksTables)
	case wDeclare, wIf, wLoop, wRepeat, wWhile, wFor, wCase:
		f.Kind = Compound
		r.unknown("compound statement")
	default:
		r.unknown("unknown statement")
	}
}

func (r *reader) kind(k Statement, e Effect) {
	r.facts.Kind = k
	r.facts.Effects |= e
}

// start reads START TRANSACTION and START REPLICA.
func (r *reader) start(second word) {
	f := &r.facts
	if second != wTransaction {
		r.kind(Replication, CommitsImplicitly)
		return
	}
	r.kind(Begin, BeginsTransaction)
	for r.tok.Kind != End && r.tok.Kind != Bad {
		if r.word == wRead && r.aheadWord() == wOnly {
			f.TransactionReadOnly = true
		}
		r.advance()
	}
}

// end reads COMMIT and ROLLBACK [WORK] [AND [NO] CHAIN] [[NO] RELEASE] | ROLLBACK [WORK] TO [SAVEPOINT] name.
func (r *reader) end(first word) {
	r.kind(Commit, EndsTransaction)
	if first == wRollback {
		r.facts.Kind = Rollback
	}
	r.advance()
	r.take(wWork)
	if first == wRollback && r.take(wTo) {
		if r.ahead.Kind != End {
			r.take(wSavepoint)
		}
		r.name()
		r.facts.Kind, r.facts.Effects = RollbackTo, 0
		return
	}
	no := false
	for r.tok.Kind != End && r.tok.Kind != Bad {
		switch {
		case r.word == wChain && !no:
			r.facts.Effects |= BeginsTransaction
		case r.word == wRelease && !no:
			r.facts.Effects |= ReleasesConnection
		}
		no = r.word == wNo
		r.advance()
	}
}

// xa marks the whole family: from XA START on the connection belongs to the transaction until XA COMMIT or ROLLBACK, wherever they come from.
func (r *reader) xa(second word) {
	r.kind(XA, 0)
	switch second {
	case wStart, wBegin:
		r.facts.Effects |= BeginsTransaction
	case wEnd, wPrepare, wCommit, wRollback:
		r.facts.Effects |= EndsTransaction
	case wRecover:
		r.facts.Effects |= AsksInstance
	default:
		r.unknown("unknown XA")
	}
}

// definition reads CREATE, ALTER, DROP, RENAME, TRUNCATE far enough to see accounts and temporary tables.
func (r *reader) definition() {
	f := &r.facts
	create := r.word == wCreate
	r.kind(Definition, CommitsImplicitly)
	r.advance()
	if r.word == wOr {
		r.advance()
		r.advance()
	}
	switch r.word {
	case wTemporary:
		f.Effects &^= CommitsImplicitly
		if create {
			f.Effects |= CreatesTemporary
		}
	case wUser, wRole:
		f.Kind = Account
	}
	// A definition may hold a query (CREATE TABLE ... SELECT) and routines' bodies; what is in a body is not run now. User variables, functions and locks of the query
	// are: look for them, but not for calls, which columns and types look like.
	for r.tok.Kind != End && r.tok.Kind != Bad {
		if r.tok.Kind == Word && (r.word == wSelect || r.word == wValues && r.aheadIs('(')) {
			r.expressions(-1)
			return
		}
		r.advance()
	}
}

// handler: HANDLER t OPEN holds the table until HANDLER t CLOSE.
func (r *reader) handler() {
	r.kind(Handler, 0)
	open := false
	for r.tok.Kind != End && r.tok.Kind != Bad {
		open = open || r.word == wOpen
		if r.word == wClose {
			r.facts.Effects |= UnlocksTables
		}
		r.advance()
	}
	if open {
		r.facts.Effects |= LocksTables
	}
}

// kill reads KILL [HARD | SOFT] [CONNECTION | QUERY [ID]] id, with MariaDB's USER name.
func (r *reader) kill() {
	r.kind(Kill, AsksInstance)
	r.advance()
	for r.ahead.Kind != End && r.ahead.Kind != Bad && r.tok.Kind == Word {
		if r.word == wQuery {
			r.facts.QueryOnly = true
		}
		r.advance()
	}
	r.name()
}

// flush: the forms that leave tables locked are FLUSH TABLES ... WITH READ LOCK and ... FOR EXPORT.
func (r *reader) flush() {
	r.kind(Flush, CommitsImplicitly)
	for r.tok.Kind != End && r.tok.Kind != Bad {
		if r.word == wLock && r.facts.Kind == Flush || r.word == wExport {
			r.facts.Effects |= LocksTables
		}
		r.advance()
	}
}
