package printable

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxName is the longest name, in bytes. AMQP can't carry longer ones.
const MaxName = 255

// CheckName returns why s can't name a device, a command or a group. A name isn't empty or too
// long, and doesn't begin or end with a space. It has only visible characters, in the Unicode
// normal form C, so that two names that look the same are the same. CheckName doesn't correct
// names, because two names that other programs distinguish would then become one.
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
