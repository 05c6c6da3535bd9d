package scan

import "testing"

func TestWords(t *testing.T) {
	t.Parallel()
	for w, text := range wordTexts {
		if text == "" {
			continue
		}
		if got, small := wordOf([]byte(text)); got != word(w) || small != text {
			t.Errorf("%s is word %d, want %d", text, got, w)
		}
	}
	for text, want := range map[string]word{"SELECT": wSelect, "Year_Month": wYearMonth, "zerofill": wZerofill, "menshen": wMenshen, "XML": wXml, "selec": none, "a": none, "selectx": none} {
		if got, _ := wordOf([]byte(text)); got != want {
			t.Errorf("%s is word %d, want %d", text, got, want)
		}
	}
	if !wZerofill.reserved() || wMenshen.reserved() || none.reserved() {
		t.Error("the reserved words end in the wrong place")
	}
}
