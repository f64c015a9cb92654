package plugin

import (
	"strings"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/printable"
)

const (
	// indent stands before what a message quotes on lines of its own.
	indent = "\n    "
	// shownBefore and shownAfter are how much of a line is shown around a place in it.
	shownBefore, shownAfter = 60, 40
)

// caret shows the line of a text that an offset is in, and below it a sign at the place.
func caret(text string, offset int) string {
	start := strings.LastIndexByte(text[:offset], '\n') + 1
	before, after := text[start:offset], text[offset:]
	after, _, _ = strings.Cut(after, "\n")
	after = strings.TrimSuffix(after, "\r")
	if before+after == "" {
		return ""
	}
	if len(before) > shownBefore {
		before = "..." + strings.ToValidUTF8(before[len(before)-shownBefore:], "")
	}
	if len(after) > shownAfter {
		after = strings.ToValidUTF8(after[:shownAfter], "") + "..."
	}
	before, after = printable.Lines(strings.ReplaceAll(before, "\t", " ")), printable.Lines(after)
	return indent + before + after + indent + strings.Repeat(" ", utf8.RuneCountInString(before)) + "^"
}
