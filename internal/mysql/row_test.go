package mysql

import (
	"bytes"
	"testing"
)

func TestRow(t *testing.T) {
	f := func(row ...[]byte) {
		t.Helper()
		got, ok := DecodeRow(AppendRow(nil, row), len(row))
		if !ok || len(got) != len(row) {
			t.Fatalf("%q became %q, %v", row, got, ok)
		}
		for i := range row {
			if !bytes.Equal(got[i], row[i]) || (got[i] == nil) != (row[i] == nil) {
				t.Errorf("%q became %q", row, got)
			}
		}
	}
	f([]byte("a"), nil, []byte{}, bytes.Repeat([]byte("x"), 300))
	f()
	for _, bad := range []string{"", "\x02a", "\x01a\x01", "\xfe"} {
		if row, ok := DecodeRow([]byte(bad), 1); ok {
			t.Errorf("%q is a row of one: %q", bad, row)
		}
	}
}

func FuzzDecodeRow(f *testing.F) {
	f.Add([]byte("\x01a\xfb\x00"), 3)
	f.Add([]byte("\xfc\x01\x00a"), 1)
	f.Fuzz(func(t *testing.T, b []byte, columns int) {
		row, ok := DecodeRow(b, columns%100)
		if !ok {
			return
		}
		if again, ok := DecodeRow(AppendRow(nil, row), len(row)); !ok || len(again) != len(row) {
			t.Errorf("%q", row)
		}
	})
}
