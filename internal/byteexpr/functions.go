package byteexpr

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/pentrough/pentrough/internal/checksum"
)

// function is a function of the language.
type function struct {
	// usage shows how it is called, for error texts.
	usage string
	// takes has the allowed arguments: a letter for each one, n for a number and t for text.
	takes []string
	// pure is set if the result depends only on the arguments.
	pure bool
	// partial is set if the function exists in partial scopes.
	partial bool
	// build returns the value. The arguments fit takes.
	build func(c *compiler, f fault, args []Value) (Value, error)
}

// functions are the functions of the language by name.
var functions map[string]function

// Some functions use the table in their errors, so it can't be initialized where it is declared.
func init() {
	functions = map[string]function{
		"u8":    reads("u8", 1, func(b []byte) int { return int(b[0]) }),
		"u16":   reads("u16", 2, func(b []byte) int { return int(binary.BigEndian.Uint16(b)) }),
		"u32":   reads("u32", 4, func(b []byte) int { return int(binary.BigEndian.Uint32(b)) }),
		"u64":   reads("u64", 8, func(b []byte) int { return int(binary.BigEndian.Uint64(b)) }),
		"u16le": reads("u16le", 2, func(b []byte) int { return int(binary.LittleEndian.Uint16(b)) }),
		"u32le": reads("u32le", 4, func(b []byte) int { return int(binary.LittleEndian.Uint32(b)) }),
		"at":    cuts("at", func(Input, int, fault) error { return nil }),
		"hex":   cuts("hex", toHex),
		"bcd":   cuts("bcd", toDigits),

		"w8":    writes("w8", 1, func(b []byte, x int) []byte { return append(b, byte(x)) }),
		"w16":   writes("w16", 2, func(b []byte, x int) []byte { return binary.BigEndian.AppendUint16(b, uint16(x)) }),
		"w32":   writes("w32", 4, func(b []byte, x int) []byte { return binary.BigEndian.AppendUint32(b, uint32(x)) }),
		"w16le": writes("w16le", 2, func(b []byte, x int) []byte { return binary.LittleEndian.AppendUint16(b, uint16(x)) }),
		"w32le": writes("w32le", 4, func(b []byte, x int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(x)) }),

		"unhex":   changes("unhex", fromHex),
		"upper":   changes("upper", func(in Input, mark int, _ fault) error { upper(in.stack[mark:]); return nil }),
		"lower":   changes("lower", func(in Input, mark int, _ fault) error { lower(in.stack[mark:]); return nil }),
		"reverse": changes("reverse", func(in Input, mark int, _ fault) error { slices.Reverse(in.stack[mark:]); return nil }),
		"trim":    {usage: "trim(text) or trim(text, characters)", takes: []string{"t", "tt"}, pure: true, build: buildTrim},
		"len":     {usage: "len(text)", takes: []string{"t"}, pure: true, build: buildLen},
		"times":   {usage: "times(text, part)", takes: []string{"tt"}, pure: true, build: buildTimes},
		"int":     {usage: "int(text)", takes: []string{"t", "n"}, pure: true, build: buildInt},
		"string":  {usage: "string(number)", takes: []string{"n", "t"}, pure: true, build: buildString},

		"bitand": combines("bitand", func(x, y int) int { return x & y }),
		"bitor":  combines("bitor", func(x, y int) int { return x | y }),
		"bitxor": combines("bitxor", func(x, y int) int { return x ^ y }),
		"bitshl": combines("bitshl", func(x, y int) int { return x << (uint(y) % 64) }),
		"bitshr": combines("bitshr", func(x, y int) int { return int(uint(x) >> (uint(y) % 64)) }),

		"xor8":  sums("xor8", checksum.Named["xor"]),
		"sum8":  sums("sum8", checksum.Named["sum8"]),
		"crc16": {usage: `crc16("modbus", text)`, takes: []string{"tt"}, pure: true, build: buildCRC16},

		"unix": {usage: "unix()", takes: []string{""}, build: func(*compiler, fault, []Value) (Value, error) {
			return NumberOf(func(Input) (int, error) { return int(time.Now().Unix()), nil }), nil
		}},
		"utc": {usage: `utc("20060102150405")`, takes: []string{"t"}, build: buildUTC},
	}
}

// call compiles a call of a function.
func (c *compiler) call(name *ast.IdentifierNode, nodes []ast.Node) (Value, error) {
	f, ok := c.function(name.Value)
	if !ok {
		if _, ok := c.Variables[name.Value]; ok {
			return Value{}, c.at(name).errorf("%s isn't a function; allowed: %s without parentheses", name.Value, name.Value)
		}
		return Value{}, c.unknown(name)
	}
	args, letters := make([]Value, len(nodes)), ""
	for i, n := range nodes {
		v, err := c.node(n)
		if err != nil {
			return Value{}, err
		}
		args[i] = v
		letters += v.kind.letter()
	}
	if !slices.Contains(f.takes, letters) {
		// Point at the argument of the wrong type, if the number of arguments is right.
		for _, takes := range f.takes {
			if len(takes) != len(letters) {
				continue
			}
			for i := range takes {
				if takes[i] != letters[i] {
					return Value{}, c.at(nodes[i]).errorf("%v is in a place where %s takes something else; allowed: %s", args[i].kind, name.Value, f.usage)
				}
			}
		}
		return Value{}, c.at(name).errorf("%s has the wrong number of arguments; allowed: %s", name.Value, f.usage)
	}
	v, err := f.build(c, c.at(name), args)
	if err != nil || !f.pure {
		return v, err
	}
	return fold(v, args...)
}

// errMissing is the error of a function that needs bytes of a frame that haven't arrived yet.
var errMissing = errors.New("more bytes are needed")

// outside returns the error of a function that reads outside of the data.
func outside(f fault, call, of string, in Input) error {
	return f.errorf("%s is outside of the %s, which has %d bytes", call, of, len(in.Data))
}

// reads returns a function that reads a number from the data.
func reads(name string, size int, get func([]byte) int) function {
	return function{usage: name + "(i)", takes: []string{"n"}, partial: true, build: func(c *compiler, f fault, args []Value) (Value, error) {
		index, of, partial := args[0], c.Of, c.Partial
		read := func(in Input, i int) (int, error) {
			at, ok := in.place(i, size)
			if partial && (!ok || i < 0) {
				return 0, errMissing
			}
			if !ok {
				return 0, outside(f, fmt.Sprintf("%s(%d)", name, i), of, in)
			}
			return get(in.Data[at : at+size]), nil
		}
		if !index.constant {
			return NumberOf(func(in Input) (int, error) {
				i, err := index.number(in)
				if err != nil {
					return 0, err
				}
				return read(in, i)
			}), nil
		}
		i := index.n
		v := NumberOf(func(in Input) (int, error) { return read(in, i) })
		if size == 1 && i >= 0 && i < math.MaxInt {
			v.byteAt = i + 1
			v.number = func(in Input) (int, error) {
				if i < len(in.Data) {
					return int(in.Data[i]), nil
				}
				return read(in, i)
			}
		}
		return v, nil
	}}
}

// cuts returns a function that reads bytes from the data and pushes them. hex and bcd also take
// the bytes themselves instead of their place. change changes the bytes of the stack above a mark.
func cuts(name string, change func(in Input, mark int, f fault) error) function {
	cut := function{usage: name + "(i, n)", takes: []string{"nn"}}
	if name != "at" {
		cut.usage += " or " + name + "(text)"
		cut.takes = append(cut.takes, "t")
	}
	cut.build = func(c *compiler, f fault, args []Value) (Value, error) {
		of := c.Of
		if len(args) == 1 {
			v := TextOf(func(in Input) error {
				mark := len(in.stack)
				if err := args[0].text(in); err != nil {
					return err
				}
				if err := change(in, mark, f); err != nil {
					return err
				}
				return in.checkSize(f, of)
			})
			return fold(v, args[0])
		}
		return TextOf(func(in Input) error {
			i, err := args[0].number(in)
			if err != nil {
				return err
			}
			n, err := args[1].number(in)
			if err != nil {
				return err
			}
			at, ok := in.place(i, n)
			if !ok {
				return outside(f, fmt.Sprintf("%s(%d, %d)", name, i, n), of, in)
			}
			mark := len(in.stack)
			in.PushBytes(in.Data[at : at+n])
			if err := change(in, mark, f); err != nil {
				return err
			}
			return in.checkSize(f, of)
		}), nil
	}
	return cut
}

// toHex replaces bytes by their hexadecimal digits.
func toHex(in Input, mark int, _ fault) error {
	n := len(in.stack) - mark
	in.stack = slices.Grow(in.stack, n)[:mark+2*n]
	for i := n - 1; i >= 0; i-- {
		const digits = "0123456789abcdef"
		b := in.stack[mark+i]
		in.stack[mark+2*i], in.stack[mark+2*i+1] = digits[b>>4], digits[b&15]
	}
	return nil
}

// toDigits replaces bytes by the two decimal digits that each of them has.
func toDigits(in Input, mark int, f fault) error {
	for i, b := range in.stack[mark:] {
		if b>>4 > 9 || b&15 > 9 {
			return f.errorf("byte %d of bcd is 0x%02x, which isn't two decimal digits", i, b)
		}
	}
	return toHex(in, mark, f)
}

// writes returns a function that makes the bytes of a number.
func writes(name string, size int, put func([]byte, int) []byte) function {
	most := 1<<(8*size) - 1
	return function{usage: name + "(x)", takes: []string{"n"}, pure: true, build: func(_ *compiler, f fault, args []Value) (Value, error) {
		if size == 1 && args[0].counter {
			return Value{}, f.errorf("n goes up to 65535 and doesn't fit; allowed: w16(n), or %s(n %% 256)", name)
		}
		return TextOf(func(in Input) error {
			x, err := args[0].number(in)
			if err != nil {
				return err
			}
			if x < 0 || x > most {
				return f.errorf("%s(%d) doesn't fit; allowed: 0 to %d", name, x, most)
			}
			in.stack = put(in.stack, x)
			return nil
		}), nil
	}}
}

// changes returns a function that changes the bytes of a text. The text is on the stack above a
// mark.
func changes(name string, change func(in Input, mark int, f fault) error) function {
	return function{usage: name + "(text)", takes: []string{"t"}, pure: true, build: func(_ *compiler, f fault, args []Value) (Value, error) {
		return TextOf(func(in Input) error {
			mark := len(in.stack)
			if err := args[0].text(in); err != nil {
				return err
			}
			return change(in, mark, f)
		}), nil
	}}
}

// shownText is the number of bytes of a text that an error shows.
const shownText = 40

func fromHex(in Input, mark int, f fault) error {
	top := in.stack[mark:]
	if _, err := hex.Decode(top, top); err != nil {
		return f.errorf("unhex needs pairs of hexadecimal digits: %v", err)
	}
	in.stack = in.stack[:mark+len(top)/2]
	return nil
}

func upper(b []byte) {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c - 'A' + 'a'
		}
	}
}

func buildTrim(_ *compiler, f fault, args []Value) (Value, error) {
	set := " \t\r\n"
	if len(args) == 2 {
		// The time of a search grows with the product of both lengths.
		if !args[1].constant {
			return Value{}, f.errorf("the characters of trim must be a constant")
		}
		set = args[1].s
	}
	return TextOf(func(in Input) error {
		mark := len(in.stack)
		if err := args[0].text(in); err != nil {
			return err
		}
		top := in.stack[mark:]
		first := len(top) - len(bytes.TrimLeft(top, set))
		in.keep(mark, first, first+len(bytes.Trim(top, set)))
		return nil
	}), nil
}

func buildLen(_ *compiler, _ fault, args []Value) (Value, error) {
	return NumberOf(func(in Input) (int, error) {
		mark := len(in.stack)
		if err := args[0].text(in); err != nil {
			return 0, err
		}
		return len(in.pop(mark)), nil
	}), nil
}

// buildTimes returns a value that counts how often the second text occurs in the first one.
func buildTimes(_ *compiler, f fault, args []Value) (Value, error) {
	if !args[1].constant || args[1].s == "" {
		return Value{}, f.errorf("the second argument of times must be a constant that isn't empty")
	}
	part := []byte(args[1].s)
	return summing(args[0], func(b []byte) uint32 { return uint32(bytes.Count(b, part)) }), nil
}

func buildInt(_ *compiler, f fault, args []Value) (Value, error) {
	if args[0].kind == Number {
		return args[0], nil
	}
	return NumberOf(func(in Input) (int, error) {
		mark := len(in.stack)
		if err := args[0].text(in); err != nil {
			return 0, err
		}
		digits := in.pop(mark)
		n, err := strconv.Atoi(string(digits))
		if err != nil {
			return 0, f.errorf("int needs a decimal number and has %.*q", shownText, digits)
		}
		return n, nil
	}), nil
}

func buildString(_ *compiler, _ fault, args []Value) (Value, error) {
	if args[0].kind == Text {
		return args[0], nil
	}
	return TextOf(func(in Input) error {
		n, err := args[0].number(in)
		in.stack = strconv.AppendInt(in.stack, int64(n), 10)
		return err
	}), nil
}

// combines returns a function of two numbers.
func combines(name string, compute func(x, y int) int) function {
	return function{usage: name + "(x, y)", takes: []string{"nn"}, pure: true, partial: true, build: func(_ *compiler, _ fault, args []Value) (Value, error) {
		return combine(args[0], args[1], compute), nil
	}}
}

func buildUTC(_ *compiler, f fault, args []Value) (Value, error) {
	if !args[0].constant {
		return Value{}, f.errorf("the layout of utc must be a constant")
	}
	layout := args[0].s
	return TextOf(func(in Input) error {
		in.stack = time.Now().UTC().AppendFormat(in.stack, layout)
		return nil
	}), nil
}
