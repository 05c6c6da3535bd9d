package scan

import "bytes"

// Target is where a comment asks Menshen to send the statement.
type Target uint8

// The targets. Of several hints in one statement the greatest counts: primary is the safe one.
const (
	NoHint  Target = iota
	Replica        // /* menshen: replica */
	Primary        // /* menshen: primary */
)

// hintOf reads /* menshen: primary */, /* menshen: replica */, in any case and with any whitespace around the words. Other comments, and other words
// after the colon, ask nothing.
func hintOf(comment []byte) Target {
	if len(comment) < len("/*menshen:x*/") || comment[1] != '*' {
		return NoHint
	}
	inner := bytes.TrimSpace(comment[2 : len(comment)-2])
	const menshen = "menshen:"
	if len(inner) < len(menshen) || !foldEqual(inner[:len(menshen)], menshen) {
		return NoHint
	}
	inner = bytes.TrimSpace(inner[len(menshen):])
	switch {
	case folds(inner, "primary"):
		return Primary
	case folds(inner, "replica"):
		return Replica
	}
	return NoHint
}
