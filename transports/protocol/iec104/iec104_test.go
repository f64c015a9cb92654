package iec104

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
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

var (
	startActFrame = unhexed("68 04 07 00 00 00")
	startConFrame = unhexed("68 04 0b 00 00 00")
	testActFrame  = unhexed("68 04 43 00 00 00")
	testConFrame  = unhexed("68 04 83 00 00 00")
	// interrogation asks the common address 1 for everything.
	interrogation = unhexed("64 01 06 00 01 00 000000 14")
	// open operates the single command 5000 of the common address 1.
	openCommand = unhexed("2d 01 06 00 01 00 881300 01")
)

// sign is a frame that is only a sign of life.
var sign = protocoltest.Frame{Answers: protocol.No, NoData: true}

func data(kind, payload string) protocoltest.Frame {
	return protocoltest.Frame{Kind: kind, Payload: payload, Answers: protocol.No}
}

func answer(kind, key, payload string) protocoltest.Frame {
	return protocoltest.Frame{Kind: kind, Payload: payload, Answers: protocol.Yes, Key: key}
}

// The frames are those that controlled stations commonly send.
var examples = []protocoltest.Example{{
	Name:     "interrogation",
	Greeting: startActFrame,
	Login:    startConFrame,
	Commands: []protocoltest.Command{
		{Payload: interrogation, Wire: unhexed("68 0e 0000 0000") + interrogation, Key: "100/1/0"},
		{Payload: openCommand, Wire: unhexed("68 0e 0200 0000") + openCommand, Key: "45/1/5000"},
	},
	Stream: unhexed("68 0e 0000 0200 64 01 07 00 01 00 000000 14"+ // confirmation
		"68 12 0200 0200 0d 01 14 00 01 00 014000 0000484100"+ // the measured value 12.5
		"68 04 0100 0400"+ // both commands are acknowledged
		"68 0e 0400 0400 2d 01 47 00 01 00 881300 01"+ // negative confirmation
		"68 0e 0600 0400 64 01 0a 00 01 00 000000 14") + // the end
		testActFrame,
	Frames: []protocoltest.Frame{
		sign,
		answer("100", "100/1/0", unhexed("64 01 07 00 01 00 000000 14")),
		data("13", unhexed("0d 01 14 00 01 00 014000 0000484100")),
		sign,
		answer("45", "45/1/5000", unhexed("2d 01 47 00 01 00 881300 01")),
		data("100", unhexed("64 01 0a 00 01 00 000000 14")),
		{Response: testConFrame, Answers: protocol.No, NoData: true},
	},
}, {
	Name:     "read",
	Greeting: startActFrame,
	Login:    startConFrame,
	Commands: []protocoltest.Command{
		{Payload: unhexed("66 01 05 00 01 00 014000"), Wire: unhexed("68 0d 0000 0000 66 01 05 00 01 00 014000"), Key: "102/1/16385"},
	},
	Stream: unhexed("68 12 0000 0200 0d 01 03 00 01 00 014000 0000484100" + // spontaneous
		"68 12 0200 0200 0d 01 05 00 01 00 014000 0000484100"),
	Frames: []protocoltest.Frame{
		sign,
		data("13", unhexed("0d 01 03 00 01 00 014000 0000484100")),
		answer("13", "102/1/16385", unhexed("0d 01 05 00 01 00 014000 0000484100")),
	},
}, {
	Name:     "unknown object",
	Greeting: startActFrame,
	Login:    startConFrame,
	Commands: []protocoltest.Command{
		{Payload: openCommand, Wire: unhexed("68 0e 0000 0000") + openCommand, Key: "45/1/5000"},
		{Payload: "short", Error: "an ASDU has from 6 to 249 bytes"},
		{Payload: unhexed("0d 01 03 00 01 00 014000 0000484100"), Error: "sends types from 45"},
	},
	Stream: unhexed("68 0e 0000 0200 2d 01 2f 00 01 00 881300 01"),
	Frames: []protocoltest.Frame{sign, answer("45", "45/1/5000", unhexed("2d 01 2f 00 01 00 881300 01"))},
}, {
	Name: "not started", Greeting: startActFrame,
	Commands: []protocoltest.Command{{Payload: openCommand, Error: "isn't started"}},
	Stream:   unhexed("68 0e 0000 0000 64 01 07 00 01 00 000000 14"),
	Error:    "before it has confirmed the start",
}, {
	Name: "a frame is missing", Greeting: startActFrame, Login: startConFrame,
	Stream: unhexed("68 0e 0200 0000 64 01 07 00 01 00 000000 14"),
	Frames: []protocoltest.Frame{sign},
	Error:  "the number of the station's frame is 1, and 0 is expected",
}, {
	Name: "an acknowledgement of what wasn't sent", Greeting: startActFrame, Login: startConFrame,
	Stream: unhexed("68 04 0100 0200"),
	Frames: []protocoltest.Frame{sign},
	Error:  "acknowledges the frames before 1; allowed: from 0 to 0",
}, {
	Name: "a wrong start", Greeting: startActFrame, Stream: "GET", Error: "starts with 0x47",
}, {
	Name: "a wrong length", Greeting: startActFrame, Stream: "\x68\x03", Error: "the length of a frame is 3",
}, {
	Name: "a short ASDU", Greeting: startActFrame, Login: startConFrame, Stream: unhexed("68 06 0000 0000 6401"), Frames: []protocoltest.Frame{sign}, Error: "an ASDU of 2 bytes",
}, {
	Name: "a long S frame", Greeting: startActFrame, Login: startConFrame, Stream: unhexed("68 05 0100 0000 64"), Frames: []protocoltest.Frame{sign}, Error: "more than a control field",
}, {
	Name: "a start by the station", Greeting: startActFrame, Stream: startActFrame, Error: "unexpected U frame 0x07",
}}

func TestConformance(t *testing.T) { protocoltest.Run(t, build(t, nil), examples...) }

func Fuzz(f *testing.F) { protocoltest.Fuzz(f, build(f, nil), examples...) }

func TestValidate(t *testing.T) {
	c := defaults
	c.T2 = c.T1
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "shorter than t1, which is 15s") {
		t.Errorf("got %v", err)
	}
}

// line is a connection of a test.
type line struct {
	*testing.T
	protocol.Protocol
	state protocol.State
}

func connect(t *testing.T, change func(*Config)) *line {
	t.Helper()
	l := &line{T: t, Protocol: build(t, change)}
	l.state.Awaits = func(string) bool { return false }
	if err := l.Protocol.(protocol.Greeter).Greet(&l.state, new(protocol.Verdict)); err != nil {
		t.Fatal(err)
	}
	return l
}

// hear handles the frames of the station and returns what the host responds.
func (l *line) hear(stream string) (response string, err error) {
	l.Helper()
	for data := []byte(stream); len(data) > 0; {
		advance, frame, err := l.Split(&l.state, data, 0)
		if err != nil || advance == 0 {
			l.Fatal(advance, err)
		}
		var v protocol.Verdict
		if err := l.Decode(&l.state, frame, &v); err != nil {
			return response, err
		}
		if v.Response != nil {
			out, err := l.Append(nil, v.Response)
			if err != nil {
				l.Fatal(err)
			}
			response += string(out)
		}
		data = data[advance:]
	}
	return response, nil
}

func (l *line) mustHear(stream, want string) {
	l.Helper()
	if got, err := l.hear(stream); err != nil || got != want {
		l.Errorf("the host responds % x, %v; want % x", got, err, want)
	}
}

// ask returns the frame of a command.
func (l *line) ask(command string) (string, error) {
	payload, _, err := l.Encode(&l.state, nil, protocol.Command{Payload: []byte(command)})
	if err != nil {
		return "", err
	}
	frame, err := l.Append(nil, payload)
	return string(frame), err
}

func (l *line) mustAsk(control string) {
	l.Helper()
	if got, err := l.ask(openCommand); err != nil || got != unhexed("68 0e"+control)+openCommand {
		l.Errorf("got % x, %v", got, err)
	}
}

// wait waits until the protocol wants to be called, and returns what it says.
func (l *line) wait(after time.Duration) (string, error) {
	l.Helper()
	if got := time.Until(l.state.Wake); got != after {
		l.Errorf("the next tick is after %v, want %v", got, after)
	}
	time.Sleep(after)
	var v protocol.Verdict
	err := l.Protocol.(protocol.Ticker).Tick(&l.state, time.Now(), &v)
	return string(v.Response), err
}

func (l *line) mustWait(after time.Duration, want string) {
	l.Helper()
	if got, err := l.wait(after); err != nil || got != want {
		l.Errorf("the host says % x, %v; want % x", got, err, want)
	}
}

func (l *line) mustEnd(after time.Duration, want string) {
	l.Helper()
	if _, err := l.wait(after); err == nil || !strings.Contains(err.Error(), want) {
		l.Errorf("got %v, want %s", err, want)
	}
}

// spontaneous returns an I frame with a spontaneous value. number is its number, below 64. The
// frame acknowledges the host's frames before next.
func spontaneous(number, next int) string {
	return unhexed("68 0e") + string([]byte{byte(number << 1), 0, byte(next << 1), 0}) + unhexed("01 01 03 00 01 00 010000 01")
}

// bubble runs a test on virtual time.
func bubble(t *testing.T, name string, change func(*Config), test func(*line)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(connect(t, change)) })
	})
}

func TestTimers(t *testing.T) {
	bubble(t, "no confirmation of the start", nil, func(l *line) {
		l.mustHear(testActFrame, testConFrame)
		l.mustEnd(15*time.Second, "didn't confirm the start of the data transfer within t1 (15s)")
	})
	bubble(t, "a silent connection is tested", nil, func(l *line) {
		l.mustHear(startConFrame, "")
		l.mustWait(20*time.Second, testActFrame)
		time.Sleep(5 * time.Second)
		l.mustHear(testConFrame, "")
		time.Sleep(5 * time.Second)
		l.mustHear(testActFrame, testConFrame) // it isn't silent
		l.mustWait(20*time.Second, testActFrame)
		time.Sleep(5 * time.Second)
		l.mustHear(testActFrame, testConFrame) // this confirms nothing
		l.mustEnd(10*time.Second, "didn't confirm the test of the connection within t1 (15s)")
	})
	bubble(t, "data are acknowledged after t2", nil, func(l *line) {
		l.mustHear(startConFrame, "")
		l.mustHear(spontaneous(0, 0), "")
		time.Sleep(4 * time.Second)
		l.mustHear(spontaneous(1, 0), "")
		l.mustWait(6*time.Second, unhexed("68 04 0100 0400"))
		l.mustWait(14*time.Second, testActFrame)
	})
	bubble(t, "data are acknowledged after w frames", nil, func(l *line) {
		l.mustHear(startConFrame, "")
		for i := range 7 {
			l.mustHear(spontaneous(i, 0), "")
		}
		l.mustHear(spontaneous(7, 0), unhexed("68 04 0100 1000"))
		l.mustWait(20*time.Second, testActFrame)
	})
	bubble(t, "a command acknowledges data", nil, func(l *line) {
		l.mustHear(startConFrame, "")
		l.mustHear(spontaneous(0, 0), "")
		l.mustAsk("0000 0200")
		l.mustHear(spontaneous(1, 1), "")
		l.mustWait(10*time.Second, unhexed("68 04 0100 0400"))
	})
	bubble(t, "commands are acknowledged in time", nil, func(l *line) {
		l.mustHear(startConFrame, "")
		l.mustAsk("0000 0000")
		time.Sleep(5 * time.Second)
		l.mustAsk("0200 0000")
		l.mustHear(unhexed("68 04 0100 0200"), "")
		l.mustEnd(15*time.Second, "didn't acknowledge frame 1 within t1 (15s)")
	})
	bubble(t, "a test and an acknowledgement at once", func(c *Config) { c.T3 = c.T2 }, func(l *line) {
		l.mustHear(startConFrame, "")
		l.mustHear(spontaneous(0, 0), "")
		l.mustWait(10*time.Second, unhexed("68 04 0100 0200")+testActFrame)
	})
}

// Not more than k commands are unacknowledged.
func TestAFullWindow(t *testing.T) {
	l := connect(t, func(c *Config) { c.K = 2 })
	l.mustHear(startConFrame, "")
	l.mustAsk("0000 0000")
	l.mustAsk("0200 0000")
	if _, err := l.ask(openCommand); !errors.Is(err, protocol.ErrLater) || !strings.Contains(err.Error(), "2 frames aren't acknowledged") {
		t.Errorf("got %v", err)
	}
	l.mustHear(unhexed("68 04 0100 0200"), "")
	l.mustAsk("0400 0000")
	if _, err := l.hear(unhexed("68 04 0100 0000")); !errors.Is(err, codec.ErrFrame) || !strings.Contains(err.Error(), "allowed: from 1 to 3") {
		t.Errorf("an acknowledgement that goes back: %v", err)
	}
}

// A command waits for the answer to an equal one.
func TestEqualCommands(t *testing.T) {
	l := connect(t, nil)
	l.mustHear(startConFrame, "")
	l.state.Awaits = func(key string) bool { return key == "45/1/5000" }
	if _, err := l.ask(openCommand); !errors.Is(err, protocol.ErrLater) {
		t.Errorf("got %v", err)
	}
	l.state.Awaits = func(string) bool { return false }
	l.mustAsk("0000 0000")
}

// After 32767 comes 0, in both directions.
func TestNumbersBeginAgain(t *testing.T) {
	l := connect(t, nil)
	l.mustHear(startConFrame, "")
	own := l.state.Own.(*link)
	own.sent, own.received, own.confirmed = 32766, 32766, 32766
	l.mustAsk("fcff fcff")
	l.mustAsk("feff fcff")
	l.mustHear(unhexed("68 0e fcff feff 01 01 03 00 01 00 010000 01"), "")
	l.mustHear(unhexed("68 0e feff 0000 01 01 03 00 01 00 010000 01"), "")
	l.mustAsk("0000 0000")
	l.mustHear(unhexed("68 0e 0000 0200 01 01 03 00 01 00 010000 01"), "")
	if len(own.sentAt) != 0 {
		t.Errorf("%d frames are unacknowledged", len(own.sentAt))
	}
}
