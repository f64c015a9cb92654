// Package printable escapes characters that could control the terminal, in text from devices,
// brokers, callers, files and databases. It also checks the names of devices and commands.
//
// The commands and the host's log write through a [Writer], which escapes what isn't printable. So
// their own code doesn't have to. [Text] is for a value that shares a line with others: it also
// escapes line breaks and tabs. [JSON] is for HTTP answers.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Rune reports whether r is a visible character or a space. It returns false for controls, line
// separators, invisible characters, and characters that set the direction of writing.
func Rune(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	// Unicode counts the last three as a symbol and two marks, but they are invisible.
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) &&
		r != '\u2800' && r != '\u17b4' && r != '\u17b5'
}

// Text returns a value for use inside a line of text. If the value has characters that aren't
// printable, Text quotes the value and escapes them.
func Text(s string) string {
	if firstUnprintable(s, false) < 0 {
		return s
	}
	return Lines(strconv.Quote(s))
}

// Lines returns s with escapes for what isn't printable, except line breaks and tabs. The escapes
// are \u009b, as in JSON, and \xff for a byte that isn't UTF-8.
func Lines(s string) string {
	if firstUnprintable(s, true) < 0 {
		return s
	}
	return string(appendEscaped(nil, s))
}

// JSON returns JSON that decodes to the same values, with escapes for what isn't printable. Bytes
// that aren't UTF-8 become U+FFFD, as JSON readers decode them.
func JSON(b []byte) []byte {
	if firstUnprintable(b, true) < 0 {
		return b
	}
	return appendEscaped(nil, bytes.ToValidUTF8(b, []byte("\ufffd")))
}

// Writer writes text and JSON with the escapes of [Lines]. A character must not be split between
// two calls of Write. It is safe for concurrent use if the writer below it is.
type Writer struct{ out io.Writer }

// NewWriter returns a Writer to out. If out is a Writer, NewWriter returns out.
func NewWriter(out io.Writer) *Writer {
	if w, ok := out.(*Writer); ok {
		return w
	}
	return &Writer{out}
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if firstUnprintable(p, true) < 0 {
		return w.out.Write(p)
	}
	if _, err := w.out.Write(appendEscaped(nil, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Unwrap returns what the Writer writes to.
func (w *Writer) Unwrap() io.Writer { return w.out }

// Below returns the innermost writer of out: it calls Unwrap as long as a writer has that method.
// Callers use it to control a terminal and to ask for its size.
func Below(out io.Writer) io.Writer {
	for {
		w, ok := out.(interface{ Unwrap() io.Writer })
		if !ok {
			return out
		}
		out = w.Unwrap()
	}
}

// firstUnprintable returns the index of the first character that isn't printable, or -1. If layout
// is set, line breaks and tabs count as printable.
func firstUnprintable[T string | []byte](s T, layout bool) int {
	for i := 0; i < len(s); {
		r, size := decodeFirst(s[i:])
		if (r == utf8.RuneError && size == 1 || !Rune(r)) && !(layout && (r == '\n' || r == '\t')) {
			return i
		}
		i += size
	}
	return -1
}

// appendEscaped appends s with the escapes of [Lines].
func appendEscaped[T string | []byte](to []byte, s T) []byte {
	for {
		i := firstUnprintable(s, true)
		if i < 0 {
			return append(to, s...)
		}
		to = append(to, s[:i]...)
		r, size := decodeFirst(s[i:])
		switch high, low := utf16.EncodeRune(r); {
		case r == utf8.RuneError:
			to = fmt.Appendf(to, `\x%02x`, s[i])
		case r > 0xffff:
			to = fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		default:
			to = fmt.Appendf(to, `\u%04x`, r)
		}
		s = s[i+size:]
	}
}

// decodeFirst returns the first character of s and its size in bytes.
func decodeFirst[T string | []byte](s T) (rune, int) {
	if s[0] < utf8.RuneSelf {
		return rune(s[0]), 1
	}
	return utf8.DecodeRuneInString(string(s[:min(len(s), utf8.UTFMax)]))
}
