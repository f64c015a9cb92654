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
	// shown is how many bytes of a line are shown around a place in it, shownBefore how many of them
	// before the place at most.
	shown, shownBefore = 100, 60
)

// Caret shows the line of a text that an offset is in, and below it a sign at the place, each after
// a line end and indented. It is empty if the line is. A tab is shown as a space.
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

// columns is how many columns of a terminal a text takes: East Asian characters and emoji take two,
// marks on another character none.
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
