package jt808

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/protocol/protocoltest"
)

// unhexed returns the bytes of hexadecimal digits. Spaces are ignored.
func unhexed(digits string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func build(t testing.TB, change func(*Config)) protocol.Protocol {
	t.Helper()
	c := defaults
	if change != nil {
		change(&c)
	}
	p, err := c.Protocol()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// framed returns the frame of a message without its check.
func framed(message string) string {
	out, err := appendFrame(nil, []byte(message))
	if err != nil {
		panic(err)
	}
	return string(out)
}

// Frames of public documents and programs.
var (
	register2013 = unhexed("7E0100002D000123456789000A002800323132333430736D616C6C6368693132333030303030303030304348493132333001D4C1413132333435BA7E")
	register2019 = unhexed("7e0100405301000000000172998417380000001f0073797a6800000000000000007777772e6a74743830382e636f6d0000000000000000000000000000000037363534333231000000000000000000000000000000000000000000000001b2e241313233343d7e")
	location2019 = unhexed("7e02004026010000000001391234432900000000006f0000001601dc9a0707456246007b004200032501292233440202006401040000000c417e")
	locationBody = unhexed("0000006f0000001601dc9a0707456246007b00420003250129223344020200640104 0000000c")
)

var examples = []protocoltest.Example{{
	Name:  "a terminal of 2013",
	Login: register2013 + framed(unhexed("0102 0009 000123456789 000b")+"123456789"),
	Commands: []protocoltest.Command{
		{Payload: unhexed("8201"), Wire: unhexed("7e 8201 0000 000123456789 0002 08 7e"), Key: "2"},
		{Payload: unhexed("8105 04"), Wire: framed(unhexed("8105 0001 000123456789 0003 04")), Key: "3"},
		{Payload: unhexed("8300 7e7d"), Wire: unhexed("7e 8300 0002 000123456789 0004 7d02 7d01 0f 7e"), Key: "4"},
		{Payload: unhexed("8107"), Wire: framed(unhexed("8107 0000 000123456789 0005")), Key: "5"},
		{Payload: "1", Error: "the id of a message"},
		{Payload: "12" + strings.Repeat("x", 1024), Error: "this one has 1026 bytes"},
	},
	Stream: framed(unhexed("0002 0000 000123456789 000c")) +
		framed(unhexed("0001 0005 000123456789 000d 0003 8105 00")) +
		framed(unhexed("0201 0028 000123456789 000e 0002")+locationBody) +
		framed(unhexed("0107 0002 000123456789 000f 7e7d")) +
		framed(unhexed("0200 0026 000123456789 0010")+locationBody) +
		framed(unhexed("0003 0000 000123456789 0011")) +
		framed(unhexed("0801 0006 000123456789 0012 000000070000")),
	Frames: []protocoltest.Frame{
		{Device: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8100 000c 000123456789 0000 000a 00") + "123456789")},
		{Device: "123456789", Token: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0001 000b 0102 00"))},
		{Device: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0006 000c 0002 00"))},
		{Device: "123456789", Kind: "0001", Payload: unhexed("0001 0003 8105 00"), Answers: protocol.Yes, Key: "3"},
		{Device: "123456789", Kind: "0201", Payload: unhexed("0201 0002") + locationBody, Answers: protocol.Yes, Key: "2"},
		{Device: "123456789", Kind: "0107", Payload: unhexed("0107 7e7d"), Answers: protocol.Yes, Key: "5"},
		{Device: "123456789", Kind: "0200", Payload: unhexed("0200") + locationBody, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0007 0010 0200 00"))},
		{Device: "123456789", Kind: "0003", Payload: unhexed("0003"), Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0008 0011 0003 00"))},
		{Device: "123456789", Kind: "0801", Payload: unhexed("0801 000000070000"), Answers: protocol.No, Response: framed(unhexed("8800 0004 000123456789 0009 00000007"))},
	},
}, {
	Name:   "terminals of 2019",
	Stream: register2019 + location2019,
	Frames: []protocoltest.Frame{
		{Device: "17299841738", NoData: true, Answers: protocol.No, Response: framed(unhexed("8100 400e 01 00000000017299841738 0000 0000 00") + "17299841738")},
		{Device: "13912344329", Kind: "0200", Payload: unhexed("0200") + locationBody, Answers: protocol.No, Response: framed(unhexed("8001 4005 01 00000000013912344329 0001 0000 0200 00"))},
	},
}, {
	Name: "wrong messages",
	// The stream begins with the last flag of an earlier frame. The check of the first message is
	// wrong.
	Stream: unhexed("7e 7e 0002 0000 000123456789 000c 00 7e") +
		framed("abc") + framed(unhexed("0002 0001 000123456789 000c")) + framed(unhexed("0801 2000 000123456789 000c 0002 0003")),
	Frames: []protocoltest.Frame{
		{NoData: true, Answers: protocol.No, Problem: "a message is dropped: its check is 00, and 87 would be right: 00020000000123456789000c00"},
		{NoData: true, Answers: protocol.No, Problem: "a message is dropped: it is too short for its header: 4 bytes: 61626360"},
		{NoData: true, Answers: protocol.No, Problem: "a message is dropped: its body has 0 bytes, and its header says 1: 00020001000123456789000c86"},
		{NoData: true, Answers: protocol.No, Problem: "a message is dropped: it is part 3 of 2: 08012000000123456789000c00020003ad"},
	},
}, {
	Name: "not a frame", Stream: "GET / HTTP/1.1", Error: "starts with 0x47",
}, {
	Name: "no end", Stream: "\x7e" + strings.Repeat("x", longestFrame), Error: "no end within",
}, {
	Name: "encrypted", Stream: framed(unhexed("0200 0401 000123456789 000c 00")), Error: "message 0200 is encrypted",
}}

func TestConformance(t *testing.T) { protocoltest.Run(t, build(t, nil), examples...) }

// With a token, terminals authenticate first.
func TestToken(t *testing.T) {
	p := build(t, func(c *Config) { c.Token = "secret" })
	refused := protocoltest.Frame{NoData: true, Answers: protocol.No}
	wrong, early := refused, refused
	wrong.Token = "Secret"
	wrong.Refusal, wrong.Response = "terminal 123456789 has a wrong token", framed(unhexed("8001 0005 000123456789 0000 000b 0102 01"))
	early.Refusal, early.Response = "terminal 123456789 sends message 0200 before it has authenticated", framed(unhexed("8001 0005 000123456789 0000 000b 0200 01"))
	protocoltest.Run(t, p, protocoltest.Example{
		Name:   "2013",
		Stream: register2013 + framed(unhexed("0102 0007 000123456789 000b")+"secret\x00") + framed(unhexed("0002 0000 000123456789 000c")),
		Frames: []protocoltest.Frame{
			{NoData: true, Answers: protocol.No, Response: framed(unhexed("8100 0009 000123456789 0000 000a 00") + "secret")},
			{Device: "123456789", Token: "secret", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0001 000b 0102 00"))},
			{Device: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0002 000c 0002 00"))},
		},
	}, protocoltest.Example{
		Name:   "2019",
		Stream: framed(unhexed("0102 402a 01 00000000000123456789 000b 06") + "secret" + strings.Repeat("9", 15) + strings.Repeat("\x00", 20)),
		Frames: []protocoltest.Frame{{Device: "123456789", Token: "secret", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 4005 01 00000000000123456789 0000 000b 0102 00"))}},
	}, protocoltest.Example{
		Name: "wrong", Stream: framed(unhexed("0102 0006 000123456789 000b") + "Secret"), Frames: []protocoltest.Frame{wrong},
	}, protocoltest.Example{
		Name: "cut off", Stream: framed(unhexed("0102 4002 01 00000000000123456789 000b 0631")),
		Frames: []protocoltest.Frame{{Refusal: wrong.Refusal, NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 4005 01 00000000000123456789 0000 000b 0102 01"))}},
	}, protocoltest.Example{
		Name: "early", Stream: framed(unhexed("0200 0026 000123456789 000b") + locationBody), Frames: []protocoltest.Frame{early},
		Commands: []protocoltest.Command{{Payload: unhexed("8201"), Error: "isn't authenticated"}},
	})
}

// With auth of the transport, only an authentication names the terminal, and the host has no token
// for a terminal that registers.
func TestAuth(t *testing.T) {
	early := protocoltest.Frame{
		NoData: true, Answers: protocol.No, Refusal: "terminal 123456789 sends message 0200 before it has authenticated",
		Response: framed(unhexed("8001 0005 000123456789 0000 000b 0200 01")),
	}
	protocoltest.Run(t, build(t, nil), protocoltest.Example{
		Name: "authentication", Auth: true,
		Stream: framed(unhexed("0102 0007 000123456789 000b")+"secret\x00") + framed(unhexed("0002 0000 000123456789 000c")),
		Frames: []protocoltest.Frame{
			{Device: "123456789", Token: "secret", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0000 000b 0102 00"))},
			{Device: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0001 000c 0002 00"))},
		},
	}, protocoltest.Example{
		Name: "registration", Auth: true, Stream: register2013,
		Frames: []protocoltest.Frame{{
			NoData: true, Answers: protocol.No, Refusal: "terminal 123456789 registers, and the host can't give it a token",
			Response: framed(unhexed("8100 0003 000123456789 0000 000a 04")),
		}},
	}, protocoltest.Example{
		Name: "early", Auth: true, Stream: framed(unhexed("0200 0026 000123456789 000b") + locationBody), Frames: []protocoltest.Frame{early},
	})
	protocoltest.Run(t, build(t, func(c *Config) { c.Token = "secret" }), protocoltest.Example{
		Name: "registration with a token for all", Auth: true, Stream: register2013,
		Frames: []protocoltest.Frame{{NoData: true, Answers: protocol.No, Response: framed(unhexed("8100 0009 000123456789 0000 000a 00") + "secret")}},
	})
}

// The answer to a registration is the published one, byte for byte.
func TestPublishedAnswer(t *testing.T) {
	p := build(t, func(c *Config) { c.Token = "1234567890" })
	s := &protocol.State{Number: 0x4b30}
	in := []byte(unhexed("7E0100002D01234567891200B800010002313233000034353600000000000000000000000000000000003132333435000002B2E2413132333435187E"))
	_, frame, err := p.Split(s, in, 0)
	if err != nil {
		t.Fatal(err)
	}
	var v protocol.Verdict
	if err := p.Decode(s, frame, &v); err != nil || v.Problem != "" {
		t.Fatal(err, v.Problem)
	}
	got, err := p.Append(nil, v.Response)
	if want := unhexed("7E8100000D0123456789124B3000B80031323334353637383930D57E"); err != nil || string(got) != want {
		t.Errorf("got % x, %v; want % x", got, err, want)
	}
}

func TestConfirmed(t *testing.T) {
	p := build(t, func(c *Config) { c.After = "confirmed" })
	protocoltest.Run(t, p, protocoltest.Example{
		Name:   "location",
		Stream: framed(unhexed("0002 0000 000123456789 000c")) + framed(unhexed("0200 0026 000123456789 000d")+locationBody),
		Frames: []protocoltest.Frame{
			{Device: "123456789", NoData: true, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0000 000c 0002 00"))},
			{Device: "123456789", Kind: "0200", Confirmed: true, Payload: unhexed("0200") + locationBody, Answers: protocol.No, Response: framed(unhexed("8001 0005 000123456789 0001 000d 0200 00"))},
		},
	})
}

func TestNames(t *testing.T) {
	for digits, want := range map[string]string{"000000000000": "0", "013912344329": "13912344329", "0a0000000001": "a0000000001"} {
		var s sender
		copy(s.phone[:], unhexed(digits))
		if got := s.name(); got != want {
			t.Errorf("the name of %s is %s, want %s", digits, got, want)
		}
	}
}

// part is a part of a message whose first part has the serial number 20.
func part(id string, n, total uint16, body string) string {
	head := binary.BigEndian.AppendUint16([]byte(unhexed(id)), hasParts|uint16(len(body)))
	head = append(head, unhexed("000123456789")...)
	for _, x := range []uint16{19 + n, total, n} {
		head = binary.BigEndian.AppendUint16(head, x)
	}
	return framed(string(head) + body)
}

func Fuzz(f *testing.F) {
	all := append([]protocoltest.Example{{Stream: part("0200", 2, 2, "b") + part("0200", 1, 2, "a")}}, examples...)
	protocoltest.Fuzz(f, build(f, func(c *Config) { c.Parts.Memory = 2048 }), all...)
}
