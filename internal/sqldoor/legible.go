package sqldoor

import "github.com/menshen-gateway/menshen/internal/mysql"

// translates says that a client's library must not be sent the numbers of errors that libraries give themselves.
func translates(attributes []byte) bool {
	name, _ := mysql.Attribute(attributes, "_client_name")
	return string(name) == "libmariadb"
}

// legible is an error as the session's client can read it. 2003, 2006 and 2013 are the words of client libraries, which drivers know to be about
// the connection, and most read them from a server as well. MariaDB's own (the mariadb command, too) takes them for an attack in its newer versions, and
// says "Received malformed packet" (2027) instead: it is told by the server's nearest words.
func (s *session) legible(e mysql.Error) *mysql.Error {
	if s.translated {
		switch e.Code {
		case 2003:
			e.Code = 1429 // ER_CONNECT_TO_FOREIGN_DATA_SOURCE
		case 2006, 2013:
			e.Code, e.State = 1158, "08S01" // ER_NET_READ_ERROR
		}
	}
	return &e
}
