package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/codec/codectest"
)

// limit is the max of the configurations under test. The conformance suite reaches it quickly.
const limit = 300

// The framings of known protocols.
var (
	gt06 = Config{Max: limit, Kinds: []Kind{
		{Name: "short", Starts: `\x78\x78`, Length: &Length{Size: new(1), Add: 5}, Check: &Check{Type: "crc16-x25"}, Ends: `\r\n`},
		{Name: "long", Starts: `\x79\x79`, Length: &Length{Size: new(2), Add: 6}, Check: &Check{Type: "crc16-x25"}, Ends: `\r\n`},
	}}
	jt808 = Config{Max: limit, Kinds: []Kind{{
		Starts: `\x7e`, Ends: `\x7e`, Check: &Check{Type: "xor"}, Escape: map[string]string{`\x7e`: `\x7d\x02`, `\x7d`: `\x7d\x01`},
	}}}
	teltonika = Config{Max: limit, Kinds: []Kind{
		{Name: "hello", Only: "in", Starts: `\0\x0f`, Size: new(17)},
		{Name: "ping", Only: "in", Starts: `\xff`, Size: new(1)},
		{Name: "data", Starts: `\0\0\0\0`, Length: &Length{Size: new(4), Add: 12}, Check: &Check{Type: "crc16-ibm", Size: new(4), From: new(8)}},
	}}
	modbus = Config{Max: limit, Kinds: []Kind{
		{Name: "hello", Only: "in", Starts: "REG", Size: new(9)},
		{Name: "ping", Only: "in", Starts: "ping", Size: new(4)},
		{Name: "rtu", Only: "in", Length: &Length{Expr: `u8(1) > 0x80 ? 5 : u8(1) < 5 ? 5 + u8(2) : 8`}, Check: &Check{Type: "crc16-modbus", Little: true}},
		{Only: "out", Check: &Check{Type: "crc16-modbus", Little: true}},
	}}
	galileosky = Config{Max: limit, Kinds: []Kind{{
		Starts: `\x01`, Length: &Length{Size: new(2), Add: 5, Little: true, Mask: new(0x7fff)}, Check: &Check{Type: "crc16-modbus", Little: true, From: new(0)},
	}}}
	ruptela = Config{Max: limit, Kinds: []Kind{{Length: &Length{Size: new(2), Add: 4}, Check: &Check{Type: "crc16-kermit", From: new(2)}}}}
	dlt645  = Config{Max: limit, Kinds: []Kind{{
		Starts: `\x68`, Length: &Length{At: new(9), Size: new(1), Add: 12}, Check: &Check{Type: "sum8", From: new(0)}, Ends: `\x16`,
	}}}
	ykc = Config{Max: limit, Kinds: []Kind{{
		Starts: `\x68`, Length: &Length{Size: new(1), Add: 4}, Check: &Check{Type: "crc16-modbus", Little: true, From: new(2)},
	}}}
	hj212Text = Config{Max: limit, Kinds: []Kind{{
		Starts: "##", Length: &Length{Size: new(4), ASCII: true, Add: 12}, Check: &Check{Type: "crc16-hj212", ASCII: true, From: new(6)}, Ends: `\r\n`,
	}}}
	h02 = Config{Max: limit, Kinds: []Kind{
		{Name: "text", Starts: "*", Ends: "#"},
		{Name: "binary", Only: "in", Starts: "$", Size: new(45)},
	}}
)

func build(tb interface{ Fatal(...any) }, c Config) *framing {
	f, err := c.New()
	if err != nil {
		tb.Fatal(err)
	}
	return f.(*framing)
}

func TestConformance(t *testing.T) {
	escaped := []byte("\x7e\x7d\x7d\x02\x7d\x01\x7e")
	for _, tt := range []struct {
		name     string
		config   Config
		examples [][]byte
	}{
		{"gt06", gt06, [][]byte{[]byte("open"), {}, bytes.Repeat([]byte{'x'}, 251), bytes.Repeat([]byte("\r\n"), 130)}},
		{"jt808", jt808, [][]byte{[]byte("open"), {}, escaped, bytes.Repeat(escaped, 20)}},
		{"teltonika", teltonika, [][]byte{[]byte("\x0c\x01\x05"), {}, make([]byte, 200)}},
		{"galileosky", galileosky, [][]byte{[]byte("\x03open"), {}}},
		{"ruptela", ruptela, [][]byte{[]byte("\x03open"), {}}},
		{"dlt645", dlt645, [][]byte{[]byte("\x01\x02\x03\x04\x05\x06\x68\x11\x04\x33\x33\x34\x33"), []byte("\x01\x02\x03\x04\x05\x06\x68\x13\x00")}},
		{"ykc", ykc, [][]byte{[]byte("\x00\x00\x00\x01"), {}}},
		{"hj212", hj212Text, [][]byte{[]byte("QN=1;CP=&&&&"), {}}},
		{"h02", h02, [][]byte{[]byte("HQ,1"), {}}},
		{"ends", Config{Max: 64, Kinds: []Kind{{Ends: "aab"}}}, [][]byte{[]byte("open"), {}}},
		{"fixed", Config{Max: 64, Kinds: []Kind{{Starts: "(", Size: new(6), Ends: ")"}}}, [][]byte{[]byte("open")}},
		{"expression", Config{Max: 64, Kinds: []Kind{{Length: &Length{Expr: "u8(0) in [1, 2] ? 3 : 4"}}}}, [][]byte{[]byte("\x01xx"), []byte("open")}},
		{"resync", Config{Max: 64, Resync: true, Kinds: []Kind{{Starts: "((", Ends: ")"}}}, [][]byte{[]byte("open"), {}}},
		{"text check", Config{Max: 64, Kinds: []Kind{{Starts: "$", Ends: "\r\n", Check: &Check{Type: "xor", ASCII: true, Wrong: "drop"}}}}, [][]byte{[]byte("open")}},
		{"crc32", Config{Max: 64, Kinds: []Kind{{Length: &Length{Size: new(2), Add: -1}, Check: &Check{Type: "crc32", Little: true, Wrong: "accept"}}}}, [][]byte{[]byte("open"), {}}},
	} {
		t.Run(tt.name, func(t *testing.T) { codectest.Run(t, build(t, tt.config), tt.examples...) })
	}
}

func FuzzLength(f *testing.F) { codectest.Fuzz(f, build(f, gt06), []byte("open"), []byte("\r\n")) }
func FuzzEscapes(f *testing.F) {
	codectest.Fuzz(f, build(f, jt808), []byte("open"), []byte("\x7e\x7d"))
}

func FuzzResync(f *testing.F) {
	c := gt06
	c.Resync = true
	codectest.Fuzz(f, build(f, c), []byte("open"), []byte("\x78\x78"))
}

// frame is a whole frame in hexadecimal, with the payload that it has.
type frame struct{ hex, kind, payload string }

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// textFrame returns a frame whose payload is text.
func textFrame(kind, whole, payload string) frame {
	return frame{hex.EncodeToString([]byte(whole)), kind, hex.EncodeToString([]byte(payload))}
}

// protocols has frames of public manuals and of devices.
var protocols = []struct {
	name   string
	config Config
	frames []frame
	// sent is how many frames at the end of the list the host may send, too.
	sent int
}{
	{"gt06", gt06, []frame{
		{"7878 0d 01 0123456789012345 0001 8cdd 0d0a", "short", "01 0123456789012345 0001"},
		{"7878 05 01 0001 d9dc 0d0a", "short", "01 0001"},
	}, 2},
	{"jt808", jt808, []frame{
		{"7e 0002 0000 043048325465 00b7 ca 7e", "", "0002 0000 043048325465 00b7"},
		{"7e 30 7d02 08 7d01 55 6e 7e", "", "30 7e 08 7d 55"}, // the standard's example of escapes
		{"7e 00 7d02 7d02 7e", "", "00 7e"},                   // the check is escaped
	}, 3},
	{"teltonika", teltonika, []frame{
		{"ff", "ping", ""},
		{"000f 333536333037303432343431303133", "hello", "333536333037303432343431303133"},
		{"00000000 00000036 08010000016b40d8ea30010000000000000000000000000000000105021503010101425e0f01f10000601a014e000000000000000001 0000c7cf", "data",
			"08010000016b40d8ea30010000000000000000000000000000000105021503010101425e0f01f10000601a014e000000000000000001"},
		{"00000000 0000000f 0c010500000007676574696e666f01 00004312", "data", "0c010500000007676574696e666f01"},
	}, 2},
	{"modbus", modbus, []frame{
		{"524547 6474752d3137", "hello", "6474752d3137"},
		{"70696e67", "ping", ""},
		{"11 03 06 ae4156524340 49ad", "rtu", "11 03 06 ae4156524340"},
		{"11 06 00010003 9a9b", "rtu", "11 06 00010003"},
		{"0a 81 02 b053", "rtu", "0a 81 02"},
	}, 0},
	{"galileosky", galileosky, []frame{
		{"01 1380 03 383638323034303031353439303837 04 3200 8590", "", "03 383638323034303031353439303837 04 3200"},
	}, 0}, // the bit outside of the mask is set
	{"ruptela", ruptela, []frame{
		{"002e 000315bc70d3e2ff 0f 4f42443130302e30312e30382e30300000c2b30ea77e430000601b000001f40000003c0014 4aa0", "",
			"000315bc70d3e2ff 0f 4f42443130302e30312e30382e30300000c2b30ea77e430000601b000001f40000003c0014"},
	}, 1},
	{"dlt645", dlt645, []frame{
		{"68 aaaaaaaaaaaa 68 13 00 df 16", "", "aaaaaaaaaaaa 68 13 00"},
	}, 1},
	{"ykc", ykc, []frame{ // the manual's example, with a check that fits
		{"68 22 0000 00 01 55031412782305 00 02 0f 56342e312e353000 01 01010101010101010101 04 0f32", "",
			"0000 00 01 55031412782305 00 02 0f 56342e312e353000 01 01010101010101010101 04"},
	}, 1},
	{"hj212", hj212Text, []frame{
		textFrame("", "##0101QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&1C80\r\n",
			"QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&"),
	}, 1},
	{"h02", h02, []frame{
		{"24 410600082621532131081504419390060740418306000000fffffbfdff0015060000002c02dc0c000000001f", "binary",
			"410600082621532131081504419390060740418306000000fffffbfdff0015060000002c02dc0c000000001f"},
		textFrame("text", "*HQ,355488020113911,V1,012945,A,5231.79283,N,01324.01718,E,0.05,0,170217,FFFFFFFF#",
			"HQ,355488020113911,V1,012945,A,5231.79283,N,01324.01718,E,0.05,0,170217,FFFFFFFF"),
	}, 1},
}

// read passes the pieces of a stream to the framing, as a connection does. It returns the frames
// with their kinds, and the error that ends the stream.
func read(tb interface{ Fatal(...any) }, f *framing, pieces ...[]byte) (got []frame, err error) {
	var buffer []byte
	seen := 0
	for _, piece := range pieces {
		buffer = append(buffer, piece...)
		for len(buffer) > 0 {
			advance, payload, kind, err := f.SplitKind(buffer, seen)
			if err != nil {
				if !errors.Is(err, codec.ErrFrame) {
					tb.Fatal(err)
				}
				return got, err
			}
			if advance == 0 {
				break
			}
			if payload != nil {
				got = append(got, frame{kind: kind, payload: hex.EncodeToString(payload)})
			}
			buffer, seen = buffer[advance:], 0
		}
		seen = len(buffer)
	}
	return got, nil
}

// readAllWays reads a stream with each cut into two pieces, and byte by byte. The results must be
// the same.
func readAllWays(t *testing.T, f *framing, stream []byte) ([]frame, error) {
	t.Helper()
	whole, err := read(t, f, bytes.Clone(stream))
	compare := func(how string, pieces ...[]byte) {
		got, cutErr := read(t, f, pieces...)
		if diff := cmp.Diff(whole, got, cmp.AllowUnexported(frame{})); diff != "" || (err == nil) != (cutErr == nil) {
			t.Errorf("%s: %v, not %v %s", how, cutErr, err, diff)
		}
	}
	for i := range stream {
		compare("cut in two", bytes.Clone(stream[:i]), bytes.Clone(stream[i:]))
	}
	compare("byte by byte", slices.Collect(slices.Chunk(bytes.Clone(stream), 1))...)
	return whole, err
}

func TestProtocols(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			f := build(t, p.config)
			var stream []byte
			var want []frame
			for i, fr := range p.frames {
				whole, payload := unhex(t, fr.hex), unhex(t, fr.payload)
				stream = append(stream, whole...)
				want = append(want, frame{kind: fr.kind, payload: hex.EncodeToString(payload)})
				if i < len(p.frames)-p.sent {
					continue
				}
				if got, err := f.Append(nil, payload); err != nil || !bytes.Equal(got, whole) {
					t.Errorf("the frame of % x is % x, %v; want % x", payload, got, err, whole)
				}
			}
			got, err := readAllWays(t, f, stream)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(frame{})); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestCommandsOnlySent(t *testing.T) {
	got, err := build(t, modbus).Append(nil, unhex(t, "11 03 006b 0003"))
	if want := unhex(t, "11 03 006b 0003 7687"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("% x, %v; want % x", got, err, want)
	}
}
