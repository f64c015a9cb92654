package recording

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// How many bytes Difference shows before and after the first difference.
const (
	shownBefore = 16
	shownAfter  = 48
)

// Difference returns three lines. The first one says where the sent bytes begin to differ from the
// recorded ones. The others show both.
func Difference(recorded, sent []byte) string {
	at := 0
	for at < min(len(recorded), len(sent)) && recorded[at] == sent[at] {
		at++
	}
	from := max(0, at-shownBefore)
	where := "in its first byte"
	if at > 0 {
		where = fmt.Sprintf("after %d equal bytes", at)
	}
	return fmt.Sprintf("%s\nrecorded: %s\nsent now: %s", where, show(recorded, from, at+shownAfter), show(sent, from, at+shownAfter))
}

// Prefixed reports whether one of two byte strings is the beginning of the other.
func Prefixed(a, b []byte) bool {
	n := min(len(a), len(b))
	return bytes.Equal(a[:n], b[:n])
}

// Show returns the beginning of bytes as text, if they are text, and as hex.
func Show(b []byte) string { return show(b, 0, shownAfter) }

// show returns a part of bytes as text, if they are text, and as hex.
func show(b []byte, from, to int) string {
	part := b[min(from, len(b)):min(to, len(b))]
	dots, more := "", ""
	if from > 0 && len(part) > 0 {
		dots = "... "
	}
	if to < len(b) {
		more = fmt.Sprintf(" ... (%d bytes)", len(b))
	}
	switch {
	case len(part) == 0:
		return "nothing"
	case utf8.Valid(part):
		return fmt.Sprintf("%s%q, hex %x%s", dots, part, part, more)
	default:
		return fmt.Sprintf("%shex %x%s", dots, part, more)
	}
}
