package byteexpr

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr"

	"github.com/pentrough/pentrough/internal/exprerror"
)

// scope has the variables of a command.
var scope = Scope{Of: "frame", Otherwise: "write a protocol in Go", Variables: map[string]Value{
	"text":   TextOf(func(in Input) error { in.PushBytes(in.Data); return nil }),
	"size":   NumberOf(func(in Input) (int, error) { return len(in.Data), nil }),
	"cmd":    TextOf(func(in Input) error { in.PushBytes(in.Command); return nil }),
	"device": TextOf(func(in Input) error { in.PushText(in.Device); return nil }),
	"unit":   TextOf(func(in Input) error { in.PushText(in.Unit); return nil }),
	"id":     TextOf(func(in Input) error { in.PushText(in.ID); return nil }),
	"n":      Counter,
}}

// evaluate runs an expression over a frame. A text is quoted.
func evaluate(source, frame string) (result string, err error) {
	var p *Program
	for _, want := range []Kind{Number, Text, Boolean} {
		var wrong *exprerror.Error
		if p, wrong = scope.Compile(source, want); wrong == nil {
			break
		}
		if want == Boolean || !strings.Contains(wrong.Message, "gives ") {
			return "", wrong
		}
	}
	in := Input{[]byte(frame), &Values{Command: []byte("open"), Device: "dev-1", Unit: "7", ID: "c1", Number: 300, Limit: 1 << 16}}
	switch p.kind {
	case Number:
		var n int
		n, err = p.number(in)
		result = strconv.Itoa(n)
	case Text:
		result, err = p.Read(in, "")
		result = strconv.Quote(result)
	default:
		var b bool
		b, err = p.Holds(in)
		result = strconv.FormatBool(b)
	}
	if err == nil && len(in.stack) > 0 {
		err = fmt.Errorf("%d bytes are left on the stack", len(in.stack))
	}
	return result, err
}

const frame = "\x01\x23\x45\xffabc \x80"

func TestExpressions(t *testing.T) {
	for source, want := range map[string]string{
		`u8(0)`: "1", `u8(3)`: "255", `u8(-1)`: "128", `u8(size-1)`: "128", `u8(len(text) - 9)`: "1",
		`u16(0)`: "291", `u16le(0)`: "8961", `u32(0)`: "19088895", `u32le(0)`: "4282721025", `u16(-2)`: "8320", `u64(0)`: "81986181375615776",
		`at(4, 3)`: `"abc"`, `at(-5, 3)`: `"abc"`, `at(0, 0)`: `""`, `at(9, 0)`: `""`, `text`: strconv.Quote(frame), `size`: "9",
		`hex(0, 4)`: `"012345ff"`, `hex(text[1:3])`: `"2345"`, `bcd(0, 3)`: `"012345"`, `bcd("\x12")`: `"12"`, `hex("")`: `""`,
		`w8(255) + w16(258) + w32(1)`: `"\xff\x01\x02\x00\x00\x00\x01"`, `w16le(258) + w32le(1)`: `"\x02\x01\x01\x00\x00\x00"`,
		`unhex("0aFF")`: `"\n\xff"`, `upper(at(4,3)) + lower("ABC")`: `"ABCabc"`, `reverse(at(0,3))`: `"E#\x01"`,
		`trim(" a\r\n")`: `"a"`, `trim("00100", "0")`: `"1"`, `trim("")`: `""`,
		`times("a|b|c", "|")`: "2", `len(cmd)`: "4", `int("42") + int(unit) + int(3)`: "52", `string(n) + string("x")`: `"300x"`, `int("-5")`: "-5",
		`bitand(u8(3), 0x0F)`: "15", `bitor(1, 6)`: "7", `bitxor(5, 1)`: "4", `bitshl(1, 8)`: "256", `bitshl(1, 40)`: "1099511627776", `bitshr(u16(0), 8)`: "1",
		`xor8("\x01\x02\x04")`: "7", `sum8("\xff\x02")`: "1", `crc16("modbus", "123456789")`: "19255", `crc16("x" + "25", "123456789")`: "36974",
		`device + "/" + unit + "/" + id + "/" + cmd`:       `"dev-1/7/c1/open"`,
		`"\xff" + b"\xfe" + "\n\t\"\\" + 'a' + ` + "`\\x`": `"\xff\xfe\n\t\"\\a\\x"`, `"é\u00e9"`: `"éé"`,
		`1 + 2 * 3 - 4`: "3", `-7 % 3`: "-1", `+5`: "5", `0xFF`: "255", `(1 + 2) * 3`: "9",
		`u8(0) == 1`: "true", `u8(0) != 1`: "false", `u8(0) < 2 and u8(1) >= 0x23`: "true", `1 < 2 < 3`: "true", `u8(0) > 1 or u8(0) <= 0`: "false",
		`u8(0) in [1, 2]`: "true", `u8(0) not in [1, 2]`: "false", `u16(0) in [291]`: "true", `cmd in ["a", "open"]`: "true", `u8(0) in []`: "false", `u8(0) in [9, u8(0)]`: "true", `u16(0) in [size, n]`: "false",
		`cmd in [device, "op" + "en"]`: "true", `cmd in [device, id]`: "false", `"a" in ["b", "a"]`: "true", `1 in [2, 3]`: "false",
		`not (u8(0) == 1)`: "false", `!true`: "false", `true == (1 == 1)`: "true", `false != true`: "true", `true && false || true`: "true",
		`"abc" < "abd"`: "true", `"b" > "a"`: "true", `"a" <= "a"`: "true", `"a" >= "b"`: "false", `at(4,3) == "abc"`: "true", `at(4,3) != "abc"`: "false",
		`text contains "abc"`: "true", `text startsWith "\x01"`: "true", `text endsWith "x"`: "false", `not (text contains "abc")`: "false", `text not contains "abc"`: "false",
		`size > 100 and u8(99) == 1`: "false", `size < 100 or u8(99) == 1`: "true",
		`u8(0) == 1 ? "one" : "other"`: `"one"`, `u8(0) == 2 ? 1 : u8(1) == 0x23 ? 2 : 3`: "2", `if u8(0) == 1 { true } else { false }`: "true",
		`cmd[1:3]`: `"pe"`, `cmd[:-1]`: `"ope"`, `cmd[-2:]`: `"en"`, `cmd[9:]`: `""`, `cmd[2:1]`: `""`, `cmd[:]`: `"open"`, `"abc"[1:2]`: `"b"`,
		`cmd[0:1] == "o" ? cmd[1:] : cmd`: `"pen"`, `at(0,1) + (at(1,1) == "#" ? "x" : "y") + at(2,1)`: `"\x01xE"`, `"x" + string(len(cmd + "y"))`: `"x5"`,
		`cmd | upper()`: `"OPEN"`, `upper(cmd) == "OPEN" and hex(0,1) + string(u8(1)) == "0135"`: "true",
	} {
		if got, err := evaluate(source, frame); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", source, got, err, want)
		}
	}
}

// Expressions that expr-lang has, too, give the same results as in its virtual machine.
func TestTheLanguageAgrees(t *testing.T) {
	parts := []string{"1", "-2", "size", "n", `"a"`, `"abc"`, "cmd", `text`, `cmd[1:]`, `cmd[-2:9]`, "true", "size > 3"}
	operators := []string{"+", "-", "*", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "contains", "startsWith", "endsWith"}
	env := map[string]any{"size": len(frame), "n": 300, "cmd": "open", "text": frame}
	compared := 0
	for _, left := range parts {
		for _, operator := range operators {
			for _, right := range parts {
				source := fmt.Sprintf("(%s) %s (%s)", left, operator, right)
				got, err := evaluate(source, frame)
				if err != nil {
					continue
				}
				want, err := expr.Eval(source, env)
				if s, ok := want.(string); ok {
					want = strconv.Quote(s)
				}
				if err != nil || got != fmt.Sprint(want) {
					t.Errorf("%s: %s; the language gives %v, %v", source, got, want, err)
				}
				compared++
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d expressions are compared", compared)
	}
}

func TestTimes(t *testing.T) {
	before := time.Now().UTC()
	unix, err := evaluate(`unix()`, "")
	if n, _ := strconv.ParseInt(unix, 10, 64); err != nil || n < before.Unix() || n > before.Unix()+60 {
		t.Errorf("%s, %v", unix, err)
	}
	stamp, err := evaluate(`utc("20060102150405")`, "")
	if at, wrong := time.Parse(`"20060102150405"`, stamp); err != nil || wrong != nil || at.Before(before.Add(-time.Second)) || at.After(before.Add(time.Minute)) {
		t.Errorf("%s, %v", stamp, err)
	}
}

// Each error of a run names the function, its arguments and the size of the frame.
func TestRunErrors(t *testing.T) {
	for source, want := range map[string]string{
		`u8(9)`:                          "u8(9) is outside of the frame, which has 9 bytes (column 1 of u8(9))",
		`u8(-10)`:                        "u8(-10) is outside of the frame",
		`1 + u16(8)`:                     "u16(8) is outside of the frame, which has 9 bytes (column 5 of 1 + u16(8))",
		`u64(2)`:                         "u64(2) is outside",
		`u32(size)`:                      "u32(9) is outside",
		`at(4, 6)`:                       "at(4, 6) is outside",
		`at(0, -1)`:                      "at(0, -1) is outside",
		`hex(size, 9223372036854775807)`: "is outside of the frame",
		`u8(9223372036854775807)`:        "is outside of the frame",
		`bcd(0, 4)`:                      "byte 3 of bcd is 0xff, which isn't two decimal digits",
		`w8(n + 0)`:                      "w8(300) doesn't fit; allowed: 0 to 255",
		`w16(0-size)`:                    "w16(-9) doesn't fit; allowed: 0 to 65535",
		`int(cmd)`:                       `int needs a decimal number and has "open"`,
		`unhex(cmd)`:                     "unhex needs pairs of hexadecimal digits",
		`unhex(cmd[0:1])`:                "unhex needs pairs of hexadecimal digits",
		`1 % (size - 9)`:                 "1 % 0 has no value",
	} {
		if got, err := evaluate(source, frame); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v; want %s", source, got, err, want)
		}
	}
	big := strings.Repeat("x", 1<<16)
	if got, err := evaluate(`len(text + text)`, big); err == nil || !strings.Contains(err.Error(), "makes more than 65536 bytes of this frame") {
		t.Errorf("%s, %v", got, err)
	}
}

// No frame makes a function panic, however short it is.
func FuzzFunctions(f *testing.F) {
	var all []*Program
	for name := range functions {
		source := map[string]string{
			"trim": `trim(text, "x")`, "times": `string(times(text, "x"))`, "len": `string(len(text))`, "int": `string(int(text))`, "string": `string(size)`, "unhex": `unhex(text)`,
			"upper": `upper(text)`, "lower": `lower(text)`, "reverse": `reverse(text)`, "crc16": `string(crc16("modbus", text))`, "utc": `utc("2006")`, "unix": `string(unix())`,
			"hex": `hex(u8(0), u8(1)) + hex(text)`, "bcd": `bcd(u8(0), u8(1)) + bcd(text)`, "at": `at(u8(0), u8(-1))`, "xor8": `string(xor8(text))`, "sum8": `string(sum8(text))`,
		}[name]
		switch {
		case source != "":
		case strings.HasPrefix(name, "u"):
			source = "string(" + name + "(u8(0)) + " + name + "(-3))"
		case strings.HasPrefix(name, "w"):
			source = name + "(u16(0))"
		default:
			source = "string(" + name + "(u8(0), u8(1)))"
		}
		p, err := scope.Compile(source, Text)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, p)
	}
	for _, frame := range []string{"", "\x01", frame, "\x00\x00\x01", "0a1b"} {
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, p := range all {
			in := Input{frame, &Values{Limit: 1 << 16}}
			if _, err := p.Append(in, nil); err == nil && len(in.stack) > 0 {
				t.Errorf("%d bytes are left on the stack", len(in.stack))
			}
		}
	})
}
