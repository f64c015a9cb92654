package jsontext

import (
	"strconv"
	"strings"
)

// Decimal is the value of a JSON number: Digits, without zeros at either end, times ten to the
// power of Exponent. Zero has no digits. Two numbers have the same value if their Decimals are
// equal.
type Decimal struct {
	Negative bool
	Digits   string
	Exponent int
}

// maxExponent bounds exponents, so that adding the length of a text can't overflow an int.
const maxExponent = 1 << 30

// ParseDecimal returns the exact value of a JSON number. ok is false if number isn't a JSON
// number, or if its exponent is beyond 2^30.
func ParseDecimal[T Text](number T) (d Decimal, ok bool) {
	s := New(string(number))
	if token := s.Value(); token.Kind != '0' || len(token.Raw) != len(number) || s.End() != nil {
		return Decimal{}, false
	}
	text, negative := strings.CutPrefix(string(number), "-")
	text, power := strings.ToLower(text), ""
	text, power, _ = strings.Cut(text, "e")
	whole, fraction, _ := strings.Cut(text, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return Decimal{}, true
	}
	if power != "" {
		n, err := strconv.Atoi(power)
		if err != nil || n > maxExponent || n < -maxExponent {
			return Decimal{}, false
		}
		d.Exponent = n
	}
	d.Negative, d.Digits = negative, strings.TrimRight(digits, "0")
	d.Exponent += len(digits) - len(d.Digits) - len(fraction)
	return d, true
}

// Places returns how many digits the number has after the point.
func (d Decimal) Places() int { return max(0, -d.Exponent) }

// Whole returns a whole number as digits. It returns false if the number isn't whole, or has more
// than most digits.
func (d Decimal) Whole(most int) (string, bool) {
	if d.Exponent < 0 || len(d.Digits)+d.Exponent > most {
		return "", false
	}
	text := d.Digits + strings.Repeat("0", d.Exponent)
	switch {
	case text == "":
		return "0", true
	case d.Negative:
		return "-" + text, true
	default:
		return text, true
	}
}
