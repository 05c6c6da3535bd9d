package sqldoor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// All errors that the gateway itself gives to a client are here. Those of instances are passed on as they are.

// Fixed errors.
var (
	errorTooMany         = mysql.Error{Code: 1040, State: "08004", Message: "Too many connections"}
	errorUnknown         = mysql.Error{Code: 1047, State: "08S01", Message: "Unknown command"}
	errorHandshake       = mysql.Error{Code: 1043, State: "08S01", Message: "Bad handshake"}
	errorInsecure        = mysql.Error{Code: 3159, State: "HY000", Message: "Connections using insecure transport are prohibited: this listener asks for a client certificate"}
	errorShutdown        = mysql.Error{Code: 1053, State: "08S01", Message: "Server shutdown in progress"}
	errorOrder           = mysql.Error{Code: 1156, State: "08S01", Message: "Got packets out of order"}
	errorMalformed       = mysql.Error{Code: 1835, State: "HY000", Message: "Malformed communication packet"}
	errorNoDatabase      = mysql.Error{Code: 1046, State: "3D000", Message: "No database selected"}
	errorTransaction     = mysql.Error{Code: 1179, State: "25000", Message: "You are not allowed to execute this command in a transaction: the database lives on another instance"}
	errorPrepared        = mysql.Error{Code: 1295, State: "HY000", Message: "This command is not supported in the prepared statement protocol yet"}
	errorKill            = mysql.Error{Code: 1235, State: "42000", Message: "This version of Menshen doesn't yet support 'KILL of anything but a number'"}
	errorShow            = mysql.Error{Code: 1235, State: "42000", Message: "SHOW MENSHEN knows: STATUS, SESSIONS, POOLS, INSTANCES, DIGESTS, CONFIG; each with [LIKE 'pattern'] [LIMIT number]"}
	errorFlush           = mysql.Error{Code: 1235, State: "42000", Message: "FLUSH MENSHEN knows: DIGESTS"}
	errorInterrupted     = mysql.Error{Code: 1317, State: "70100", Message: "Query execution was interrupted"}
	errorNumber          = mysql.Error{Code: 1235, State: "42000", Message: "CONNECTION_ID() inside of another statement needs a login that may set pseudo_thread_id; SELECT CONNECTION_ID() alone does not"}
	errorUseMore         = mysql.Error{Code: 1235, State: "42000", Message: "This version of Menshen doesn't yet support 'USE together with other statements'"}
	errorKillMore        = mysql.Error{Code: 1235, State: "42000", Message: "This version of Menshen doesn't yet support 'KILL together with other statements'"}
	errorShowMore        = mysql.Error{Code: 1235, State: "42000", Message: "This version of Menshen doesn't yet support 'SHOW PROCESSLIST or SHOW MENSHEN together with other statements'"}
	errorSequence        = mysql.Error{Code: 1235, State: "42000", Message: "This version of Menshen doesn't yet support 'LASTVAL in a session that has not called NEXTVAL itself'"}
	errorLastGTID        = mysql.Error{Code: 1105, State: "HY000", Message: "last_gtid is not known on connections that sessions share: set pool.share to session"}
	errorForgotten       = mysql.Error{Code: 1105, State: "HY000", Message: "ROW_COUNT(), FOUND_ROWS() or the warnings of the last statement are not known any more, because its connection was needed by others: ask in the same transaction, or set pool.share to session. From now on this session keeps its connection"}
	errorForgottenInsert = mysql.Error{Code: 1105, State: "HY000", Message: "LAST_INSERT_ID() is not known any more, because the connection of the insert was lost"}
	errorLongData        = mysql.Error{Code: 1105, State: "HY000", Message: "A parameter's data could not be passed on: send it again"}
	errorArguments       = mysql.Error{Code: 1210, State: "HY000", Message: "Incorrect arguments to mysqld_stmt_execute"}
	errorPrepareAgain    = mysql.Error{Code: 1105, State: "HY000", Message: "The statement was prepared under settings or a schema that cannot be restored: prepare it again"}
	errorBindAgain       = mysql.Error{Code: 1105, State: "HY000", Message: "Parameters of 16 MB need their types: bind them again"}
	errorPreparedMax     = mysql.Error{Code: 1461, State: "42000", Message: fmt.Sprintf("Can't create more than max_prepared_stmt_count statements (current value: %d)", preparedMax)}
	errorPlugins         = mysql.Error{Code: 1251, State: "08004", Message: "Client does not support authentication protocol requested by server; consider upgrading MySQL client"}
	errorMoved           = mysql.Error{Code: 1053, State: "08S01", Message: "The database has moved to another instance, and this session has state on the old one: connect again"}
	errorDethroned       = mysql.Error{Code: 1290, State: "HY000", Message: "The transaction was rolled back: its instance is not the primary any more, so that it cannot execute this statement (as with --read-only). Begin again"}
	errorLost            = mysql.Error{Code: 2013, State: "HY000", Message: "Lost connection to MySQL server during query"}
	errorLostIdle        = mysql.Error{Code: 2006, State: "HY000", Message: "MySQL server has gone away"}
)

// errorOfPackets is for packets that cannot be read.
func errorOfPackets(err error) mysql.Error {
	const uncompress = "Couldn't uncompress communication packet"
	e := mysql.Error{Code: 1157, State: "08S01", Message: uncompress}
	switch {
	case !errors.Is(err, wire.ErrCompressed):
		return errorOrder
	case errors.Is(err, wire.ErrWindow):
		e.Message = uncompress + ": it needs a window of more than 8 MiB (use a zstd level of at most 19)"
	case errors.Is(err, wire.ErrWindows):
		e.Message = uncompress + ": too many large ones are on their way: try again"
	}
	return e
}

func errorDenied(user, host string, password bool) mysql.Error {
	using := "NO"
	if password {
		using = "YES"
	}
	return mysql.Error{Code: 1045, State: "28000", Message: fmt.Sprintf("Access denied for user '%s'@'%s' (using password: %s)", user, host, using)}
}

func errorUnknownDatabase(name string) mysql.Error {
	return mysql.Error{Code: 1049, State: "42000", Message: fmt.Sprintf("Unknown database '%s'", strings.ToValidUTF8(name[:min(len(name), 64)], "?"))}
}

func errorPinned(database, reason string) mysql.Error {
	return mysql.Error{Code: 1105, State: "HY000", Message: fmt.Sprintf("Database '%s' lives on another instance, and this session has state that cannot be taken there (%s): open a new connection", database, reason)}
}

// errorOf is the one place where a fault becomes a MySQL error. database is the name that the client knows.
func errorOf(err error, database string) mysql.Error {
	var own *mysql.Error
	if errors.As(err, &own) {
		return errorOfInstance(own, database)
	}
	f := fault.Of(err)
	switch f.Kind {
	case fault.NoRoute:
		return errorUnknownDatabase(database)
	case fault.NoEndpoint:
		if errors.Is(f.Cause, errTwoPrimaries) {
			return mysql.Error{Code: 1290, State: "HY000", Message: fmt.Sprintf("Writes to database '%s' are refused (as with --read-only): %s", database, f.Public)}
		}
		return mysql.Error{Code: 2003, State: "HY000", Message: fmt.Sprintf("Can't connect to MySQL server on '%s' (%s)", database, why(f))}
	case fault.ConnectFailed, fault.ConnectTimeout:
		return mysql.Error{Code: 2003, State: "HY000", Message: fmt.Sprintf("Can't connect to MySQL server on '%s' (%s)", database, why(f))}
	case fault.UpstreamTimeout:
		return mysql.Error{Code: 3024, State: "HY000", Message: "Query execution was interrupted, maximum statement execution time exceeded"}
	case fault.UpstreamBroken:
		if f.Unsent {
			return mysql.Error{Code: 2013, State: "HY000", Message: "Lost connection to MySQL server: " + f.Public}
		}
		return errorLost
	case fault.Limited:
		if errors.Is(f.Cause, errQueueFull) {
			return mysql.Error{Code: 1040, State: "08004", Message: fmt.Sprintf("Too many statements wait for a primary of '%s'", database)}
		}
		return errorTooMany
	case fault.Draining:
		return errorShutdown
	case fault.BadRequest, fault.TooLarge:
		return errorMalformed
	case fault.NotImplemented:
		return errorUnknown
	case fault.RequestTimeout:
		return mysql.Error{Code: 1159, State: "08S01", Message: "Got timeout reading communication packets"}
	}
	return mysql.Error{Code: 1105, State: "HY000", Message: "Menshen: " + f.Public}
}

// why says in a word or two why an instance cannot be reached. The address stays in the log.
func why(f *fault.Fault) string {
	switch {
	case f.Kind == fault.ConnectTimeout, errors.Is(f.Cause, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.Is(f.Cause, errNoPrimary):
		return "no instance takes writes"
	case f.Kind == fault.NoEndpoint:
		return "no healthy instance"
	case errors.Is(f.Cause, syscall.ECONNREFUSED):
		return "connection refused"
	}
	return "connection failed"
}

// errorOfInstance is what the client may read of an instance's refusal to let the gateway in.
func errorOfInstance(e *mysql.Error, database string) mysql.Error {
	if refusesLogin(e) { // its name and address are nothing for the client
		return mysql.Error{Code: 1105, State: "HY000", Message: fmt.Sprintf("The gateway could not sign in to the instance of database '%s'", database)}
	}
	if e.Code == 1049 {
		return errorUnknownDatabase(database)
	}
	out := *e
	if out.State == "" {
		out.State = "HY000"
	}
	return out
}

// refusesLogin says that an instance does not take the gateway's own login as the config has it: from its host, with its password, in its way, or without TLS.
func refusesLogin(e *mysql.Error) bool {
	switch e.Code {
	case 1044, 1045, 1129, 1130, 1251, 1524, 1698, 1862, 2012, 3118, 3159, 4151: // 2012 is Vitess's: no way that it has is open to this login
		return true
	}
	return false
}
