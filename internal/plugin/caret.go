package plugin

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/pentrough/pentrough/internal/printable"
)

const (
	// indent stands before what a message quotes on lines of its own.
	indent = "\n    "
	// shown is the number of bytes of a line that are shown around an offset. At most shownBefore
	// of them are before the offset.
	shown, shownBefore = 100, 60
)

// Caret returns the line of a text that contains an offset, and below it a sign at the offset.
// Each of the two begins with a line feed and is indented. If the line is empty, Caret returns "".
// A tab becomes a space.
func Caret(text string, offset int) string {
	start := strings.LastIndexByte(text[:offset], '\n') + 1
	before, after := text[start:offset], text[offset:]
	after, _, _ = strings.Cut(after, "\n")
	after = strings.TrimSuffix(after, "\r")
	if before+after == "" {
		return ""
	}
	if room := shown - min(len(before), shownBefore); len(after) > room {
		after = strings.ToValidUTF8(after[:room], "") + "..."
	}
	if len(before) > shownBefore {
		before = "..." + strings.ToValidUTF8(before[len(before)-shownBefore:], "")
	}
	before, after = printable.Lines(strings.ReplaceAll(before, "\t", " ")), printable.Lines(after)
	return indent + before + after + indent + strings.Repeat(" ", columns(before)) + "^"
}

// columns returns the number of terminal columns of a text. East Asian characters and emoji have
// two columns, and a mark on another character has none.
func columns(text string) (n int) {
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
