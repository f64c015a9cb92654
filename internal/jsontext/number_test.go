package jsontext

import (
	"math/big"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestParseDecimal(t *testing.T) {
	for text, want := range map[string]Decimal{
		"0": {}, "-0.00": {}, "0e99999999999999999999": {}, "1": {Digits: "1"}, "10": {Digits: "1", Exponent: 1}, "1.0": {Digits: "1"}, "1e3": {Digits: "1", Exponent: 3},
		"-0.0120E-3": {Negative: true, Digits: "12", Exponent: -6}, "21.50": {Digits: "215", Exponent: -1}, "89860045061950080012": {Digits: "89860045061950080012"},
	} {
		if d, ok := ParseDecimal(text); d != want || !ok {
			t.Errorf("%s: %+v, %t", text, d, ok)
		}
	}
	for _, text := range []string{"", " 1", "1 ", "01", "1.", "+1", "NaN", "true", `"1"`, "0x1", "1e99999999999", "1_0"} {
		if d, ok := ParseDecimal(text); ok {
			t.Errorf("%q: %+v", text, d)
		}
	}
}

func TestDecimalsAreEqualAsRationalsAre(t *testing.T) {
	number := rapid.Custom(func(t *rapid.T) string {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?`).Draw(t, "number")
		if rapid.Bool().Draw(t, "e") {
			text += "e" + strconv.Itoa(rapid.IntRange(-4, 4).Draw(t, "exponent"))
		}
		return text
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, _ := new(big.Rat).SetString(a)
		y, _ := new(big.Rat).SetString(b)
		c, _ := ParseDecimal(a)
		d, _ := ParseDecimal(b)
		if (c == d) != (x.Cmp(y) == 0) {
			t.Errorf("%s and %s: %+v, %+v", a, b, c, d)
		}
		if text, ok := c.Whole(20); ok != x.IsInt() || ok && text != x.Num().String() {
			t.Errorf("%s: %s, %t", a, text, ok)
		}
	})
}
