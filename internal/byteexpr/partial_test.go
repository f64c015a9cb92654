package byteexpr

import (
	"strings"
	"testing"
)

// partial is the scope of the first bytes of a frame.
var partial = Scope{Of: "frame", Partial: true, Otherwise: "write a codec in Go"}

func TestPartialExpressions(t *testing.T) {
	data := []byte{1, 2, 0xff, 0x80, 5, 6}
	for source, want := range map[string]int{
		"5":                                     5,
		"u8(1) + 3 * 2":                         8,
		"(u8(1) + 3) * 2":                       10,
		"u16(1)":                                0x2ff,
		"u32(0)":                                0x0102ff80,
		"u16le(1)":                              0xff02,
		"u32le(0)":                              0x80ff0201,
		"-u8(0) + +2":                           1,
		"u16(0) % 16":                           2,
		"bitand(u8(2), 0x0f)":                   15,
		"bitor(u8(0), u8(1))":                   3,
		"bitxor(3, u8(0))":                      2,
		"bitshr(u8(2), 4)":                      15,
		"bitshl(1, 8)":                          256,
		"u8(1) > 1 ? 7 : 8":                     7,
		"if u8(1) > 2 { 7 } else { 8 }":         8,
		"u8(0) == 1 and u8(1) != 2 ? 7 : 8":     8,
		"u8(0) == 1 && u8(1) <= 2 ? 7 : 8":      7,
		"u8(0) == 2 or not (u8(1) < 2) ? 7 : 8": 7,
		"u8(0) in [3, u8(0)] ? 7 : 8":           7,
		"u8(0) not in [3, 4] ? 7 : 8":           7,
		"0 < u8(1) < 2 ? 7 : 8":                 8,
		"u8(0) >= 1 || u8(99) == 1 ? 7 : 8":     7, // the byte that isn't there isn't needed
		"u8(u8(0))":                             2,
		"true ? 1 : 2":                          1,
	} {
		p, err := partial.Compile(source, Number)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, ok := p.Size(data); !ok || got != want {
			t.Errorf("%s is %d, %v; want %d", source, got, ok, want)
		}
	}
	for _, source := range []string{"u8(6)", "u16(5)", "u32(3)", "u8(-1)", "u8(u32(0))", "u8(9) > 1 ? 1 : 2", "1 + u8(6)", "-u8(6)", "u8(0) in [u8(9)] ? 1 : 2", "u8(9) in [1, 2] ? 1 : 2", "u64(0)", "bitand(1, u8(6))", "u8(6) % 2"} {
		p, err := partial.Compile(source, Number)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.Size(data); ok {
			t.Errorf("%s is %d, and should need more bytes", source, got)
		}
	}
}

func TestRefusedPartialExpressions(t *testing.T) {
	for source, want := range map[string]string{
		"u8(1) +":                       "unexpected token",
		"len([1])":                      "the function len doesn't exist here; write a codec in Go",
		"hex(0, 1)":                     "the function hex doesn't exist here",
		"reduce(1..9, # + #acc)":        "reduce is a loop, and there are none here; write a codec in Go",
		"u8(1) > 2":                     "gives true or false; allowed: a number",
		"u8(1) ? 1 : 2":                 "a condition is true or false",
		"u8(0) in 1..9 ? 1 : 2":         "in needs a list",
		"u8(0) % 0":                     "needs a number that isn't 0",
		"u8(0) % u8(1)":                 "needs a number that isn't 0",
		"u8(0) / 2":                     "the operator / doesn't exist here",
		"1.5":                           "only whole numbers are allowed",
		`"a"`:                           "text isn't allowed here",
		`"a" == "a" ? 1 : 2`:            "text isn't allowed here",
		"size":                          "unknown name size; allowed: bitand, bitor, bitshl, bitshr, bitxor, u16, u16le, u32, u32le, u64, u8",
		"frame":                         "unknown name frame; allowed: bitand",
		"let x = 1; x":                  "let and ; aren't allowed",
		"u8(1, 2)":                      "u8 has the wrong number of arguments; allowed: u8(i)",
		"u9(1)":                         "unknown name u9; did you mean u8?",
		"uint8(1)":                      "unknown name uint8; did you mean u8?",
		strings.Repeat("1", 4097):       "has 4097 bytes",
		strings.Repeat("1+", 499) + "1": "",
		strings.Repeat("(0 < ", 40) + "u8(0)" + strings.Repeat(" < 9 ? 1 : 2)", 40): "too many parts",
	} {
		_, err := partial.Compile(source, Number)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}
