package mysql

import (
	"encoding/binary"
	"strconv"
)

// Command is the first byte of a client's message.
type Command uint8

// The commands.
const (
	ComSleep           Command = 0x00 // inside the server only
	ComQuit            Command = 0x01
	ComInitDB          Command = 0x02
	ComQuery           Command = 0x03
	ComFieldList       Command = 0x04
	ComCreateDB        Command = 0x05
	ComDropDB          Command = 0x06
	ComRefresh         Command = 0x07
	ComShutdown        Command = 0x08
	ComStatistics      Command = 0x09
	ComProcessInfo     Command = 0x0a
	ComConnect         Command = 0x0b // inside the server only
	ComProcessKill     Command = 0x0c
	ComDebug           Command = 0x0d
	ComPing            Command = 0x0e
	ComTime            Command = 0x0f // inside the server only
	ComDelayedInsert   Command = 0x10 // inside the server only
	ComChangeUser      Command = 0x11
	ComBinlogDump      Command = 0x12
	ComTableDump       Command = 0x13
	ComConnectOut      Command = 0x14
	ComRegisterReplica Command = 0x15
	ComStmtPrepare     Command = 0x16
	ComStmtExecute     Command = 0x17
	ComStmtLongData    Command = 0x18
	ComStmtClose       Command = 0x19
	ComStmtReset       Command = 0x1a
	ComSetOption       Command = 0x1b
	ComStmtFetch       Command = 0x1c
	ComDaemon          Command = 0x1d // inside the server only
	ComBinlogDumpGTID  Command = 0x1e
	ComReset           Command = 0x1f
)

var commandNames = [...]string{"sleep", "quit", "init_db", "query", "field_list", "create_db", "drop_db", "refresh", "shutdown",
	"statistics", "process_info", "connect", "process_kill", "debug", "ping", "time", "delayed_insert", "change_user",
	"binlog_dump", "table_dump", "connect_out", "register_replica", "stmt_prepare", "stmt_execute", "stmt_send_long_data",
	"stmt_close", "stmt_reset", "set_option", "stmt_fetch", "daemon", "binlog_dump_gtid", "reset_connection"}

// String gives the command's name in small letters, for example "stmt_prepare"; "unknown" for a byte that is none.
func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return "unknown"
}

// Answered says whether the server answers the command at all.
func (c Command) Answered() bool { return c != ComQuit && c != ComStmtClose && c != ComStmtLongData }

// AppendCommand appends the whole packet of a command and its argument, which must be shorter than one frame.
func AppendCommand[T ~string | ~[]byte](dst []byte, c Command, argument T) []byte {
	dst = Header{1 + len(argument), 0}.AppendTo(dst)
	return append(append(dst, byte(c)), argument...)
}

// ChangeUser is COM_CHANGE_USER: another sign-in on the same connection.
type ChangeUser struct {
	User, Auth, Database, Plugin []byte // views
	Collation                    uint16 // 0 when not sent
	Attributes                   []byte // view; undecoded
}

// Decode reads the payload, the command's byte included.
func (u *ChangeUser) Decode(payload []byte, c Capability) error {
	r := reader{b: payload}
	if Command(r.uint8()) != ComChangeUser {
		return malformed("change user")
	}
	*u = ChangeUser{User: r.text()}
	if c.Has(SecureConnection) {
		u.Auth = r.take(int(r.uint8()))
	} else {
		u.Auth = r.text()
	}
	u.Database = r.textOrRest()
	if len(r.b) >= 2 {
		u.Collation = r.uint16()
	}
	if c.Has(PluginAuth) && len(r.b) > 0 {
		u.Plugin = r.textOrRest()
	}
	if c.Has(ConnectAttributes) && len(r.b) > 0 {
		u.Attributes = r.lenencBytes()
	}
	if r.failed {
		return malformed("change user cut short")
	}
	return nil
}

// AppendTo appends the payload.
func (u *ChangeUser) AppendTo(dst []byte, c Capability) []byte {
	dst = appendText(append(dst, byte(ComChangeUser)), u.User)
	if c.Has(SecureConnection) {
		auth := u.Auth[:min(len(u.Auth), 255)]
		dst = append(append(dst, byte(len(auth))), auth...)
	} else {
		dst = appendText(dst, u.Auth)
	}
	dst = appendText(dst, u.Database)
	dst = binary.LittleEndian.AppendUint16(dst, u.Collation)
	if c.Has(PluginAuth) {
		dst = appendText(dst, u.Plugin)
	}
	if c.Has(ConnectAttributes) {
		dst = AppendLenencString(dst, u.Attributes)
	}
	return dst
}

// Execute is the head of COM_STMT_EXECUTE: what a relay needs of it.
type Execute struct {
	Statement uint32
	Flags     uint8 // other than 0: a cursor is asked for
}

// DecodeExecute reads the head of the payload, the command's byte included.
func DecodeExecute(payload []byte) (e Execute, err error) {
	r := reader{b: payload}
	c := Command(r.uint8())
	e = Execute{r.uint32(), r.uint8()}
	if r.failed || c != ComStmtExecute {
		return Execute{}, malformed("execute")
	}
	return e, nil
}

// AppendTo appends that head.
func (e Execute) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(append(dst, byte(ComStmtExecute)), e.Statement)
	return append(dst, e.Flags)
}

// Options of COM_SET_OPTION.
const (
	OptionMultiStatementsOn  = 0
	OptionMultiStatementsOff = 1
)

// DecodeSetOption reads the payload of COM_SET_OPTION.
func DecodeSetOption(payload []byte) (option uint16, err error) {
	r := reader{b: payload}
	c := Command(r.uint8())
	option = r.uint16()
	if r.failed || c != ComSetOption {
		return 0, malformed("set option")
	}
	if option > OptionMultiStatementsOff {
		return 0, malformed("set option " + strconv.Itoa(int(option)))
	}
	return option, nil
}

// AppendSetOption appends the payload.
func AppendSetOption(dst []byte, option uint16) []byte {
	return binary.LittleEndian.AppendUint16(append(dst, byte(ComSetOption)), option)
}
