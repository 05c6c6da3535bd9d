package mysql

import "encoding/binary"

// Type is a column's type on the wire.
type Type uint8

// The types that the gateway itself answers with.
const (
	TypeLong      Type = 0x03
	TypeLongLong  Type = 0x08
	TypeVarString Type = 0xfd
)

// Column describes one column of a result.
type Column struct {
	Schema, Table, OriginalTable, Name, OriginalName []byte // views
	Collation                                        uint16
	Length                                           uint32
	Type                                             Type
	Flags                                            uint16
	Decimals                                         uint8
}

// Decode reads the payload of a column definition.
func (c *Column) Decode(payload []byte) error {
	r := reader{b: payload}
	r.lenencBytes() // the catalog, always "def"
	*c = Column{Schema: r.lenencBytes(), Table: r.lenencBytes(), OriginalTable: r.lenencBytes(), Name: r.lenencBytes(),
		OriginalName: r.lenencBytes()}
	if n := r.lenenc(); n < 12 {
		return malformed("column definition cut short")
	}
	c.Collation = r.uint16()
	c.Length = r.uint32()
	c.Type = Type(r.uint8())
	c.Flags = r.uint16()
	c.Decimals = r.uint8()
	r.take(2)
	if r.failed {
		return malformed("column definition cut short")
	}
	return nil
}

// AppendTo appends the payload.
func (c *Column) AppendTo(dst []byte) []byte {
	dst = AppendLenencString(dst, "def")
	for _, s := range [...][]byte{c.Schema, c.Table, c.OriginalTable, c.Name, c.OriginalName} {
		dst = AppendLenencString(dst, s)
	}
	dst = append(dst, 12)
	dst = binary.LittleEndian.AppendUint16(dst, c.Collation)
	dst = binary.LittleEndian.AppendUint32(dst, c.Length)
	dst = append(dst, byte(c.Type))
	dst = binary.LittleEndian.AppendUint16(dst, c.Flags)
	return append(dst, c.Decimals, 0, 0)
}

// Prepared is the first packet of the answer to COM_STMT_PREPARE; parameter and column definitions follow.
type Prepared struct {
	Statement           uint32
	Columns, Parameters uint16
	Warnings            uint16
}

// Decode reads the payload.
func (p *Prepared) Decode(payload []byte) error {
	r := reader{b: payload}
	ok := r.uint8() == okByte
	*p = Prepared{Statement: r.uint32(), Columns: r.uint16(), Parameters: r.uint16()}
	r.take(1)
	if r.failed || !ok {
		return malformed("answer to a prepare")
	}
	if len(r.b) >= 2 {
		p.Warnings = r.uint16()
	}
	return nil
}

// AppendTo appends the payload.
func (p *Prepared) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(append(dst, okByte), p.Statement)
	dst = binary.LittleEndian.AppendUint16(dst, p.Columns)
	dst = binary.LittleEndian.AppendUint16(dst, p.Parameters)
	return binary.LittleEndian.AppendUint16(append(dst, 0), p.Warnings)
}
