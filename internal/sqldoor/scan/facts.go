package scan

import "strings"

// Statement is what a statement is, by its leading words.
type Statement uint8

// The statements. Those whose leading words are not known are Unknown.
const (
	Unknown  Statement = iota
	Empty              // nothing but comments and whitespace
	Compound           // MariaDB's blocks outside of routines: BEGIN NOT ATOMIC, IF, LOOP, ...

	Select  // SELECT, also in brackets, behind WITH, or as part of a UNION; TABLE t; VALUES ROW(...)
	Explain // EXPLAIN or DESCRIBE of a statement; ANALYZE of a statement, which runs it
	Describe
	Show
	ShowMenshen     // SHOW MENSHEN ...: for us
	ShowDiagnostics // SHOW WARNINGS, SHOW ERRORS, SHOW COUNT(*) WARNINGS
	ShowProcesses   // SHOW [FULL] PROCESSLIST
	Help
	Do
	Handler

	Insert
	Replace
	Update
	Delete
	LoadData // LOAD DATA, LOAD XML
	Call

	Begin // BEGIN, START TRANSACTION
	Commit
	Rollback
	Savepoint
	ReleaseSavepoint
	RollbackTo
	XA

	Set          // SET of variables, names, character set, transaction characteristics: see AppendSettings
	SetPassword  // SET PASSWORD
	SetRole      // SET ROLE, SET DEFAULT ROLE
	SetStatement // SET STATEMENT a=1 FOR statement (MariaDB)
	Use
	Prepare
	Execute
	ExecuteImmediate
	Deallocate
	LockTables
	UnlockTables
	GetDiagnostics
	Signal // SIGNAL, RESIGNAL

	Definition  // CREATE, ALTER, DROP, RENAME, TRUNCATE of anything but accounts
	Account     // CREATE USER, GRANT, REVOKE and the like
	TableAdmin  // ANALYZE, CHECK, CHECKSUM, OPTIMIZE, REPAIR TABLE; CACHE INDEX, LOAD INDEX
	Kill        // KILL [HARD|SOFT] [CONNECTION|QUERY] id
	Flush       // FLUSH, RESET, PURGE
	Replication // CHANGE MASTER, START REPLICA, BINLOG and the like
	ServerAdmin // SHUTDOWN, RESTART, INSTALL, CLONE, BACKUP and the like
)

var statementNames = [...]string{
	"unknown", "empty", "compound", "select", "explain", "describe", "show", "show menshen", "show diagnostics", "show processes", "help", "do", "handler", "insert", "replace",
	"update", "delete", "load data", "call", "begin", "commit", "rollback", "savepoint", "release savepoint", "rollback to", "xa", "set", "set password", "set role",
	"set statement", "use", "prepare", "execute", "execute immediate", "deallocate", "lock tables", "unlock tables", "get diagnostics", "signal", "definition", "account",
	"table admin", "kill", "flush", "replication", "server admin",
}

// String returns the statement's name in small letters, for logs and metrics; the set of names is fixed.
func (s Statement) String() string { return statementNames[s] }

// Effect is what a statement does to its session or asks of it: a set of bits.
type Effect uint32

// The effects. What they bind to one connection, and until when, is the session's business; here is only what the tokens say.
const (
	UnknownEffect       Effect = 1 << iota // anything may have happened: the statement is odd, compound, or of an unknown kind
	CallsUnknown                           // calls a function that is not built in, or a procedure, which may do anything
	BeginsTransaction                      // BEGIN, START TRANSACTION, AND CHAIN, XA START
	EndsTransaction                        // COMMIT, ROLLBACK (not TO), XA END and what follows it
	CommitsImplicitly                      // ends a transaction by being what it is: most definitions, LOCK TABLES (MySQL manual 15.3.3)
	SetsAutocommit                         // SET autocommit, to whatever value
	SetsVariables                          // SET of session variables, or of what AppendSettings does not understand
	SetsGlobals                            // SET GLOBAL, PERSIST: changes the instance
	SetsUserVariables                      // @a := 1, INTO @a, SET @a
	ReadsUserVariables                     // @a
	ReadsVariables                         // @@a: an answer that depends on the instance and the session
	CreatesTemporary                       // CREATE TEMPORARY TABLE
	LocksTables                            // LOCK TABLES, FLUSH TABLES WITH READ LOCK, BACKUP LOCK, HANDLER OPEN: until undone
	UnlocksTables                          // UNLOCK TABLES, HANDLER CLOSE
	TakesUserLock                          // GET_LOCK, RELEASE_LOCK, RELEASE_ALL_LOCKS
	CalculatesFoundRows                    // SQL_CALC_FOUND_ROWS: the next FOUND_ROWS() belongs to it
	ReadsFoundRows                         // FOUND_ROWS()
	ReadsRowCount                          // ROW_COUNT()
	ReadsLastInsertID                      // LAST_INSERT_ID(), @@last_insert_id, @@identity; LASTVAL and PREVIOUS VALUE FOR
	SetsLastInsertID                       // LAST_INSERT_ID(expression), NEXTVAL
	ReadsDiagnostics                       // SHOW WARNINGS, @@warning_count, GET DIAGNOSTICS: of the statement before
	ReadsConnectionID                      // CONNECTION_ID(), @@pseudo_thread_id
	ReadsLogin                             // USER(), CURRENT_USER: Menshen signs in under another name
	PreparesStatement                      // PREPARE, EXECUTE, DEALLOCATE by name
	ChangesSchema                          // USE
	ChangesLogin                           // SET ROLE, SET PASSWORD
	LocksRows                              // FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE
	WritesFile                             // INTO OUTFILE, INTO DUMPFILE
	AsksInstance                           // the answer depends on which instance gives it: SHOW STATUS, information_schema, IS_FREE_LOCK
	ReleasesConnection                     // COMMIT RELEASE: the server closes the connection
)

var effectNames = [...]string{
	"unknown effect", "calls unknown", "begins transaction", "ends transaction", "commits implicitly", "sets autocommit", "sets variables", "sets globals",
	"sets user variables", "reads user variables", "reads variables", "creates temporary", "locks tables", "unlocks tables", "takes user lock", "calculates found rows",
	"reads found rows", "reads row count", "reads last insert id", "sets last insert id", "reads diagnostics", "reads connection id", "reads login", "prepares statement",
	"changes schema", "changes login", "locks rows", "writes file", "asks instance", "releases connection",
}

// String lists the effects in a fixed order, parted by commas: for logs, EXPLAIN, and the reasons of pins.
func (e Effect) String() string {
	var names []string
	for i, name := range effectNames {
		if e&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Has says that at least one of the effects is there.
func (e Effect) Has(any Effect) bool { return e&any != 0 }

// sessionBound are the effects that only the session's own connection, or the primary, can serve.
const sessionBound = ReadsUserVariables | ReadsVariables | ReadsFoundRows | ReadsRowCount | ReadsLastInsertID | ReadsDiagnostics | ReadsConnectionID | ReadsLogin | AsksInstance |
	CalculatesFoundRows

// Span is a part of the text; the zero value is none.
type Span struct{ Start, End int }

// Facts is what the tokens of a text say about it. It does not depend on the values of literals, so it can be kept with a Print that is not Opaque, except for Name and what
// AppendSettings finds, which must be read off each statement.
type Facts struct {
	// Kind is the first statement's, skipping empty ones.
	Kind Statement
	// Statements counts what the server would run if the client may send several at once; a statement of comments only counts. It stops at 1000. It is exact unless Kind is Compound,
	// the text defines a routine, trigger or event, or UnknownEffect is set.
	Statements int
	// Effects of all the statements together.
	Effects Effect
	// ReadOnly says that nothing is changed anywhere, now or for later statements of the session: every statement is a SELECT, SHOW or the like, and all it calls is
	// built in and harmless. (Views and generated columns may call stored functions; the text does not show that.)
	ReadOnly bool
	// Why says in a few words why ReadOnly is false; a fixed text.
	Why string
	// Hint is what a comment asks. It overrides nothing: a statement that is not ReadOnly belongs on the primary whatever the hint says.
	Hint Target
	// TransactionReadOnly says that Begin asks for READ ONLY.
	TransactionReadOnly bool
	// QueryOnly says that Kill ends a statement and not its connection.
	QueryOnly bool
	// Values says that Select is VALUES (1), (2): it leaves FOUND_ROWS() as it was.
	Values bool
	// Name is what the first statement names: the schema of Use, the statement of Prepare, Execute and Deallocate, the savepoint, the id or user of Kill, the topic
	// of ShowMenshen (one word). As written, quotes included.
	Name Span
}

// Replica says that any instance whose data are fresh enough can run the text: it is read-only, and its answer does not depend on session or instance.
func (f *Facts) Replica() bool { return f.ReadOnly && !f.Effects.Has(sessionBound) }
