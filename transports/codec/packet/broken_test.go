package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports/codec"
)

// texts returns the payloads of frames as text, separated by commas.
func texts(t *testing.T, frames []frame) string {
	t.Helper()
	var all []string
	for _, f := range frames {
		all = append(all, string(unhex(t, f.payload)))
	}
	return strings.Join(all, ",")
}

// lines has frames such as $1:payload*50CRLF, with a length and an xor.
func lines(wrong string, resync bool) Config {
	return Config{Max: 40, Resync: resync, Kinds: []Kind{{
		Starts: "$", Length: &Length{Size: new(2), ASCII: true, Add: 7}, Check: &Check{Type: "xor", ASCII: true, Wrong: wrong}, Ends: "\r\n",
	}}}
}

func TestWhatDoesNotFit(t *testing.T) {
	const one, two, wrong = "$03one67\r\n", "$03two6F\r\n", "$03bad00\r\n"
	for _, tt := range []struct {
		name, wrong string
		resync      bool
		stream      string
		want        string
		err         string
	}{
		{"right", "close", false, one + two, "one,two", ""},
		{"wrong check, close", "close", false, one + wrong + two, "one", "has the check 30 30; expected: 64"},
		{"wrong check, close and resync", "close", true, one + wrong + two, "one", "has the check"},
		{"wrong check, drop", "drop", false, one + wrong + two, "one,two", ""},
		{"wrong check, accept", "accept", false, one + wrong + two, "one,bad,two", ""},
		{"check isn't a number", "drop", false, "$03badxx\r\n" + two, "two", ""},
		{"garbage", "close", false, one + "xy" + two, "one", "no kind of frame starts with 78 79"},
		{"garbage, resync", "close", true, "xy" + one + "xy$zz$" + two + "x", "one,two", ""},
		{"length too large", "close", false, "$99" + one, "", "a frame of 106 bytes; allowed: from 7 to 40"},
		{"length too large, resync", "close", true, "$99" + one, "one", ""},
		{"length isn't a number", "close", false, "$0x" + one, "", `is "0x", which isn't a number`},
		{"end elsewhere", "close", false, "$04one67\r\n" + two, "", "a frame of 11 bytes doesn't end with 0d 0a"},
		{"end elsewhere, resync", "close", true, "$04one67\r\n" + two, "two", ""},
		{"end elsewhere, resync to a start inside", "close", true, "$05" + two + one, "two,one", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAllWays(t, build(t, lines(tt.wrong, tt.resync)), []byte(tt.stream))
			if texts(t, got) != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %q", texts(t, got), err, tt.want, tt.err)
			}
		})
	}
}

func TestLengthsThatLie(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		stream string
	}{
		{"0", gt06, "7878 00"},
		{"less than the parts", gt06, "7979 0001"},
		{"over the limit", gt06, "7979 ffff"},
		{"4 bytes, largest", teltonika, "00000000 ffffffff"},
		{"negative", Config{Max: 64, Kinds: []Kind{{Length: &Length{Size: new(1), Add: -10}}}}, "05"},
		{"expression, 0", Config{Max: 64, Kinds: []Kind{{Length: &Length{Expr: "u8(0)"}}}}, "00"},
		{"expression, negative", Config{Max: 64, Kinds: []Kind{{Length: &Length{Expr: "-u32(0)"}}}}, "ffffffff"},
		{"expression, huge", Config{Max: 64, Kinds: []Kind{{Length: &Length{Expr: "u32(0) * u32(0) * u32(0)"}}}}, "ffffffff"},
		{"empty escaped frame", jt808, "7e7e"},
		{"escaped frame shorter than its check", Config{Max: 64, Kinds: []Kind{{
			Starts: "(", Ends: ")", Check: &Check{Type: "crc16-ibm"}, Escape: map[string]string{"a": "ab"},
		}}}, hex.EncodeToString([]byte("(ab)"))},
	} {
		if advance, payload, err := build(t, tt.config).Split(unhex(t, tt.stream), 0); !errors.Is(err, codec.ErrFrame) {
			t.Errorf("%s: Split gave %d, % x, %v; want an error at once", tt.name, advance, payload, err)
		}
	}
}

// An expression may read a byte that never comes. The stream must end at the limit.
func TestExpressionBeyondTheLimit(t *testing.T) {
	f := build(t, Config{Max: 8, Kinds: []Kind{{Length: &Length{Expr: "u8(20)"}}}})
	if advance, _, err := f.Split(make([]byte, 7), 0); advance != 0 || err != nil {
		t.Errorf("7 bytes: %d, %v", advance, err)
	}
	for _, n := range []int{8, 30} {
		if _, _, err := f.Split(make([]byte, n), 0); !errors.Is(err, codec.ErrFrame) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// A frame without an end costs linear time: Split reads no byte twice, except the last bytes,
// which may be the beginning of an end. To show that, this test changes the bytes that were seen
// into ends.
func TestFrameWithoutEndIsReadOnce(t *testing.T) {
	const size, piece = 1 << 20, 4096
	f := build(t, Config{Max: size, Kinds: []Kind{{Starts: "(", Ends: "))"}}})
	data := bytes.Repeat([]byte("x"), size)
	data[0] = '('
	seen := 0
	for n := piece; n < size; n += piece {
		for i := 1; i < seen-1; i++ {
			data[i] = ')'
		}
		if advance, _, err := f.Split(data[:n], seen); advance != 0 || err != nil {
			t.Fatalf("with %d bytes: advance %d, %v", n, advance, err)
		}
		seen = n
	}
	if _, _, err := f.Split(data, seen); !errors.Is(err, codec.ErrFrame) {
		t.Fatal(err)
	}
}

// Split may need several bytes to choose a kind. Then the end of the frame may be among the bytes
// that were seen before.
func TestEndBeforeTheKindIsClear(t *testing.T) {
	f := build(t, Config{Max: 64, Kinds: []Kind{{Starts: "a#bcd", Size: new(6)}, {Only: "in", Starts: "a", Ends: "#"}}})
	if advance, payload, err := f.Split([]byte("a#x"), 2); advance != 2 || payload == nil || err != nil {
		t.Errorf("%d, %q, %v", advance, payload, err)
	}
}

func TestKindOfCommands(t *testing.T) {
	f := build(t, gt06)
	for _, tt := range []struct {
		size  int
		start string
	}{{0, "7878 02"}, {253, "7878 ff"}, {254, "7979 0100"}} {
		got, err := f.Append(nil, make([]byte, tt.size))
		if want := unhex(t, tt.start); err != nil || !bytes.HasPrefix(got, want) {
			t.Errorf("%d bytes: % x, %v; want % x", tt.size, got[:min(len(got), 4)], err, want)
		}
	}
}

func TestRefusedCommands(t *testing.T) {
	for _, tt := range []struct {
		config  Config
		payload string
		err     string
	}{
		{gt06, strings.Repeat("x", limit), "a frame of kind \"long\" of 308 bytes; allowed: from 8 to 300"},
		{jt808, strings.Repeat("\x7e", 200), "with its escapes; allowed: up to 300"},
		{h02, "a#b", "a reader would end the frame of kind \"text\" after 3 of its 5 bytes"},
		{dlt645, "\x01\x02\x03\x04\x05\x06\x68\x13\x01", "a reader of the frame would wait for more than its 12 bytes"},
		{dlt645, "\x01\x02", "allowed: from 12 to"},
		{modbus, strings.Repeat("x", limit), "allowed: from 2 to 300"},
		{Config{Max: 8, Kinds: []Kind{{Only: "in", Size: new(4)}}}, "open", "no kind of frame may be sent"},
		{Config{Max: 8, Kinds: []Kind{{Only: "in", Starts: "aa", Size: new(2)}, {Starts: "a", Ends: "#"}}}, "ab", "a reader would take the frame for one"},
	} {
		got, err := build(t, tt.config).Append([]byte("x"), []byte(tt.payload))
		if !errors.Is(err, codec.ErrPayload) || !strings.Contains(err.Error(), tt.err) || string(got) != "x" {
			t.Errorf("%q: %q, %v; want %q", tt.payload, got, err, tt.err)
		}
	}
}

func TestSplitAllocatesNothing(t *testing.T) {
	for _, p := range protocols {
		f := build(t, p.config)
		var stream []byte
		for _, fr := range p.frames {
			stream = append(stream, unhex(t, fr.hex)...)
		}
		data := make([]byte, len(stream))
		allocations := testing.AllocsPerRun(100, func() {
			copy(data, stream)
			for rest := data; len(rest) > 0; {
				advance, _, _, err := f.SplitKind(rest, 0)
				if err != nil || advance == 0 {
					panic(fmt.Sprintf("%s: %d, %v", p.name, advance, err))
				}
				rest = rest[advance:]
			}
		})
		if allocations > 0 {
			t.Errorf("%s: %v allocations", p.name, allocations)
		}
	}
}

func TestValidate(t *testing.T) {
	sized := func(k Kind) Kind {
		k.Size = new(20)
		return k
	}
	for _, tt := range []struct {
		config Config
		want   []string
	}{
		{Config{}, []string{"max: 0 is not at least 1", "kinds: devices can't send anything"}},
		{Config{Kinds: []Kind{{Only: "both"}}}, []string{`kinds[0].only: "both" is neither in nor out`}},
		{Config{Kinds: []Kind{{Starts: `\x7`, Size: new(4)}, {Only: "in", Ends: `\q`}}}, []string{
			`kinds[0].starts: \x needs two hexadecimal digits`, `kinds[1].ends: \q is not an escape`,
		}},
		{Config{Kinds: []Kind{{Starts: "a"}}}, []string{"kinds[0]: nothing says where a frame ends; set size, length or ends"}},
		{Config{Kinds: []Kind{{Only: "out", Starts: "a"}}}, []string{"kinds: devices can't send anything"}},
		{Config{Kinds: []Kind{sized(Kind{Length: &Length{Size: new(1)}})}}, []string{"kinds[0].length: size already says"}},
		{Config{Kinds: []Kind{{Size: new(200)}}}, []string{"kinds[0]: the smallest frame has 200 bytes, and max is 100"}},
		{Config{Kinds: []Kind{{Size: new(3), Starts: "aa", Ends: "bb"}}}, []string{"kinds[0].size: 3 is too small; the parts of a frame have 4 bytes"}},
		{Config{Kinds: []Kind{{Only: "in", Starts: "a", Size: new(4)}, {Starts: "ab", Size: new(5)}}}, []string{
			"kinds[0].starts: all frames of kinds[1] start like this, too; put kinds[1] first",
		}},
		{Config{Kinds: []Kind{{Only: "in", Size: new(4)}, {Starts: "ab", Size: new(5)}}}, []string{"kinds[0].starts: all frames of kinds[1]"}},
		{Config{Kinds: []Kind{{Starts: "a", Size: new(4)}, {Starts: "b", Size: new(5)}}}, []string{"kinds[1]: a command could also be a frame of kinds[0]"}},
		{Config{Kinds: []Kind{{Starts: "a", Length: &Length{Size: new(2)}}, {Starts: "b", Length: &Length{Size: new(1)}}}}, []string{"kinds[1]: a command could also be"}},
		{Config{Kinds: []Kind{{Starts: "a", Size: new(4)}, {Only: "out"}}}, []string{"kinds[1]: a command could also be a frame of kinds[0]"}},
		{Config{Resync: true, Kinds: []Kind{{Size: new(4)}}}, []string{"resync: kinds[0] has no starts"}},
		{Config{Kinds: []Kind{{Starts: "ab", Length: &Length{At: new(1), Size: new(2)}}}}, []string{"kinds[0].length.at: 1 is inside the start, which has 2 bytes"}},
		{Config{Kinds: []Kind{{Length: &Length{}}}}, []string{"kinds[0].length.size: 0 is not from 1 to 4"}},
		{Config{Kinds: []Kind{{Length: &Length{Size: new(5)}}}}, []string{"kinds[0].length.size: 5 is not from 1 to 4"}},
		{Config{Kinds: []Kind{{Length: &Length{Size: new(9), ASCII: true, Little: true}}}}, []string{"kinds[0].length.size: 9 is not from 1 to 8", "kinds[0].length.ascii: a text has neither"}},
		{Config{Kinds: []Kind{{Length: &Length{Size: new(1), Mask: new(0x1ff)}}}}, []string{"kinds[0].length.mask: 0x1ff is not from 1 to 0xff"}},
		{Config{Kinds: []Kind{{Length: &Length{Size: new(1), Expr: "u8(0)"}}}}, []string{"kinds[0].length.expr: computes the size of the frame; remove"}},
		{Config{Kinds: []Kind{{Length: &Length{Expr: "u8(0) + x"}}}}, []string{"kinds[0].length.expr: unknown name x; allowed: bitand, ", "u8(0) + x\n"}},
		{Config{Kinds: []Kind{sized(Kind{Check: &Check{Type: "crc99"}})}}, []string{`kinds[0].check.type: "crc99" is not known; allowed: crc16-ccitt-false, `}},
		{Config{Kinds: []Kind{sized(Kind{Check: &Check{Type: "crc32", Size: new(2)}})}}, []string{"kinds[0].check.size: 2 is not from 4 to 4"}},
		{Config{Kinds: []Kind{sized(Kind{Check: &Check{Type: "xor", Size: new(1), ASCII: true, Little: true, Wrong: "ignore"}})}}, []string{
			"kinds[0].check.size: 1 is not from 2 to 8", "kinds[0].check.ascii: a text has no little", `kinds[0].check.wrong: "ignore" is not close, drop or accept`,
		}},
		{Config{Kinds: []Kind{sized(Kind{Check: &Check{Type: "xor", From: new(20)}})}}, []string{"kinds[0].check.from: 20 is outside of the smallest frame, whose check is at byte 19"}},
		{Config{Kinds: []Kind{sized(Kind{Escape: map[string]string{"a": "ab"}})}}, []string{"kinds[0].escape: needs ends, and neither size nor length"}},
		{Config{Kinds: []Kind{{Ends: "z", Escape: map[string]string{"a": "ab", "c": "abc", "de": "aa", "f": "xy", "g": "ab", "h": "az"}}}}, []string{
			"kinds[0].escape.c: the replacement has 3 bytes", "kinds[0].escape.de: only single bytes", `kinds[0].escape.f: all replacements must begin with the same byte`,
			`kinds[0].escape.g: \x61 has the same replacement`, "kinds[0].escape.h: the replacement contains a byte of ends",
		}},
		{Config{Kinds: []Kind{{Ends: "z", Escape: map[string]string{"b": "ab"}}}}, []string{`kinds[0].escape: \x61 begins the replacements`}},
	} {
		if len(tt.want) > 0 && tt.config.Kinds != nil {
			tt.config.Max = 100
		}
		err := tt.config.Validate()
		if err == nil {
			t.Errorf("%+v is valid; want %q", tt.config, tt.want)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains("\n"+err.Error(), "\n"+want) && !strings.Contains(want, "\n") || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v; want %q", tt.config, err, want)
			}
		}
		if n := strings.Count("\n"+err.Error(), "\nkinds[") + strings.Count("\n"+err.Error(), "\nresync"); n > len(tt.want) {
			t.Errorf("%+v: %d problems; want %d: %v", tt.config, n, len(tt.want), err)
		}
	}
}

// Split removes the escapes in place. It doesn't change the bytes after the frame.
func TestUnescapingLeavesTheRest(t *testing.T) {
	f := build(t, jt808)
	stream := unhex(t, "7e 30 7d02 08 7d01 55 6e 7e 7e 30 7d02")
	data := bytes.Clone(stream)
	advance, _, err := f.Split(data, 0)
	if err != nil || advance != 10 {
		t.Fatal(advance, err)
	}
	if diff := cmp.Diff(stream[advance:], data[advance:]); diff != "" {
		t.Error(diff)
	}
}
