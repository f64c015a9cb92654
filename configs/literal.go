package configs

import (
	"strings"
)

// inside returns where the byte at an offset of path's string is written in the file. It can't be said if the string isn't text, which is so when
// something was substituted in it.
func (p *positions) inside(path, text string, offset int) (Position, bool) {
	value, ok := p.values[path]
	if !ok || text == "" {
		return Position{}, false
	}
	decoded, at := literal(p.src[value.begin:])
	if decoded != text || offset > len(text) {
		return Position{}, false
	}
	return p.position(value.begin + at[offset]), true
}

// literal returns the string that src begins with, and for each of its bytes, and for its end, where that is written in src. On anything
// else it returns what it can.
func literal(src string) (text string, at []int) {
	if src == "" || src[0] != '"' && src[0] != '\'' {
		return "", []int{0}
	}
	quote, pos := src[:1], 1
	long := strings.HasPrefix(src, strings.Repeat(quote, 3))
	if long {
		pos = 3
		// The line end after the opening quotes isn't the text's.
		if strings.HasPrefix(src[pos:], "\r\n") {
			pos += 2
		} else if strings.HasPrefix(src[pos:], "\n") {
			pos++
		}
	}
	var b strings.Builder
	put := func(s string, from int) {
		for range len(s) {
			at = append(at, from)
		}
		b.WriteString(s)
	}
	for pos < len(src) {
		switch c := src[pos]; {
		case c == quote[0]:
			run := len(src[pos:]) - len(strings.TrimLeft(src[pos:], quote))
			if !long || run >= 3 {
				if long {
					// Of four or five, the first ones are the text's.
					for range min(run-3, 2) {
						put(quote, pos)
						pos++
					}
				}
				return b.String(), append(at, pos)
			}
			put(quote, pos)
			pos++
		case c == '\\' && quote == `"`:
			n := escapeLength(src[pos:])
			if n == 0 {
				// A line end and the blanks around it, up to the next text.
				pos += 1 + len(src[pos+1:]) - len(strings.TrimLeft(src[pos+1:], " \t\r\n"))
				continue
			}
			put(unescape(src[pos:pos+n]), pos)
			pos += n
		default:
			put(src[pos:pos+1], pos)
			pos++
		}
	}
	return b.String(), append(at, pos)
}

// escapeLength is how long the escape is that src begins with; 0 if it is that of a line end.
func escapeLength(src string) int {
	if len(src) < 2 {
		return len(src)
	}
	n := 2
	switch src[1] {
	case ' ', '\t', '\r', '\n':
		return 0
	case 'x':
		n = 4
	case 'u':
		n = 6
	case 'U':
		n = 10
	}
	return min(n, len(src))
}
