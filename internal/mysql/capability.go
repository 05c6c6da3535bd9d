package mysql

import "strings"

// Capability is the set of protocol features that both sides of a connection agreed on. The upper half that MariaDB keeps
// in the reserved bytes of the greeting and the response is never announced here: with metadata caching, for example, an
// instance leaves out column definitions, and a relay that does not follow that loses the boundaries of packets.
type Capability uint32

// The capabilities.
const (
	LongPassword        Capability = 1 << 0 // MariaDB calls it CLIENT_MYSQL: its absence announces extended capabilities
	FoundRows           Capability = 1 << 1
	LongFlag            Capability = 1 << 2
	ConnectWithDatabase Capability = 1 << 3
	NoSchema            Capability = 1 << 4
	Compress            Capability = 1 << 5
	ODBC                Capability = 1 << 6
	LocalFiles          Capability = 1 << 7
	IgnoreSpace         Capability = 1 << 8
	Protocol41          Capability = 1 << 9
	Interactive         Capability = 1 << 10
	TLS                 Capability = 1 << 11
	IgnoreSigpipe       Capability = 1 << 12
	Transactions        Capability = 1 << 13
	Reserved            Capability = 1 << 14
	SecureConnection    Capability = 1 << 15
	MultiStatements     Capability = 1 << 16
	MultiResults        Capability = 1 << 17
	PrepareMultiResults Capability = 1 << 18
	PluginAuth          Capability = 1 << 19
	ConnectAttributes   Capability = 1 << 20
	PluginAuthLenenc    Capability = 1 << 21
	ExpiredPasswords    Capability = 1 << 22
	SessionTrack        Capability = 1 << 23
	DeprecateEOF        Capability = 1 << 24
	OptionalMetadata    Capability = 1 << 25
	CompressZstd        Capability = 1 << 26
	QueryAttributes     Capability = 1 << 27
)

// Known groups. Offered is what a server built on this package can honour on its own; Relayed are those that change what
// the instance does or how it answers, so the instance's connection must be opened with just what the client chose.
const (
	Offered = LongPassword | LongFlag | ConnectWithDatabase | Protocol41 | Transactions | SecureConnection | PluginAuth |
		ConnectAttributes | PluginAuthLenenc | ODBC | IgnoreSigpipe | Compress | CompressZstd | Relayed
	Relayed = FoundRows | LocalFiles | IgnoreSpace | Interactive | MultiStatements | MultiResults | PrepareMultiResults | Framing
	// Framing are those that change the form of answers: bytes can be passed on only when both sides agree on them.
	Framing = SessionTrack | DeprecateEOF
)

// Has says whether all of f are in c.
func (c Capability) Has(f Capability) bool { return c&f == f }

var capabilityNames = [...]string{"long_password", "found_rows", "long_flag", "connect_with_database", "no_schema", "compress",
	"odbc", "local_files", "ignore_space", "protocol_41", "interactive", "tls", "ignore_sigpipe", "transactions", "reserved",
	"secure_connection", "multi_statements", "multi_results", "prepare_multi_results", "plugin_auth", "connect_attributes",
	"plugin_auth_lenenc", "expired_passwords", "session_track", "deprecate_eof", "optional_metadata", "compress_zstd",
	"query_attributes"}

// String lists the names, joined by "+".
func (c Capability) String() string {
	var names []string
	for i, name := range capabilityNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// Status is the server's state that OK and EOF packets carry.
type Status uint16

// The status bits that a relay looks at.
const (
	InTransaction   Status = 1 << 0
	Autocommit      Status = 1 << 1
	MoreResults     Status = 1 << 3
	CursorExists    Status = 1 << 6
	LastRowSent     Status = 1 << 7
	NoBackslash     Status = 1 << 9
	MetadataChanged Status = 1 << 10
	OutParameters   Status = 1 << 12
	ReadOnly        Status = 1 << 13
	StateChanged    Status = 1 << 14
)
