package jsontext

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Token is one value of a JSON text. The zero value means no value.
type Token[T Text] struct {
	// Kind is the value's first byte, which is one of {, [, ", t, f and n. For a number it is '0'.
	Kind byte
	// Raw is the value as it was written, a string with its quotes.
	Raw T

	// escaped says that the value is a string with escapes.
	escaped bool
	// flaw says why a string can't be text. It is an index of flaws, or 0.
	flaw uint8
}

const (
	notUTF8       = 1
	halfSurrogate = 2
)

var flaws = [...]error{notUTF8: ErrUTF8, halfSurrogate: ErrSurrogate}

// Text returns the text of a string: a part of Raw, or a copy if it has escapes. The error is
// [ErrUTF8] or [ErrSurrogate]. For a value that isn't a string it returns "".
func (t Token[T]) Text() (T, error) {
	var none T
	switch {
	case t.Kind != '"':
		return none, nil
	case t.flaw != 0:
		return none, flaws[t.flaw]
	case t.escaped:
		return T(unescape(t.Raw[1 : len(t.Raw)-1])), nil
	default:
		return t.Raw[1 : len(t.Raw)-1], nil
	}
}

// scanString skips the string that begins here and returns it.
func (s *Scanner[T]) scanString() Token[T] {
	start := s.pos
	t := Token[T]{Kind: '"'}
	s.pos++
	high := false
	for {
		n, beyond := plainPrefix(s.text[s.pos:])
		s.pos += n
		high = high || beyond
		if s.pos >= len(s.text) {
			s.fail("the end of the string")
			return Token[T]{}
		}
		switch s.text[s.pos] {
		case '"':
			s.pos++
			t.Raw = s.text[start:s.pos]
			if high && !utf8.Valid([]byte(t.Raw)) {
				s.recordFlaw(&t, notUTF8, start+invalidIndex(string(t.Raw)))
			}
			return t
		case '\\':
			t.escaped = true
			if !s.skipEscape(&t) {
				return Token[T]{}
			}
		default:
			s.fail(noControl)
			return Token[T]{}
		}
	}
}

// recordFlaw records why the string t can't be text. The flaw is at byte at of the text.
func (s *Scanner[T]) recordFlaw(t *Token[T], flaw uint8, at int) {
	if t.flaw == 0 {
		t.flaw = flaw
	}
	if s.flaw == nil {
		s.flaw = fmt.Errorf("byte %d: the string %w", at+1, flaws[flaw])
	}
}

// invalidIndex returns the index of the first byte that isn't UTF-8.
func invalidIndex(text string) int {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return len(text)
}

// skipEscape skips the escape that begins here. If it is the first half of a surrogate pair, it
// skips both halves.
func (s *Scanner[T]) skipEscape(t *Token[T]) bool {
	start := s.pos
	s.pos++
	if s.pos >= len(s.text) {
		return s.fail("an escape")
	}
	switch s.text[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return true
	case 'u':
		s.pos++
	default:
		return s.fail(`one of "\/bfnrtu after \`)
	}
	r := parseHex4(s.text[s.pos:])
	if r < 0 {
		for s.pos < len(s.text) && parseHexDigit(s.text[s.pos]) >= 0 {
			s.pos++
		}
		return s.fail("four hex digits")
	}
	s.pos += 4
	if utf16.IsSurrogate(r) {
		if _, ok := joinSurrogates(r, s.text[s.pos:]); ok {
			s.pos += 6
		} else {
			s.recordFlaw(t, halfSurrogate, start)
		}
	}
	return true
}

// joinSurrogates returns the character of the surrogate pair first and the escape at the beginning
// of rest.
func joinSurrogates[T Text](first rune, rest T) (rune, bool) {
	if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
		return 0, false
	}
	r := utf16.DecodeRune(first, parseHex4(rest[2:]))
	return r, r != utf8.RuneError
}

// unescape replaces the escapes in raw, the part of a string between its quotes. raw has no flaw.
func unescape[T Text](raw T) []byte {
	out := make([]byte, 0, len(raw))
	for {
		n, _ := plainPrefix(raw)
		out = append(out, raw[:n]...)
		if raw = raw[n:]; len(raw) == 0 {
			return out
		}
		c := raw[1]
		raw = raw[2:]
		switch c {
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
			r := parseHex4(raw)
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				r, _ = joinSurrogates(r, raw) // the walk has seen both halves
				raw = raw[6:]
			}
			out = utf8.AppendRune(out, r)
		default: // a quote, a slash or a backslash
			out = append(out, c)
		}
	}
}

// parseHex4 returns the value of four hexadecimal digits, or -1.
func parseHex4[T Text](text T) rune {
	if len(text) < 4 {
		return -1
	}
	var r rune
	for i := range 4 {
		digit := parseHexDigit(text[i])
		if digit < 0 {
			return -1
		}
		r = r<<4 | digit
	}
	return r
}

// parseHexDigit returns the value of a hexadecimal digit, or -1.
func parseHexDigit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10
	default:
		return -1
	}
}

// plainPrefix returns how many bytes come before the first quote, backslash or control character.
// high says whether one of them, or one of the next seven bytes, isn't ASCII. It reads eight bytes
// at a time.
func plainPrefix[T Text](text T) (n int, high bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var seen uint64
	for ; len(text)-n >= 8; n += 8 {
		eight := text[n : n+8]
		w := uint64(eight[0]) | uint64(eight[1])<<8 | uint64(eight[2])<<16 | uint64(eight[3])<<24 |
			uint64(eight[4])<<32 | uint64(eight[5])<<40 | uint64(eight[6])<<48 | uint64(eight[7])<<56
		seen |= w
		// In the result, the high bit of a byte is set if the byte is below ' ', a quote or a
		// backslash. A borrow may also set bits of later bytes, but only the first one counts.
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		if found := ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs; found != 0 {
			return n + bits.TrailingZeros64(found)/8, seen&highs != 0
		}
	}
	for ; n < len(text); n++ {
		c := text[n]
		if c < ' ' || c == '"' || c == '\\' {
			break
		}
		seen |= uint64(c)
	}
	return n, seen&highs != 0
}

// AppendString appends text as a JSON string. It replaces bytes that aren't UTF-8 by U+FFFD. A
// caller that must keep them checks the text first, and writes it in another form, such as base64.
func AppendString[T Text](dst []byte, text T) []byte {
	dst = append(dst, '"')
	for valid := false; ; {
		n, high := plainPrefix(text)
		if high && !valid {
			if !utf8.Valid([]byte(text)) {
				text = T(strings.ToValidUTF8(string(text), string(utf8.RuneError)))
				n, _ = plainPrefix(text)
			}
			valid = true
		}
		dst = append(dst, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			return append(dst, '"')
		}
		switch c := text[0]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hexDigits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		text = text[1:]
	}
}
