package expression

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep JSON may be nested.
const maxDepth = 500

// decode reads one JSON value, all of it, and builds what is wanted: of objects only the keys that are named, of what nobody named
// nothing. Numbers are int where they fit, else float64; what fits neither keeps its digits as json.Number. Of equal keys the last counts.
func decode(text string, want *reads) (any, error) {
	d := &decoder{text: text}
	return d.document(want)
}

// decoder walks over a text. Strings without escapes are parts of it.
type decoder struct {
	text  string
	pos   int
	depth int
}

func (d *decoder) document(want *reads) (any, error) {
	if !utf8.ValidString(d.text) {
		for i, r := range d.text {
			if r == utf8.RuneError && !strings.HasPrefix(d.text[i:], string(utf8.RuneError)) {
				return nil, fmt.Errorf("byte %d: not valid UTF-8", i+1)
			}
		}
	}
	d.blank()
	v, err := d.value(want)
	if err != nil {
		return nil, err
	}
	d.blank()
	if d.pos < len(d.text) {
		return nil, d.unexpected("the end")
	}
	return v, nil
}

func (d *decoder) blank() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) unexpected(wanted string) error {
	if d.pos >= len(d.text) {
		return fmt.Errorf("byte %d: the end; expected: %s", d.pos+1, wanted)
	}
	r, _ := utf8.DecodeRuneInString(d.text[d.pos:])
	return fmt.Errorf("byte %d: %q; expected: %s", d.pos+1, r, wanted)
}

var errDeep = errors.New("nested too deep")

// value reads a value. A want of nil means that it is only looked at.
func (d *decoder) value(want *reads) (any, error) {
	if d.pos >= len(d.text) {
		return nil, d.unexpected("a value")
	}
	switch c := d.text[d.pos]; c {
	case '{', '[':
		d.depth++
		if d.depth > maxDepth {
			return nil, fmt.Errorf("byte %d: %w; allowed: %d levels", d.pos+1, errDeep, maxDepth)
		}
		d.pos++
		var v any
		var err error
		if c == '{' {
			v, err = d.object(want)
		} else {
			v, err = d.array(want)
		}
		d.depth--
		return v, err
	case '"':
		s, err := d.str(want != nil)
		if want == nil {
			return nil, err
		}
		return s, err
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		return d.number(want)
	}
}

func (d *decoder) word(word string) error {
	if !strings.HasPrefix(d.text[d.pos:], word) {
		return d.unexpected(word)
	}
	d.pos += len(word)
	return nil
}

func (d *decoder) object(want *reads) (any, error) {
	var m map[string]any
	if want != nil {
		m = map[string]any{}
	}
	d.blank()
	if d.pos < len(d.text) && d.text[d.pos] == '}' {
		d.pos++
		return m, nil
	}
	for {
		d.blank()
		if d.pos >= len(d.text) || d.text[d.pos] != '"' {
			return nil, d.unexpected("a key in quotes")
		}
		key, err := d.str(want != nil)
		if err != nil {
			return nil, err
		}
		d.blank()
		if d.pos >= len(d.text) || d.text[d.pos] != ':' {
			return nil, d.unexpected(`":"`)
		}
		d.pos++
		d.blank()
		inner := want.of(key)
		v, err := d.value(inner)
		if err != nil {
			return nil, err
		}
		if inner != nil {
			m[key] = v
		}
		more, err := d.more('}')
		if err != nil {
			return nil, err
		}
		if !more {
			return m, nil
		}
	}
}

// of is what is wanted of a key's value.
func (r *reads) of(key string) *reads {
	if r == nil || r.all {
		return r
	}
	return r.keys[key]
}

func (d *decoder) array(want *reads) (any, error) {
	list := []any{}
	d.blank()
	if d.pos < len(d.text) && d.text[d.pos] == ']' {
		d.pos++
		return list, nil
	}
	for {
		d.blank()
		v, err := d.value(want)
		if err != nil {
			return nil, err
		}
		if want != nil {
			list = append(list, v)
		}
		more, err := d.more(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return list, nil
		}
	}
}

// more goes over a comma, or over the end of a list or object.
func (d *decoder) more(end byte) (bool, error) {
	d.blank()
	if d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ',':
			d.pos++
			return true, nil
		case end:
			d.pos++
			return false, nil
		}
	}
	return false, d.unexpected(`"," or "` + string(end) + `"`)
}

// str reads a string; unless it is kept, only that it is one.
func (d *decoder) str(keep bool) (string, error) {
	d.pos++
	start := d.pos
	for d.pos < len(d.text) {
		switch c := d.text[d.pos]; {
		case c == '"':
			d.pos++
			return d.text[start : d.pos-1], nil
		case c == '\\':
			return d.escaped(start, keep)
		case c < ' ':
			return "", d.unexpected(`no control characters in a string`)
		default:
			d.pos++
		}
	}
	return "", d.unexpected("the end of the string")
}

// escaped reads the rest of a string from its first escape on.
func (d *decoder) escaped(start int, keep bool) (string, error) {
	var out []byte
	if keep {
		out = append(out, d.text[start:d.pos]...)
	}
	for d.pos < len(d.text) {
		c := d.text[d.pos]
		switch {
		case c == '"':
			d.pos++
			return string(out), nil
		case c == '\\':
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			if keep {
				out = utf8.AppendRune(out, r)
			}
		case c < ' ':
			return "", d.unexpected(`no control characters in a string`)
		default:
			d.pos++
			if keep {
				out = append(out, c)
			}
		}
	}
	return "", d.unexpected("the end of the string")
}

const escapes = "\"\"\\\\//b\bf\fn\nr\rt\t"

// escape reads one escape. Half a surrogate pair becomes U+FFFD, as everywhere in Go.
func (d *decoder) escape() (rune, error) {
	d.pos++
	if d.pos >= len(d.text) {
		return 0, d.unexpected("an escape")
	}
	c := d.text[d.pos]
	if c == 'u' {
		r, err := d.hex()
		if err != nil {
			return 0, err
		}
		if utf16.IsSurrogate(r) && strings.HasPrefix(d.text[d.pos:], `\u`) {
			before := d.pos
			d.pos++
			second, err := d.hex()
			if err != nil {
				return 0, err
			}
			if pair := utf16.DecodeRune(r, second); pair != utf8.RuneError {
				return pair, nil
			}
			d.pos = before
		}
		if utf16.IsSurrogate(r) {
			r = utf8.RuneError
		}
		return r, nil
	}
	for i := 0; i < len(escapes); i += 2 {
		if escapes[i] == c {
			d.pos++
			return rune(escapes[i+1]), nil
		}
	}
	return 0, d.unexpected(`one of "\/bfnrtu after \`)
}

// hex reads the u and the four digits of an escape.
func (d *decoder) hex() (rune, error) {
	d.pos++
	var r rune
	for range 4 {
		if d.pos >= len(d.text) {
			return 0, d.unexpected("four hex digits")
		}
		c := d.text[d.pos]
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, d.unexpected("four hex digits")
		}
		d.pos++
	}
	return r, nil
}

func (d *decoder) number(want *reads) (any, error) {
	start, whole := d.pos, true
	if d.at('-') {
		d.pos++
	}
	switch {
	case d.at('0'):
		d.pos++
	case !d.digits():
		if d.pos == start {
			return nil, d.unexpected("a value")
		}
		return nil, d.unexpected("a digit")
	}
	if d.at('.') {
		whole = false
		d.pos++
		if !d.digits() {
			return nil, d.unexpected("a digit")
		}
	}
	if d.at('e') || d.at('E') {
		whole = false
		d.pos++
		if d.at('+') || d.at('-') {
			d.pos++
		}
		if !d.digits() {
			return nil, d.unexpected("a digit")
		}
	}
	if want == nil {
		return nil, nil
	}
	text := d.text[start:d.pos]
	if whole {
		// -0 is no int.
		if i, err := strconv.Atoi(text); err == nil && (i != 0 || text == "0") {
			return i, nil
		}
		if text != "-0" {
			return json.Number(text), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return json.Number(text), nil //nolint:nilerr // a number beyond float64 keeps its digits
	}
	return f, nil
}

func (d *decoder) at(c byte) bool { return d.pos < len(d.text) && d.text[d.pos] == c }

func (d *decoder) digits() bool {
	start := d.pos
	for d.pos < len(d.text) && d.text[d.pos] >= '0' && d.text[d.pos] <= '9' {
		d.pos++
	}
	return d.pos > start
}
