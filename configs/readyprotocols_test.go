package configs_test

import (
	"slices"
	"testing"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/protocol/protocoltest"
)

// Most frames have been published, by manuals or as captures of devices. The others, such as the
// answers to commands, are written after the formats that the files describe.
var readyMade = map[string][]protocoltest.Example{
	"gps103": {{
		Name:     "login, heartbeat and position",
		Commands: []protocoltest.Command{{Device: "359587010124900", Payload: "B", Wire: "**,imei:359587010124900,B;"}},
		Stream:   "##,imei:359587010124900,A;359587010124900;imei:359587010124900,tracker,0809231929,13554900601,F,112909.397,A,2234.4669,N,11354.3287,E,0.11,;",
		Frames: []protocoltest.Frame{
			{Device: "359587010124900", Kind: "login", Response: "LOAD", Answers: protocol.No, NoData: true},
			{Device: "359587010124900", Kind: "heartbeat", Response: "ON", Answers: protocol.No, NoData: true},
			{Device: "359587010124900", Kind: "tracker"},
		},
	}, {
		Name:   "frames with line feeds, and an alarm",
		Stream: "\r\n##,imei:359586015829802,A;\r\nimei:353451042861763,help me,0809231429,13554900601,F,062947.294,A,2234.4026,N,11354.3277,E,0.00,;",
		Frames: []protocoltest.Frame{
			{Device: "359586015829802", Kind: "login", Response: "LOAD", Answers: protocol.No, NoData: true},
			{Device: "353451042861763", Kind: "help me"},
		},
	}, {
		Name:   "another protocol",
		Stream: "GET / HTTP/1.1\r\nHost: x;",
		Error:  "no rule fits the frame",
	}},
	"tk103": {{
		Name:     "login with a position, heartbeat, position, alarm and answer",
		Commands: []protocoltest.Command{{Device: "013612345678", Payload: "AV010", Wire: "(013612345678AV010)", Key: "BV01"}},
		Stream: "(013612345678BP05000013612345678080524A2232.9806N11404.9355E000.1101241323.8700000000L000450AC)(013612345678BP00000013612345678HSO)" +
			"(013612345678BR00080612A2232.9828N11404.9297E000.0022828000.0000000000L000230AA)" +
			"(013612345678BO012061830A2934.0133N10627.2544E040.0080331309.6200000000L000770AD)(013612345678BV010)",
		Frames: []protocoltest.Frame{
			{Device: "013612345678", Kind: "login", Response: "(013612345678AP05)"},
			{Device: "013612345678", Kind: "heartbeat", Response: "(013612345678AP01HSO)", Answers: protocol.No, NoData: true},
			{Device: "013612345678", Kind: "BR00"},
			{Device: "013612345678", Kind: "BO01", Response: "(013612345678AS012)"},
			{Device: "013612345678", Kind: "BV01", Answers: protocol.Yes, Key: "BV01"},
		},
	}},
	"suntech": {{
		Name:     "reports, heartbeat and response",
		Commands: []protocoltest.Command{{Device: "100850000", Payload: "StatusReq", Wire: "ST300CMD;100850000;02;StatusReq\r", Key: "StatusReq"}},
		Stream: "SA200STT;317652;042;20120718;15:37:12;16d41;-15.618767;-056.083214;000.011;000.00;11;1;41557;12.21;000000;1;3205\r" +
			"ST300ALV;205174410\rST300CMD;Res;100850000;010;StatusReq;20150601\rST910;Emergency;205283272;500;20110401;13:58:54;+37.478774;+126.889690;000.000;000.00\r" +
			"STT;0560266061;3FFFFF;57;1.0.14;1;20190703;01:00:24\r",
		Frames: []protocoltest.Frame{
			{Device: "317652", Kind: "STT"},
			{Device: "205174410", Kind: "heartbeat", Answers: protocol.No, NoData: true},
			{Device: "100850000", Kind: "response", Answers: protocol.Yes, Key: "StatusReq"},
			{Device: "205283272", Kind: "Emergency"},
			{Device: "0560266061", Kind: "STT"},
		},
	}},
	"queclink": {{
		Name:     "heartbeat, report and answer",
		Commands: []protocoltest.Command{{Device: "135790246811220", Payload: "AT+GTRTO=gl200,0,,,,,,0017", Wire: "AT+GTRTO=gl200,0,,,,,,0017$", Key: "RTO0017"}},
		Stream: "+ACK:GTHBD,1A0102,135790246811220,,20100214093254,11F0$" +
			"+RESP:GTFRI,020102,135790246811220,,0,0,1,1,4.3,92,70.0,121.354335,31.222073,20090214013254,0460,0000,18d8,6141,00,,20090214093254,11F1$" +
			"+BUFF:GTFRI,020102,135790246811220,,0,0,1,1,4.3,92,70.0,121.354335,31.222073,20090214013254,0460,0000,18d8,6141,00,,20090214093254,11F2$" +
			"+ACK:GTRTO,020102,135790246811220,,GPS,0017,20100310172830,11F3$",
		Frames: []protocoltest.Frame{
			{Device: "135790246811220", Kind: "heartbeat", Response: "+SACK:GTHBD,1A0102,11F0$", Answers: protocol.No, NoData: true},
			{Device: "135790246811220", Kind: "FRI", Response: "+SACK:11F1$", Confirmed: true},
			{Device: "135790246811220", Kind: "FRI", Response: "+SACK:11F2$", Confirmed: true},
			{Device: "135790246811220", Kind: "RTO", Response: "+SACK:11F3$", Answers: protocol.Yes, Key: "RTO0017"},
		},
	}},
	"wialon-ips": {{
		Name:     "login, heartbeat, data and answer",
		Commands: []protocoltest.Command{{Device: "353173067915240", Payload: "call the office", Wire: "#M#call the office\r\n", Key: "M"}},
		Stream: "#L#353173067915240;NA\r\n#P#\r\n#SD#270413;205601;5544.6025;N;03739.6834;E;1;2;3;4\r\n" +
			"#D#101118;061143;0756.0930;N;12338.6403;E;18.223;99.766;-4.000;10;0.800;NA;NA;NA;NA;101_SPN:3:x\r\n" +
			"#B#140513;193051;2632.3219;N;04749.1117;E;0;0;0;7|140513;193105;2632.3219;N;04749.1117;E;0;0;0;7\r\n#M#on my way\r\n#AM#1\r\n",
		Frames: []protocoltest.Frame{
			{Device: "353173067915240", Token: "NA", Kind: "login", Response: "#AL#1\r\n", Answers: protocol.No, NoData: true},
			{Kind: "heartbeat", Response: "#AP#\r\n", Answers: protocol.No, NoData: true},
			{Kind: "SD", Response: "#ASD#1\r\n", Confirmed: true},
			{Kind: "D", Response: "#AD#1\r\n", Confirmed: true},
			{Kind: "B", Response: "#AB#2\r\n", Confirmed: true},
			{Kind: "M", Response: "#AM#1\r\n", Confirmed: true},
			{Kind: "AM", Answers: protocol.Yes, Key: "M"},
		},
	}, {
		Name:   "login of version 2.0",
		Stream: "#L#2.0;356307042441013;NA;C0DE\r\n",
		Frames: []protocoltest.Frame{{Device: "356307042441013", Token: "NA", Kind: "login", Response: "#AL#1\r\n", Answers: protocol.No, NoData: true}},
	}},
	"h02": {{
		Name: "position, heartbeat and answer",
		Commands: []protocoltest.Command{
			{Device: "4210209006", Payload: "S20,130305,1,3,10,3,5", Wire: "*HQ,4210209006,S20,130305,1,3,10,3,5#", Key: "S20,130305"},
			{Device: "4210209006", Payload: "D1,130305,10,1", Wire: "*HQ,4210209006,D1,130305,10,1#", Key: "D1,130305"},
		},
		Stream: "*HQ,353588020068342,V1,084436,A,3257.01525,N,00655.03865,W,57.78,40,011217,FFFBFFFF,25c,a, 154,b04c#*HQ,1600068860,HTBT,100#" +
			"*HQ,4210209006,V4,S20,DONE,130305,050316,A,2212.8745,N,11346.6574,E,14.28,028,010117,FFFFFBFF#",
		Frames: []protocoltest.Frame{
			{Device: "353588020068342", Kind: "V1"},
			{Device: "1600068860", Kind: "heartbeat", Response: "*HQ,1600068860,HTBT,100#", Answers: protocol.No, NoData: true},
			{Device: "4210209006", Kind: "V4", Answers: protocol.Yes, Key: "S20,130305"},
		},
	}},
}

func TestReadyMadeConformance(t *testing.T) {
	for _, p := range configs.Protocols() {
		examples := slices.Concat(readyMade[p.Name], ofPackets[p.Name])
		if len(examples) == 0 {
			t.Errorf("%s has no examples", p.Name)
		}
		t.Run(p.Name, func(t *testing.T) { protocoltest.Run(t, configs.BuildProtocol(t, p.Name), examples...) })
	}
}
