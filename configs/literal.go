package configs

import (
	"strings"
)

// inside returns the place in the file of the byte at an offset of the string at path. It returns
// false if the string in the file isn't text, which is the case after a substitution.
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

// literal decodes the TOML string that src begins with. at has, for each byte of text and for the
// end of text, its offset in src. If src isn't a valid string, literal returns what it could
// decode.
func literal(src string) (text string, at []int) {
	if src == "" || src[0] != '"' && src[0] != '\'' {
		return "", []int{0}
	}
	quote, pos := src[:1], 1
	long := strings.HasPrefix(src, strings.Repeat(quote, 3))
	if long {
		pos = 3
		// A line end right after the opening quotes isn't part of the text.
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
					// In a run of four or five quotes, the first one or two belong to the text.
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
				// An escaped line end: skip the white space up to the next text.
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

// escapeLength returns the length of the escape at the start of src. It returns 0 for an escaped
// line end.
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
