package mysql

// Response follows the answer to one command through a stream that arrives in pieces, and says where it ends. It looks at
// the first bytes of each message only, so that rows pass undecoded, and it allocates nothing.
//
// Usage: Start, then Feed until Done. When WantsFile turns true, the client's file has to be sent first (see FileSent).
// After an error nothing more can be known about the stream: both connections must be closed.
type Response struct {
	phase        phase
	command      Command
	cursor       bool
	deprecateEOF bool
	more         bool // a message of full frames goes on
	ends         bool // the current message is the last one
	file         bool // the current message asks for a file

	Sequence uint8 // expected of the next frame

	left   int // bytes of the current frame still to come
	have   int // bytes gathered in head
	head   [HeaderLen + headMax]byte
	counts struct{ first, second int } // column definitions to come; those after them

	Settled  bool     // an OK or EOF told the Status
	Status   Status   // of the last OK or EOF
	Affected uint64   // of the last OK
	InsertID uint64   // of the last OK that had one
	Warnings uint16   // of the last OK or EOF
	Rows     uint64   // messages taken for rows, over all results
	Code     uint16   // of the ERR packet that ended the answer; 0 when none did
	State    [5]byte  // its SQLSTATE, zeros when it has none
	Prepared Prepared // the answer to a prepare
}

// headMax is as much of a payload as Feed needs: an OK packet up to its warnings.
const headMax = 1 + 9 + 9 + 2 + 2

type phase uint8

const (
	phaseDone       phase = iota
	phaseFirst            // OK, ERR, a request for a file, or a number of columns
	phaseColumns          // column definitions
	phaseColumnsEnd       // the EOF after them
	phaseRows             // rows or their end
	phaseSingle           // one OK, EOF or ERR
	phaseText             // one message of any content
	phasePrepare          // the first packet after a prepare
	phaseParts            // definitions of parameters or columns after a prepare
	phasePartsEnd         // the EOF after them
	phaseFetch            // rows without columns or further results
	phaseFile             // the client's file is on its way
	phaseBroken           // an error was found
)

// Start gets ready for the answer to a command: c are the connection's capabilities, next is the sequence number of the
// answer's first frame, cursor says that the command was an execute that asked for a cursor.
func (r *Response) Start(command Command, c Capability, next uint8, cursor bool) {
	*r = Response{command: command, cursor: cursor, deprecateEOF: c.Has(DeprecateEOF), Sequence: next}
	switch command {
	case ComQuery, ComStmtExecute, ComProcessInfo:
		r.phase = phaseFirst
	case ComStmtPrepare:
		r.phase = phasePrepare
	case ComStmtFetch, ComFieldList:
		r.phase = phaseFetch
	case ComStatistics:
		r.phase = phaseText
	default:
		if command.Answered() {
			r.phase = phaseSingle
		}
	}
}

// Done says that the answer is complete.
func (r *Response) Done() bool { return r.phase == phaseDone }

// WantsFile says that the server waits for the client's file (LOAD DATA LOCAL).
func (r *Response) WantsFile() bool { return r.phase == phaseFile }

// FileSent goes on after the file, whose last (empty) packet had the sequence number before next.
func (r *Response) FileSent(next uint8) {
	if r.phase == phaseFile {
		r.phase, r.Sequence = phaseFirst, next
	}
}

// AtBoundary says that the bytes fed so far end with a whole message, so that an error packet with the number Sequence
// may follow them.
func (r *Response) AtBoundary() bool {
	return r.phase != phaseBroken && r.left == 0 && r.have == 0 && !r.more
}

// Feed consumes the bytes of b that belong to the answer. It stops early when the answer is complete or wants a file.
func (r *Response) Feed(b []byte) (n int, err error) {
	for n < len(b) && r.phase != phaseDone && r.phase != phaseFile {
		if r.left > 0 {
			take := min(r.left, len(b)-n)
			n += take
			r.left -= take
			if r.left == 0 {
				r.frameEnded()
			}
			continue
		}
		view, length, used, ok := r.gather(b[n:])
		n += used
		if !ok {
			return n, nil
		}
		goesOn := r.more
		r.more = length == PayloadMax
		if !goesOn && !r.message(length, view) {
			r.phase = phaseBroken
			return n, malformed("answer to " + r.command.String())
		}
		if r.phase == phaseBroken {
			return n, malformed("frame out of order in the answer to " + r.command.String())
		}
		r.left = length - len(view)
		if r.left == 0 {
			r.frameEnded()
		}
	}
	return n, nil
}

// gather gives the next frame's length and the first bytes of its payload, as a view into b when b holds them all.
func (r *Response) gather(b []byte) (view []byte, length, used int, ok bool) {
	if r.have == 0 {
		if h, whole := ParseHeader(b); whole {
			if n := min(h.Length, headMax); len(b) >= HeaderLen+n {
				r.sequence(h.Sequence)
				return b[HeaderLen : HeaderLen+n], h.Length, HeaderLen + n, true
			}
		}
	}
	if r.have < HeaderLen {
		used = copy(r.head[r.have:HeaderLen], b)
		r.have += used
	}
	h, whole := ParseHeader(r.head[:r.have])
	if !whole {
		return nil, 0, used, false
	}
	want := HeaderLen + min(h.Length, headMax)
	n := copy(r.head[r.have:want], b[used:])
	used += n
	r.have += n
	if r.have < want {
		return nil, 0, used, false
	}
	r.have = 0
	r.sequence(h.Sequence)
	return r.head[HeaderLen:want], h.Length, used, true
}

func (r *Response) sequence(got uint8) {
	if got != r.Sequence {
		r.phase = phaseBroken
	}
	r.Sequence++
}

// frameEnded is called after the last byte of each frame.
func (r *Response) frameEnded() {
	switch {
	case r.more:
	case r.ends:
		r.phase = phaseDone
	case r.file:
		r.file = false
		r.phase = phaseFile
	}
}

// message looks at the first frame of a message and decides what comes after it; false when it makes no sense here.
func (r *Response) message(length int, view []byte) bool {
	if r.phase == phaseBroken {
		return true
	}
	if length == 0 {
		r.ends = r.phase == phaseText
		return r.ends
	}
	first := view[0]
	if first == errByte && r.phase != phaseText {
		return r.failure(view)
	}
	switch r.phase {
	case phaseFirst:
		switch first {
		case okByte:
			return r.ok(view) && r.result()
		case localFileByte:
			r.file = r.command == ComQuery || r.command == ComStmtExecute // MariaDB prepares LOAD DATA, too
			return r.file
		}
		n, _ := Lenenc(view)
		// 65,535 is the most that the answer to a prepare can announce; servers allow 4,096.
		if n == 0 || n > 1<<16-1 {
			return false
		}
		r.counts.first = int(n)
		r.phase = phaseColumns
		return true
	case phaseColumns:
		r.counts.first--
		if r.counts.first == 0 {
			r.phase = phaseColumnsEnd
			if r.deprecateEOF {
				r.phase = phaseRows
			}
		}
		return true
	case phaseColumnsEnd:
		if !r.eof(length, view) {
			return false
		}
		r.phase = phaseRows
		if r.cursor && r.Status&CursorExists != 0 {
			r.ends = true // the rows wait for COM_STMT_FETCH
		}
		return true
	case phaseRows, phaseFetch:
		if !r.endsRows(length, first) {
			r.Rows++
			return true
		}
		if !r.end(length, view) {
			return false
		}
		if r.phase == phaseFetch {
			r.ends = true
			return true
		}
		return r.result()
	case phaseSingle:
		r.ends = true
		switch first {
		case okByte:
			return r.ok(view)
		case eofByte:
			return r.end(length, view)
		}
		return false
	case phaseText:
		r.ends = true
		return true
	case phasePrepare:
		if r.Prepared.Decode(view) != nil {
			return false
		}
		r.counts.first, r.counts.second = int(r.Prepared.Parameters), int(r.Prepared.Columns)
		r.parts()
		return true
	case phaseParts:
		r.counts.first--
		if r.counts.first == 0 {
			if r.deprecateEOF {
				r.parts()
			} else {
				r.phase = phasePartsEnd
			}
		}
		return true
	case phasePartsEnd:
		if !r.eof(length, view) {
			return false
		}
		r.parts()
		return true
	}
	return false
}

// parts goes on to the next non-empty group of definitions after a prepare.
func (r *Response) parts() {
	if r.counts.first == 0 {
		r.counts.first, r.counts.second = r.counts.second, 0
	}
	r.phase = phaseParts
	r.ends = r.counts.first == 0
}

// result is called after the end of one result: another one follows, or the answer ends.
func (r *Response) result() bool {
	r.phase = phaseFirst
	r.ends = r.Status&MoreResults == 0
	return true
}

// endsRows tells the packet that ends rows from a row that starts with the same byte: such a row's first column is at
// least 16 MiB long, so its first frame is full.
func (r *Response) endsRows(length int, first byte) bool {
	if first != eofByte {
		return false
	}
	if r.deprecateEOF {
		return length < PayloadMax
	}
	return length < 9
}

// end reads the packet that ends rows, in the form of the connection. Some servers send a classic EOF for commands without rows
// even under DeprecateEOF; its length tells.
func (r *Response) end(length int, view []byte) bool {
	if r.deprecateEOF && length != 5 {
		return r.ok(view)
	}
	return r.eof(length, view)
}

func (r *Response) eof(length int, view []byte) bool {
	if view[0] != eofByte || length != 5 {
		return false
	}
	r.Warnings = uint16(view[1]) | uint16(view[2])<<8
	r.Status = Status(view[3]) | Status(view[4])<<8
	r.Settled = true
	return true
}

func (r *Response) ok(view []byte) bool {
	in := reader{b: view[1:]}
	r.Affected = in.lenenc()
	if id := in.lenenc(); id != 0 {
		r.InsertID = id
	}
	r.Status = Status(in.uint16())
	r.Warnings = in.uint16()
	r.Settled = !in.failed
	return !in.failed
}

func (r *Response) failure(view []byte) bool {
	in := reader{b: view[1:]}
	r.Code = in.uint16()
	if in.failed || r.Code == 0xffff { // MariaDB's progress report, never asked for
		return false
	}
	if len(in.b) >= 6 && in.b[0] == '#' {
		copy(r.State[:], in.b[1:6])
	}
	r.ends = true
	return true
}
