package printable

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxName is the longest name, in bytes; AMQP has no room for more.
const MaxName = 255

// CheckName says why s can't name a device, a command or a group: it is empty or too long, begins
// or ends with a space, or has what people can't see or two spellings that look the same. Names
// are refused and never changed: the host would take two for one that others keep apart.
func CheckName[T string | []byte](s T) error {
	switch {
	case len(s) == 0:
		return errors.New("is empty")
	case len(s) > MaxName:
		return fmt.Errorf("is %d bytes long, allowed are %d", len(s), MaxName)
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return errors.New("begins or ends with a space")
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f {
			return errors.New("has a control character")
		} else if c >= utf8.RuneSelf {
			return checkRunes(string(s))
		}
	}
	return nil
}

func checkRunes(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if !Rune(r) {
			return fmt.Errorf("has %U, which can't be printed", r)
		}
	}
	if !norm.NFC.IsNormalString(s) {
		return fmt.Errorf("is not in the Unicode normal form C (NFC), in which it is %+q", norm.NFC.String(s))
	}
	return nil
}
