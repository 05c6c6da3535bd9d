package mysql

// nullByte stands for NULL in a row of the text protocol.
const nullByte = 0xfb

// DecodeRow reads a row of the text protocol with exactly that many columns: views, nil for NULL. It says false when it is none.
func DecodeRow(payload []byte, columns int) (row [][]byte, ok bool) {
	if columns < 0 {
		return nil, false
	}
	r := reader{b: payload}
	row = make([][]byte, 0, min(columns, len(payload)))
	for range columns {
		if len(r.b) > 0 && r.b[0] == nullByte {
			r.b = r.b[1:]
			row = append(row, nil)
			continue
		}
		v := r.lenencBytes()
		if r.failed {
			return nil, false
		}
		row = append(row, v[:len(v):len(v)])
	}
	return row, len(r.b) == 0
}

// AppendRow appends the payload of a row of the text protocol; nil is NULL.
func AppendRow(dst []byte, row [][]byte) []byte {
	for _, v := range row {
		if v == nil {
			dst = append(dst, nullByte)
		} else {
			dst = AppendLenencString(dst, v)
		}
	}
	return dst
}
