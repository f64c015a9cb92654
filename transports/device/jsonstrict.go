package device

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may lie in each other, the outermost included.
const maxDepth = 32

// token is one value of a JSON text, as it stands there.
type token struct {
	// kind is the value's first byte: one of "{[\"tfn", or '0' for a number.
	kind byte
	// raw is the value; of a string, what is between the quotes.
	raw []byte
	// escaped says that raw is a string with escapes.
	escaped bool
}

var errHalfSurrogate = errors.New("has half of a surrogate pair")

// text returns the value of a string. It refuses what would not come out as it went in: bytes that aren't UTF-8, and halves
// of surrogate pairs.
func (t token) text() ([]byte, error) {
	if !utf8.Valid(t.raw) {
		return nil, errors.New("is not UTF-8")
	}
	if !t.escaped {
		return t.raw, nil
	}
	out := make([]byte, 0, len(t.raw))
	for i := 0; i < len(t.raw); {
		if c := t.raw[i]; c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		switch c := t.raw[i+1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(t.raw[i+2:])
			if utf16.IsSurrogate(r) {
				rest := t.raw[i+6:]
				if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
					return nil, errHalfSurrogate
				}
				if r = utf16.DecodeRune(r, hex4(rest[2:])); r == utf8.RuneError {
					return nil, errHalfSurrogate
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
			i += 4
		default: // a quote, a slash or a backslash
			out = append(out, c)
		}
		i += 2
	}
	return out, nil
}

// hex4 returns the value of four hexadecimal digits, which the scanner has checked.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		r = r<<4 | rune(unhex(c))
	}
	return r
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// object walks over the members of a JSON text that is one object, once and without allocating. It takes and refuses
// what encoding/json does, but for nesting beyond maxDepth; whether strings are UTF-8 is left to token.text.
type object struct {
	data []byte
	pos  int
	// name and value are the current member.
	name, value token
	err         error
	open        bool
}

// next goes to the next member. It returns false at the end of the text, with err set if that isn't one object.
func (o *object) next() bool {
	if o.err != nil {
		return false
	}
	if !o.open {
		o.open = true
		if o.space() != '{' {
			return o.fail("an object, {...}, must begin here")
		}
		o.pos++
		if o.space() == '}' {
			return o.end()
		}
	} else {
		switch o.space() {
		case ',':
			o.pos++
			o.space()
		case '}':
			return o.end()
		default:
			return o.fail("a comma or } must follow a member")
		}
	}
	return o.member(&o.name, &o.value, 1)
}

// end passes the object's last brace; only white space may follow.
func (o *object) end() bool {
	o.pos++
	o.space()
	if o.pos < len(o.data) {
		o.fail("nothing may follow the object")
	}
	return false
}

// space passes white space and returns the byte after it, 0 at the end.
func (o *object) space() byte {
	for ; o.pos < len(o.data); o.pos++ {
		switch c := o.data[o.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (o *object) fail(what string) bool {
	if o.pos >= len(o.data) {
		o.err = fmt.Errorf("byte %d: the text ends; %s", o.pos, what)
	} else {
		o.err = fmt.Errorf("byte %d, %q: %s", o.pos, o.data[o.pos], what)
	}
	return false
}

func (o *object) member(name, value *token, depth int) bool {
	if o.pos >= len(o.data) || o.data[o.pos] != '"' {
		return o.fail("a member's name in quotes must be here")
	}
	if !o.str(name) {
		return false
	}
	if o.space() != ':' {
		return o.fail("a colon must follow a member's name")
	}
	o.pos++
	return o.any(value, depth)
}

// any passes one value at the given depth.
func (o *object) any(t *token, depth int) bool {
	c := o.space()
	start := o.pos
	ok := false
	switch c {
	case '"':
		return o.str(t)
	case '{', '[':
		if depth >= maxDepth {
			return o.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
		}
		ok = o.nested(c, depth+1)
	case 't':
		ok = o.word("true")
	case 'f':
		ok = o.word("false")
	case 'n':
		ok = o.word("null")
	default:
		c = '0'
		ok = o.number()
	}
	*t = token{kind: c, raw: o.data[start:o.pos]}
	return ok
}

// nested passes an object or array that begins here.
func (o *object) nested(open byte, depth int) bool {
	shut := open + 2 // "{}" and "[]" are that far apart
	var name, value token
	o.pos++
	if o.space() == shut {
		o.pos++
		return true
	}
	for {
		if open == '{' {
			o.space()
			if !o.member(&name, &value, depth) {
				return false
			}
		} else if !o.any(&value, depth) {
			return false
		}
		switch o.space() {
		case ',':
			o.pos++
		case shut:
			o.pos++
			return true
		default:
			return o.fail(fmt.Sprintf("a comma or %c must be here", shut))
		}
	}
}

// str passes the string that begins here.
func (o *object) str(t *token) bool {
	o.pos++
	start := o.pos
	escaped := false
	for o.pos < len(o.data) {
		switch c := o.data[o.pos]; {
		case c == '"':
			*t = token{kind: '"', raw: o.data[start:o.pos], escaped: escaped}
			o.pos++
			return true
		case c == '\\':
			escaped = true
			o.pos++
			if !o.escape() {
				return false
			}
		case c < ' ':
			return o.fail("a control character in a string must be escaped")
		default:
			o.pos++
		}
	}
	return o.fail("a string must end with a quote")
}

// escape passes what follows a backslash.
func (o *object) escape() bool {
	if o.pos < len(o.data) {
		switch o.data[o.pos] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			o.pos++
			return true
		case 'u':
			o.pos++
			for range 4 {
				if o.pos >= len(o.data) || unhex(o.data[o.pos]) < 0 {
					return o.fail("four hexadecimal digits must follow \\u")
				}
				o.pos++
			}
			return true
		}
	}
	return o.fail("no escape that JSON knows")
}

func (o *object) word(w string) bool {
	if len(o.data)-o.pos < len(w) || string(o.data[o.pos:o.pos+len(w)]) != w {
		return o.fail("a value must be here")
	}
	o.pos += len(w)
	return true
}

func (o *object) number() bool {
	if o.peek() == '-' {
		o.pos++
	}
	switch c := o.peek(); {
	case c == '0':
		o.pos++
	case '1' <= c && c <= '9':
		o.digits()
	default:
		return o.fail("a value must be here")
	}
	if o.peek() == '.' {
		o.pos++
		if !o.digits() {
			return o.fail("a digit must be here")
		}
	}
	if c := o.peek(); c == 'e' || c == 'E' {
		o.pos++
		if c := o.peek(); c == '+' || c == '-' {
			o.pos++
		}
		if !o.digits() {
			return o.fail("a digit must be here")
		}
	}
	return true
}

// peek returns the byte here, 0 at the end.
func (o *object) peek() byte {
	if o.pos < len(o.data) {
		return o.data[o.pos]
	}
	return 0
}

// digits passes digits and reports whether there was one.
func (o *object) digits() bool {
	start := o.pos
	for '0' <= o.peek() && o.peek() <= '9' {
		o.pos++
	}
	return o.pos > start
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. What isn't UTF-8 becomes U+FFFD.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			r, size = utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
			} else {
				dst = append(dst, "\ufffd"...)
			}
		}
		i += size
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
