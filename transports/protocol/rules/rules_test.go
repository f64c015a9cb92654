package rules

import (
	"errors"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/codec/delimiter"
	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/protocol/protocoltest"
)

func gps103() *Config {
	return &Config{
		Framing: &delimiter.Config{Delimiter: ";", Max: 1024},
		Command: `"**,imei:" + device + "," + cmd`,
		Rules: []Rule{
			sign(Rule{Match: `##,imei:(?P<device>\d{15}),A`, RespondRaw: `"LOAD"`}),
			sign(Rule{Match: `^\s*(?P<device>\d{15})$`, RespondRaw: `"ON"`}),
			with(Rule{Match: `^\s*imei:(?P<device>\d{15}),(?P<type>[^,]*)`}),
		},
	}
}

var gps103Examples = []protocoltest.Example{{
	Name:     "login, position and heartbeat",
	Commands: []protocoltest.Command{{Device: "359586015829802", Payload: "B", Wire: "**,imei:359586015829802,B;"}},
	Stream:   "##,imei:359586015829802,A;\r\nimei:359586015829802,tracker,000000000,13554900601,L,;359586015829802;",
	Frames: []protocoltest.Frame{
		{Device: "359586015829802", Response: "LOAD", Answers: protocol.No, NoData: true},
		{Device: "359586015829802", Kind: "tracker"},
		{Device: "359586015829802", Response: "ON", Answers: protocol.No, NoData: true},
	},
}, {
	Name:   "a frame of another protocol",
	Stream: "GET / HTTP/1.1;",
	Error:  `stream cannot be framed: no rule fits the frame "GET / HTTP/1.1"`,
}}

func gt06() *Config {
	return &Config{
		Framing: framing{gt06Frames{}},
		Command: `w8(0x80) + w8(4+len(cmd)) + w32(n) + cmd + w16(2) + w16(n)`,
		Asks:    `string(n)`,
		Rules: []Rule{
			sign(Rule{When: `u8(0) == 1`, Device: `hex(1,8)[1:]`, Respond: `w8(1) + at(-2,2)`}),
			sign(Rule{When: `u8(0) in [0x13, 0x23]`, Respond: `at(0,1) + at(-2,2)`}),
			with(Rule{When: `u8(0) in [0x15, 0x21]`, Answers: `string(u32(u8(0) == 0x15 ? 2 : 1))`}),
			with(Rule{}),
		},
	}
}

const (
	// Published frames of the protocol GT06.
	gt06Login     = "78 78 0D 01 01 23 45 67 89 01 23 45 00 01 8C DD 0D 0A"
	gt06Heartbeat = "78 78 0A 13 44 01 04 00 01 00 05 08 45 0D 0A"
	gt06Position  = "78 78 1F 12 0B 08 1D 11 2E 10 CF 02 7A C7 EB 0C 46 58 49 00 14 8F 01 CC 00 28 7D 00 1F B8 00 03 80 81 0D 0A"
)

func framed(tb testing.TB, payload string) string {
	tb.Helper()
	frame, err := gt06Frames{}.Append(nil, []byte(unhexed(payload)))
	if err != nil {
		tb.Fatal(err)
	}
	return string(frame)
}

func gt06Examples(tb testing.TB) []protocoltest.Example {
	command := framed(tb, "80 0A 00000001 524553455423 0002 0001")
	return []protocoltest.Example{{
		Name:     "login, heartbeat, position and answer",
		Commands: []protocoltest.Command{{Device: "123456789012345", Payload: "RESET#", Wire: command, Key: "1"}},
		Stream:   unhexed(gt06Login) + unhexed(gt06Heartbeat) + unhexed(gt06Position) + framed(tb, "15 06 00000001 4F4B 0002 0005"),
		Frames: []protocoltest.Frame{
			{Device: "123456789012345", Response: unhexed("78 78 05 01 00 01 D9 DC 0D 0A"), Answers: protocol.No, NoData: true},
			{Response: framed(tb, "13 0005"), Answers: protocol.No, NoData: true},
			{},
			{Answers: protocol.Yes, Key: "1"},
		},
	}, {
		Name:     "commands are numbered, and a long one is rejected",
		Commands: []protocoltest.Command{{Payload: "A", Wire: framed(tb, "80 05 00000001 41 0002 0001"), Key: "1"}, {Payload: strings.Repeat("x", 252), Error: "payload cannot be a frame: command: w8(256) doesn't fit; allowed: 0 to 255 (column 12 of"}},
		Stream:   unhexed(gt06Login)[:12],
	}, {
		Name:   "a frame that is too short for its rule",
		Stream: framed(tb, "01 0123"),
		Error:  "rules[0].device: hex(1, 8) is outside of the frame, which has 3 bytes (column 1 of hex(1,8)[1:])",
	}}
}

func modbus() *Config {
	return &Config{
		Framing: kindFraming{dtuFrames{}},
		Command: `w8(int(unit)) + cmd`,
		Asks:    `hex(0,1) + string(u8(1))`,
		Rules: []Rule{
			sign(Rule{Kind: "hello", Device: `at(3, size-3)`}),
			sign(Rule{Kind: "ping"}),
			with(Rule{Unit: `string(u8(0))`, Answers: `hex(0,1) + string(u8(1) % 128)`}),
		},
	}
}

var modbusExamples = []protocoltest.Example{{
	Name: "registration, heartbeat, answer and exception",
	Commands: []protocoltest.Command{
		{Device: "dtu-17", Unit: "1", Payload: unhexed("03 0000 000A"), Wire: unhexed("01 03 00 00 00 0A C5 CD"), Key: "013"},
		{Device: "dtu-17", Unit: "17", Payload: unhexed("06 0001 0003"), Wire: unhexed("11 06 00 01 00 03 9A 9B"), Key: "116"},
		{Device: "dtu-17", Payload: "x", Error: `payload cannot be a frame: command: int needs a decimal number and has "" (column 4 of w8(int(unit)) + cmd)`},
		{Device: "dtu-17", Unit: "300", Payload: "x", Error: "w8(300) doesn't fit"},
	},
	Stream: "REGdtu-17ping" + unhexed("01 03 02 00 2A") + modbusCheck("01 03 02 00 2A") + unhexed("11 86 02") + modbusCheck("11 86 02"),
	Frames: []protocoltest.Frame{
		{Device: "dtu-17", Answers: protocol.No, NoData: true},
		{Answers: protocol.No, NoData: true},
		{Unit: "1", Answers: protocol.Yes, Key: "013"},
		{Unit: "17", Answers: protocol.Yes, Key: "116"},
	},
}}

func modbusCheck(digits string) string {
	frame, err := dtuFrames{}.Append(nil, []byte(unhexed(digits)))
	if err != nil {
		panic(err)
	}
	return string(frame[len(frame)-2:])
}

// A Teltonika device sends its IMEI after a length, and then records. Here the IMEI and the
// records are different kinds of frames.
func teltonika() *Config {
	return &Config{
		Framing: kindFraming{teltonikaFrames{}},
		Rules: []Rule{
			sign(Rule{Kind: "imei", Device: `text`, RespondRaw: `w8(1)`}),
			with(Rule{When: `u8(0) in [8, 0x8E]`, RespondRaw: `w32(u8(1))`, After: "confirmed"}),
		},
	}
}

type teltonikaFrames struct{ gt06Frames }

func (teltonikaFrames) SplitKind(data []byte, _ int) (int, []byte, string, error) {
	switch {
	case len(data) < 4:
		return 0, nil, "", nil
	case data[0] == 0 && data[1] != 0:
		if n := 2 + int(data[1]); len(data) >= n {
			return n, data[2:n], "imei", nil
		}
	case len(data) >= 8:
		if n := 12 + int(data[7]); len(data) >= n {
			return n, data[8 : n-4], "records", nil
		}
	}
	return 0, nil, "", nil
}

var teltonikaExamples = []protocoltest.Example{{
	// The example of the manual "Teltonika Data Sending Protocols".
	Name: "login and records",
	Stream: unhexed("000F 333536333037303432343431303133") +
		unhexed("0000000000000036 08 01 0000016B40D8EA30010000000000000000000000000000000105021503010101425E0F01F10000601A014E0000000000000000 01 0000C7CF"),
	Frames: []protocoltest.Frame{
		{Device: "356307042441013", Response: "\x01", Answers: protocol.No, NoData: true},
		{Response: "\x00\x00\x00\x01", Confirmed: true},
	},
}}

func TestConformance(t *testing.T) {
	t.Run("gps103", func(t *testing.T) { protocoltest.Run(t, build(t, gps103()), gps103Examples...) })
	t.Run("gt06", func(t *testing.T) { protocoltest.Run(t, build(t, gt06()), gt06Examples(t)...) })
	t.Run("modbus", func(t *testing.T) { protocoltest.Run(t, build(t, modbus()), modbusExamples...) })
	t.Run("teltonika", func(t *testing.T) { protocoltest.Run(t, build(t, teltonika()), teltonikaExamples...) })
}

func FuzzGPS103(f *testing.F) { protocoltest.Fuzz(f, build(f, gps103()), gps103Examples...) }

func FuzzModbus(f *testing.F) { protocoltest.Fuzz(f, build(f, modbus()), modbusExamples...) }

// No frame makes Decode panic, however short it is.
func FuzzDecode(f *testing.F) {
	var all []protocol.Protocol
	for _, c := range []*Config{gps103(), gt06(), modbus(), teltonika()} {
		all = append(all, build(f, c))
	}
	for _, frame := range []string{"", "\x01", unhexed(gt06Login)[3:], "##,imei:359586015829802,A", "REGdtu-17"} {
		f.Add([]byte(frame), "rtu")
	}
	f.Fuzz(func(t *testing.T, frame []byte, kind string) {
		for _, p := range all {
			s, v := protocol.State{FrameKind: kind, Device: "before"}, protocol.Verdict{}
			if err := p.Decode(&s, frame, &v); err != nil && !errors.Is(err, codec.ErrFrame) {
				t.Fatal(err)
			}
			device, response := strings.Clone(v.Device), string(v.Response)
			clear(frame)
			if v.Device != device || string(v.Response) != response {
				t.Fatal("the verdict refers to the frame")
			}
		}
	})
}

// A token is that of a group or of an expression.
func TestTokens(t *testing.T) {
	c := &Config{Framing: &delimiter.Config{Delimiter: ";", Max: 1024}, Rules: []Rule{
		sign(Rule{Match: `^login (?P<device>\w+) (?P<token>\w*)$`}),
		with(Rule{When: `text startsWith "key"`, Token: `at(3, 2)`}),
		with(Rule{}),
	}}
	p, err := c.compile()
	if err != nil {
		t.Fatal(err)
	}
	if !p.HasTokens() {
		t.Error("the protocol doesn't say that it has tokens")
	}
	protocoltest.Run(t, p, protocoltest.Example{
		Name: "tokens", Stream: "login d k1;login d ;keyABC;data;",
		Frames: []protocoltest.Frame{
			{Device: "d", Token: "k1", NoData: true, Answers: protocol.No}, {Device: "d", NoData: true, Answers: protocol.No},
			{Token: "AB"}, {},
		},
	})
	if p, err := gps103().compile(); err != nil || p.HasTokens() {
		t.Errorf("gps103 has tokens: %v", err)
	}
}
