package configs_test

import (
	"encoding/hex"
	"strings"

	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/protocol/protocoltest"
)

// digits returns the bytes of hexadecimal digits with spaces.
func digits(text string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// These protocols need the codec packet. Frames of gt06, jt808, teltonika, ruptela, galileosky,
// eelink, ykc and hj212 have been published, by manuals or as captures of devices. The others, and
// most answers to commands, are written after the formats. All checks were computed by another
// program than the codec.
var ofPackets = map[string][]protocoltest.Example{
	"gt06": {{
		Name: "login, heartbeat, position, alarm and answer",
		Commands: []protocoltest.Command{
			{Device: "123456789012345", Payload: "RESET#", Wire: digits("7878 12 80 0A 00000001 524553455423 0002 0001 1500 0D0A"), Key: "1"},
			{Device: "123456789012345", Payload: strings.Repeat("x", 252), Error: "w8(256) doesn't fit"},
		},
		Stream: digits("7878 0D 01 0123456789012345 0001 8CDD 0D0A  7878 0A 13 44 01 04 0001 0005 0845 0D0A" +
			"7878 1F 12 0B081D112E10 CF 027AC7EB 0C465849 00 148F 01CC 00 287D 001FB8 0003 8081 0D0A" +
			"7878 0E 15 06 00000001 4F4B 0002 0005 5BB7 0D0A"),
		Frames: []protocoltest.Frame{
			{Device: "123456789012345", Kind: "login", Response: digits("7878 05 01 0001 D9DC 0D0A"), Answers: protocol.No, NoData: true},
			{Kind: "heartbeat", Response: digits("7878 05 13 0005 AFD5 0D0A"), Answers: protocol.No, NoData: true},
			{Kind: "12"},
			{Kind: "15", Answers: protocol.Yes, Key: "1"},
		},
	}, {
		Name:   "an alarm, and a wrong check, which many clones send",
		Stream: digits("7878 24 16 0B081D112E10 CF 027ACCF1 0C46583E 00 148F 01CC 00 287D 001FB8 0041 0403 0200 0C417A 0D0A 7878 0A 13 4B 04 03 0001 0011 061F 0D0A"),
		Frames: []protocoltest.Frame{
			{Kind: "alarm", Response: digits("7878 05 16 000C 0BA9 0D0A")},
			{Kind: "heartbeat", Response: digits("7878 05 13 0011 F970 0D0A"), Answers: protocol.No, NoData: true},
		},
	}},
	"teltonika": {{
		Name:     "login, ping, records and answer",
		Commands: []protocoltest.Command{{Payload: "getinfo", Wire: digits("00000000 0000000F 0C010500000007676574696E666F01 00004312"), Key: "12"}},
		Stream: digits("000F333536333037303432343431303133 FF 0000000000000036 08010000016B40D8EA30010000000000000000000000000000000105021503010101425E0F01F10000601A014E000000000000000001 0000C7CF" +
			"0000000000000090 0C010600000088494E493A323031392F372F323220373A3232205254433A323031392F372F323220373A3533205253543A32204552523A312053523A302042523A302043463A302046473A3020464C3A302054553A302F302055543A3020534D533A30204E4F4750533A303A3330204750533A31205341543A302052533A332052463A36352053463A31204D443A30 01 0000C78F"),
		Frames: []protocoltest.Frame{
			{Device: "356307042441013", Kind: "login", Response: "\x01", Answers: protocol.No, NoData: true},
			{Kind: "heartbeat", Answers: protocol.No, NoData: true},
			{Kind: "8", Response: "\x00\x00\x00\x01", Confirmed: true},
			{Kind: "12", Answers: protocol.Yes, Key: "12"},
		},
	}},
	"modbus-dtu": {{
		Name: "registration, heartbeat, answer and exception",
		Commands: []protocoltest.Command{
			{Device: "dtu-17", Unit: "1", Payload: digits("03 0000 000A"), Wire: digits("01 03 0000 000A C5CD"), Key: "013"},
			{Device: "dtu-17", Unit: "10", Payload: digits("01 04A1 0001"), Wire: digits("0A 01 04A1 0001 AC63"), Key: "0a1"},
		},
		Stream: "REGdtu-17ping" + digits("01 03 02 002A 399B  0A 81 02 B053"),
		Frames: []protocoltest.Frame{
			{Device: "dtu-17", Kind: "login", Answers: protocol.No, NoData: true},
			{Kind: "heartbeat", Answers: protocol.No, NoData: true},
			{Unit: "1", Kind: "03", Answers: protocol.Yes, Key: "013"},
			{Unit: "10", Kind: "81", Answers: protocol.Yes, Key: "0a1"},
		},
	}},
	"ruptela": {{
		Name: "identification, records and heartbeat",
		Stream: digits("002E000315BC70D3E2FF0F4F42443130302E30312E30382E30300000C2B30EA77E430000601B000001F40000003C00144AA0" +
			"0050000310F5615F419C0100015613D8ED0000FFF5B37A035AF37801E700000900000D07071B0C020003001C01202CAD000500064302A81D33E61E100116317CD3FFFF174AD60241000077FA960000F232003C2E" +
			"0009 000315A07F440B1D 10 48E2"),
		Frames: []protocoltest.Frame{
			{Device: "868324021101311", Kind: "15", Response: digits("0002 7301 CB25"), Answers: protocol.No, NoData: true},
			{Device: "863071016796572", Kind: "1", Response: digits("0002 6401 13BC"), Confirmed: true},
			{Device: "868204004248349", Kind: "16", Response: digits("0002 7401 862D"), Answers: protocol.No, NoData: true},
		},
	}, {
		Name:     "answer",
		Commands: []protocoltest.Command{{Payload: " getio", Wire: digits("0007 6C 20676574696F 3CA6"), Key: "7"}},
		Stream:   digits("0024000315A07F440B1D07534554494F20636F6E66696775726174696F6E2064617461206F6B341C"),
		Frames:   []protocoltest.Frame{{Device: "868204004248349", Kind: "7", Answers: protocol.Yes, Key: "7"}},
	}},
	"galileosky": {{
		Name:     "login, data and answer",
		Commands: []protocoltest.Command{{Device: "863591023517372", Payload: "OUTS", Wire: digits("01 1E00 03 383633353931303233353137333732 04 0000 E0 01000000 E1 04 4F555453 F9FC"), Key: "1"}},
		Stream:   digits("011380033836383230343030313534393038370432008590 01050020E6A6C57390DE 012A0003383633353931303233353137333732046600E001000000E1104F555428332E2E3029203D20313131306BE5"),
		Frames: []protocoltest.Frame{
			{Device: "868204001549087", Kind: "login", Response: digits("02 8590")},
			{Response: digits("02 90DE"), Confirmed: true},
			{Device: "863591023517372", Kind: "answer", Response: digits("02 6BE5"), Answers: protocol.Yes, Key: "1"},
		},
	}},
	"eelink": {{
		Name:     "login, heartbeat, position and answer",
		Commands: []protocoltest.Command{{Payload: "VERSION#", Wire: digits("6767 80 000F 0001 01 00000001 56455253494F4E23"), Key: "1"}},
		Stream:   digits("676701000C002603541880486128290120 6767030004001A0001 676702001B03C5538086DF0190C1790B3482DF0F0157020800013BEB00342401 676780 0009 0002 01 00000001 4F4B"),
		Frames: []protocoltest.Frame{
			{Device: "354188048612829", Kind: "login", Response: digits("6767 01 0002 0026"), Answers: protocol.No, NoData: true},
			{Kind: "heartbeat", Response: digits("6767 03 0002 001A"), Answers: protocol.No, NoData: true},
			{Kind: "02", Response: digits("6767 02 0002 03C5"), Confirmed: true},
			{Kind: "80", Answers: protocol.Yes, Key: "1"},
		},
	}},
	"hongdian": {{
		Name:     "login, data and answer",
		Commands: []protocoltest.Command{{Device: "13912345678", Payload: "AT", Wire: digits("7B 89 0012") + "13912345678AT{", Key: "89"}},
		Stream:   digits("7B 01 0016") + "13912345678" + digits("0AAAAAAA 03ED 7B 7B 09 0014") + "13912345678" + digits("7B010203 7B 7B 05 0010") + "13912345678{",
		Frames: []protocoltest.Frame{
			{Device: "13912345678", Kind: "login", Response: digits("7B 81 0010") + "13912345678{", Answers: protocol.No, NoData: true},
			{Device: "13912345678", Kind: "09", Response: digits("7B 85 0010") + "13912345678{", Confirmed: true},
			{Device: "13912345678", Kind: "05", Answers: protocol.Yes, Key: "89", NoData: true},
		},
	}},
	"dlt645": {{
		Name:     "reading the energy, after wake-up bytes",
		Commands: []protocoltest.Command{{Device: "000123456789", Payload: digits("11 33333433"), Wire: digits("68 896745230100 68 11 04 33333433 0B 16"), Key: "17"}},
		Stream:   digits("FEFEFEFE 68 896745230100 68 91 08 33333433 68353333 92 16"),
		Frames:   []protocoltest.Frame{{Device: "000123456789", Kind: "91", Answers: protocol.Yes, Key: "17"}},
	}},
	"ykc": {{
		Name:     "login, heartbeat, data and answer",
		Commands: []protocoltest.Command{{Payload: digits("36 55031412782305 01"), Wire: digits("68 0C 0001 00 36 55031412782305 01 79B1"), Key: "54"}},
		Stream: digits("68 22 0000 00 01 55031412782305 00 02 0F 56342E312E353000 01 01010101010101010101 04 0F32 68 0D 0003 00 03 55031412782305 01 00 99CA" +
			"68 0E 0004 00 35 55031412782305 01 01 00 E135"),
		Frames: []protocoltest.Frame{
			{Device: "55031412782305", Kind: "login", Response: digits("68 0C 0000 00 02 55031412782305 00 DA4C"), Answers: protocol.No, NoData: true},
			{Device: "55031412782305", Kind: "heartbeat", Response: digits("68 0D 0003 00 04 55031412782305 01 00 2810"), Answers: protocol.No, NoData: true},
			{Kind: "35", Answers: protocol.Yes, Key: "54"},
		},
	}, {
		Name:   "an encrypted frame",
		Stream: digits("68 0B 0005 01 13 55031412782305 331A"),
		Frames: []protocoltest.Frame{{Refusal: "the frame is encrypted", Answers: protocol.No, NoData: true}},
	}},
	"hj212": {{
		Name:     "the answer to a command, and data with and without an acknowledgement",
		Commands: []protocoltest.Command{{Payload: "QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&", Wire: "##0101QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&1C80\r\n", Key: "20160801085857223"}},
		Stream: "##0094QN=20160801085857223;ST=91;CN=9011;PW=100000;MN=010000A8900016F000169DC0;Flag=4;CP=&&QnRtn=1&&E101\r\n" +
			"##0140QN=20160801085900000;ST=32;CN=2011;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&DataTime=20160801085857;w01018-Rtd=50.1,w01018-Flag=N&&4B00\r\n" +
			"##0110QN=20160801085901000;ST=32;CN=2011;PW=100000;MN=010000A8900016F000169DC0;Flag=4;CP=&&DataTime=20160801085857&&6D40\r\n",
		Frames: []protocoltest.Frame{
			{Device: "010000A8900016F000169DC0", Kind: "9011", Answers: protocol.Yes, Key: "20160801085857223"},
			{Device: "010000A8900016F000169DC0", Kind: "2011", Response: "##0087QN=20160801085900000;ST=91;CN=9014;PW=100000;MN=010000A8900016F000169DC0;Flag=4;CP=&&&&9601\r\n", Confirmed: true},
			{Device: "010000A8900016F000169DC0", Kind: "2011"},
		},
	}},
	"gbt32960": {{
		Name:     "login, data, heartbeat and answer",
		Commands: []protocoltest.Command{{Device: "LGXCE4CB4G0123456", Payload: digits("80 1A0B1D112E10 01 01"), Wire: digits("232380FE4C475843453443423447303132333435360100081A0B1D112E10010170"), Key: "80"}},
		Stream: digits("232301FE4C4758434534434234473031323334353601001E1A0B1D112E10000138393836303031323334353637383930313233340100ED" +
			"232302FE4C475843453443423447303132333435360100081A0B1D112E100101F2 232307FE4C47584345344342344730313233343536010000DC 232380014C4758434534434234473031323334353601000A1A0B1D112E10010101018D"),
		Frames: []protocoltest.Frame{
			{Device: "LGXCE4CB4G0123456", Kind: "login", Response: digits("232301014C475843453443423447303132333435360100061A0B1D112E1000")},
			{Device: "LGXCE4CB4G0123456", Kind: "02", Response: digits("232302014C475843453443423447303132333435360100061A0B1D112E1003"), Confirmed: true},
			{Device: "LGXCE4CB4G0123456", Kind: "heartbeat", Response: digits("232307014C4758434534434234473031323334353601000023"), Answers: protocol.No, NoData: true},
			{Device: "LGXCE4CB4G0123456", Kind: "80", Answers: protocol.Yes, Key: "80"},
		},
	}},
}
