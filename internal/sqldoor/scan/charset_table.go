package scan

import "strings"

// upperHalves says for the character sets of one byte what their bytes from 0x80 on are: i part of an identifier, s whitespace, c a control character, and a
// dot none of these. Read off a running server byte by byte, which TestCharsetsAgree repeats.
var upperHalves = []struct{ name, bytes string }{
	{"armscii8", "................................s.................iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.."},
	{"ascii", strings.Repeat(".", 128)},
	{"binary", strings.Repeat(".", 128)},
	{"cp1250", "cc.c....c.i.iiiic.......c.i.iiiis..i.i.i..i....i...i.....ii.i.iiiiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiii."},
	{"cp1251", "ii.i......i.iiiii.........i.iiii.iii.i..i.i....i..iii...i.i.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"},
	{"cp1256", ".i.i........iii.i...........i....................................iiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiii..."},
	{"cp1257", "........................................i.i....i........i.i....iiiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiii."},
	{"cp850", "iiiiiiiiiiiiiiiiiiiiiiiiiiii.i..iiiiii...............iii..............ii........iiiiiiiii.....i.iiiiii.iiiiiii.................c"},
	{"cp852", "iiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiii.iii.......iiii....ii.......ii........iiiiiiiii....ii.iiiiiiiiiiiiiii............iii.s"},
	{"cp866", "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii................................................iiiiiiiiiiiiiiiiiiiiiiii.......s"},
	{"dec8", "................................s...............................iiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiiii"},
	{"geostd8", "................................s...............................iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.........................."},
	{"greek", "................................s.....................i.iii.i.iiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii."},
	{"hebrew", "................................s...............................................................iiiiiiiiiiiiiiiiiiiiiiiiiii..cc."},
	{"hp8", "ccccccccccccccccccccccccccccccccc................cc..................i......i.iii..ii..ii.iii.....................cccc.........c"},
	{"keybcs2", "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii....................................................iiiiii.iiiii.ii................s"},
	{"koi8r", "...................................i...............i............iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"},
	{"koi8u", "...................................ii.ii.....i.....ii.ii.....i..iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"},
	{"latin1", "...i......i.i.i...........i.i.iis...............................iiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiiii"},
	{"latin2", "................................si.i.ii..iiii.ii.i.i.ii..iiii.iiiiiiiiiiiiiiiiii.iiiiii.iiiiiii.iiiiiiiiiiiiiiiiiiiiiii.iiiiiii."},
	{"latin5", "................................s...............................iiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiiii"},
	{"latin7", "ic.c....c.c.c...c.......c.c.c..csc...c....i....i..........i....iiiiiiiiiiiiiiiiiiiiiiii.iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.iiiiiii."},
	{"macce", "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii..i....i...i..iiii..ii..iiiiiiiiii..ii.....iiiii........iiii..iiii..iiiiiiiiiiiiiiiiiiiiiiiiiii."},
	{"macroman", "ciiiiiiiiiiiiiiiiiiiiiiiiiiiiiii.......i......ii..............ii....i......cii..........ii...........ciiiiiiiiii.iiiii.........."},
	{"tis620", strings.Repeat(".", 128)},
}

// deleteIsNone names the character sets in which DEL is no control character.
const deleteIsNone = "cp1251 cp1257 cp852 cp866 keybcs2 latin2 macce macroman"
