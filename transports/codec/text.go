package codec

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// ParseBytes returns the bytes that a text of a configuration means. In the text, \xNN stands for
// any byte, and \r, \n, \t, \0 and \\ for the usual ones. The text must not be empty.
func ParseBytes(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("must be at least one byte")
	}
	var out []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		if i+1 == len(s) {
			return nil, errors.New(`ends with a single \; write \\`)
		}
		switch s[i+1] {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '0':
			out = append(out, 0)
		case '\\':
			out = append(out, '\\')
		case 'x':
			b, err := strconv.ParseUint(s[i+2:min(i+4, len(s))], 16, 8)
			if err != nil || i+4 > len(s) {
				return nil, errors.New(`\x needs two hexadecimal digits`)
			}
			out = append(out, byte(b))
			i += 2
		default:
			r, _ := utf8.DecodeRuneInString(s[i+1:])
			return nil, fmt.Errorf(`\%c is not an escape; allowed are \xNN, \r, \n, \t, \0 and \\`, r)
		}
		i += 2
	}
	return out, nil
}
