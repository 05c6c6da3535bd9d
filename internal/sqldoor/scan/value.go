package scan

// AppendValue appends what a Text or Quoted token of the text stands for: without quotes, doubled quotes single, escapes resolved as servers do (MySQL manual
// 11.1.1, "Special Character Escape Sequences"). Other tokens are appended as they are. The bytes are in the character set of the client.
func AppendValue(to, text []byte, t Token, m *Mode) []byte {
	b := text[t.Start:t.End]
	if t.Kind != Text && t.Kind != Quoted {
		return append(to, b...)
	}
	if b[0] != '\'' && b[0] != '"' && b[0] != '`' { // N'...'
		b = b[1:]
	}
	quote := b[0]
	b = b[1 : len(b)-1]
	escapes := t.Kind == Text && !m.NoBackslashEscapes
	cs := m.Charset
	if cs == nil {
		cs = UTF8MB4
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c >= 0x80 && cs.trailing:
			if n := cs.length(b[i:]); n > 1 {
				to = append(to, b[i:i+n]...)
				i += n - 1
				continue
			}
			to = append(to, c)
		case c == '\\' && escapes && i+1 < len(b):
			i++
			switch b[i] {
			case 'n':
				to = append(to, '\n')
			case 't':
				to = append(to, '\t')
			case 'r':
				to = append(to, '\r')
			case 'b':
				to = append(to, '\b')
			case '0':
				to = append(to, 0)
			case 'Z':
				to = append(to, 26)
			case '_', '%': // for LIKE, which sees the backslash
				to = append(to, '\\', b[i])
			default:
				to = append(to, b[i])
			}
		case c == quote:
			i++ // two for one
			to = append(to, c)
		default:
			to = append(to, c)
		}
	}
	return to
}
