//go:build linux

package bench

import (
	"encoding/binary"
	"strings"
)

// MySQL capabilities that the fake server offers; none of them changes what a client may send beyond what it understands.
const (
	capLongPassword = 1 << 0
	capFoundRows    = 1 << 1
	capLongFlag     = 1 << 2
	capConnectDB    = 1 << 3
	capProtocol41   = 1 << 9
	capTransactions = 1 << 13
	capSecure       = 1 << 15
	capMultiResults = 1 << 17
	capPluginAuth   = 1 << 19
	capConnectAttrs = 1 << 20
	capDeprecateEOF = 1 << 24

	capOffered = capLongPassword | capFoundRows | capLongFlag | capConnectDB | capProtocol41 | capTransactions | capSecure | capMultiResults |
		capPluginAuth | capConnectAttrs | capDeprecateEOF
)

// packet frames a payload.
func packet(sequence byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), sequence}) + payload
}

// column is the length of the one value that every SELECT of the fake server, and of the MariaDB scenario, returns.
const column = 120

// resultSet answers a SELECT: one row with one column.
func resultSet(deprecateEOF bool) []byte {
	word := func(s string) string { return string([]byte{byte(len(s))}) + s }
	definition := word("def") + word("bench") + word("t") + word("t") + word("c") + word("c") +
		"\x0c\x2d\x00\xe0\x01\x00\x00\xfe\x01\x00\x00\x00\x00" // utf8mb4, 480 bytes, CHAR NOT NULL
	end := "\xfe\x00\x00\x02\x00"
	parts := []string{"\x01", definition}
	if deprecateEOF {
		end = "\xfe\x00\x00\x02\x00\x00\x00"
	} else {
		parts = append(parts, end)
	}
	parts = append(parts, word(strings.Repeat("v", column)), end)
	var all string
	for i, payload := range parts {
		all += packet(byte(i+1), payload)
	}
	return []byte(all)
}

// runSQLServer is a MySQL server that lets everybody in, answers each SELECT with the same row and everything else with OK.
func runSQLServer(arguments []string) error {
	l, err := newLoop()
	if err != nil {
		return err
	}
	greeting := []byte(packet(0, "\x0a5.7.44-bench\x00"+"\x07\x00\x00\x00"+"abcdefgh\x00"+
		string([]byte{capOffered & 0xff, capOffered >> 8 & 0xff})+"\x2d"+"\x02\x00"+string([]byte{capOffered >> 16 & 0xff, capOffered >> 24})+
		"\x15"+strings.Repeat("\x00", 10)+"ijklmnopqrst\x00"+"mysql_native_password\x00"))
	ok := func(sequence byte) []byte { return []byte(packet(sequence, "\x00\x00\x00\x02\x00\x00\x00")) }
	welcome, done := ok(2), ok(1)
	unknown := []byte(packet(1, "\xff\x17\x04#08S01Unknown command"))
	results := [2][]byte{resultSet(false), resultSet(true)}

	// peer.state: 0 before the handshake response, then 1, or 2 with capDeprecateEOF.
	l.opened = func(p *peer) { l.send(p, greeting) }
	l.input = func(p *peer, data []byte) bool {
		if len(p.kept) > 0 {
			p.kept = append(p.kept, data...)
			data = p.kept
		}
		for len(data) >= 5 {
			n := int(data[0]) | int(data[1])<<8 | int(data[2])<<16
			if n == 0 || n > 60<<10 {
				return false
			}
			if len(data) < 4+n {
				break
			}
			payload := data[4 : 4+n]
			data = data[4+n:]
			answer := done
			switch {
			case p.state == 0:
				if n < 4 {
					return false
				}
				p.state = 1
				if binary.LittleEndian.Uint32(payload)&capDeprecateEOF != 0 {
					p.state = 2
				}
				answer = welcome
			case payload[0] == 3: // COM_QUERY
				if n > 6 && strings.EqualFold(string(payload[1:7]), "select") {
					answer = results[p.state-1]
				}
			case payload[0] == 1: // COM_QUIT
				return false
			case payload[0] == 2, payload[0] == 14, payload[0] == 31: // COM_INIT_DB, COM_PING, COM_RESET_CONNECTION
			default:
				answer = unknown
			}
			if !l.send(p, answer) {
				return false
			}
		}
		p.kept = append(p.kept[:0], data...)
		return true
	}
	return l.serve(arguments[0])
}
