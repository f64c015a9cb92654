package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// talk is a protocol of lines of text for tests. A line begins with what it is:
//
//	login NAME    names the device, which expects the response "welcome"
//	prove NAME:TOKEN is data, names the device, and proves it; it expects "welcome"
//	beat          expects "ON" without an end of line
//	pos NAME:TEXT is data, and names the device
//	unit N:TEXT   is data of a unit
//	safe TEXT     is data, and expects "ack TEXT" when it is confirmed
//	ans KEY:TEXT  answers the command that begins with KEY
//	leave         is refused with "bye"
//	more TEXT     is data without the word, after what earlier such lines said
//	who           expects the name in the device's certificate, or "nobody"
//	odd TEXT      is reported as a problem, and is no data
//
// Every other line is data. The host numbers its commands. It names the device of a command if
// that isn't the device of the connection.
type talk struct{ codec.Framing }

type talkConfig struct{}

func (talkConfig) Protocol() (protocol.Protocol, error) {
	framing, err := codec.Named("line").New()
	return talk{framing}, err
}

func (p talk) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	return p.Framing.Split(data, seen)
}

func (p talk) Decode(s *protocol.State, frame []byte, v *protocol.Verdict) error {
	word, rest, _ := strings.Cut(string(frame), " ")
	name, text, _ := strings.Cut(rest, ":")
	switch word {
	case "login":
		v.Device, v.Response, v.NoData, v.Answers = rest, []byte("welcome"), true, protocol.No
	case "prove":
		v.Device, v.Token, v.Response = name, []byte(text), []byte("welcome")
	case "beat":
		v.Response, v.Raw, v.NoData, v.Answers = []byte("ON"), true, true, protocol.No
	case "pos":
		v.Device, v.Kind = name, "position"
	case "unit":
		v.Unit = name
	case "safe":
		v.Response, v.Confirmed = []byte("ack "+rest), true
	case "ans":
		v.Answers, v.Key = protocol.Yes, name
	case "leave":
		v.Response, v.Refusal = []byte("bye"), "it asked to leave"
	case "more":
		whole, _ := s.Own.(string)
		s.Own = whole + rest
		v.Payload = []byte(whole + rest)
	case "who":
		v.Response, v.NoData = []byte("nobody"), true
		if s.Cert != nil {
			v.Response = []byte(s.Cert.Subject.CommonName)
		}
	case "odd":
		v.Problem, v.NoData = "a strange line: "+rest, true
	case "broken":
		return errors.New("the frame makes no sense")
	}
	return nil
}

func (p talk) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	s.Number++
	key, _, _ := strings.Cut(string(c.Payload), " ")
	dst = fmt.Appendf(dst, "%d", s.Number)
	if c.Device != s.Device {
		dst = fmt.Appendf(dst, "=%s", c.Device)
	}
	if c.Unit != "" {
		dst = fmt.Appendf(dst, "@%s", c.Unit)
	}
	return fmt.Appendf(dst, " %s", c.Payload), key, nil
}

func (talk) HasUnits() bool { return true }

func (talk) HasKeys() bool { return true }

func (talk) HasTokens() bool { return true }

// talking starts a transport whose devices talk.
func talking(t *testing.T, change func(*Config)) *server {
	t.Helper()
	return start(t, func(c *Config) {
		c.Framing, c.Protocol = nil, talkConfig{}
		if change != nil {
			change(c)
		}
	})
}

// datum returns the next data.
func (s *server) datum() (d device.Data) {
	s.Helper()
	s.receive(s.data, &d)
	return d
}

func TestAProtocolNamesTheDevice(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("beat\r\nlogin d1\r\nhello\r\nbeat\r\n") // all in one segment
	d.hear("ONwelcome\r\nON")
	s.expect(device.Connected, "d1", "")
	if got := s.datum(); got.Payload != "hello" || got.Device != "d1" || got.Seq != 2 {
		t.Errorf("got %+v", got)
	}
	if w := s.send("d1", "go"); w.Fate != device.Sent {
		t.Errorf("the command: %+v", w)
	}
	d.hear("1 go\r\n")
}

// The first frame names the device and has data, too.
func TestTheFirstFrameIsData(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("pos d1:north\r\n")
	if got := s.datum(); got.Payload != "pos d1:north" || got.Device != "d1" || got.Kind != "position" {
		t.Errorf("got %+v", got)
	}
	d.Close()
	s.expect(device.Connected, "d1", "")
	s.expect(device.Disconnected, "d1", device.ClientClosed)

	s = start(t, func(c *Config) {
		c.Identity = identity{By: byFirstFrame, Pattern: `^(\w+) `, Data: true, Timeout: time.Minute}
	})
	s.dial().say("d2 south\nmore\n")
	if first, second := s.datum(), s.datum(); first.Payload != "d2 south" || first.Device != "d2" || second.Payload != "more" {
		t.Errorf("got %+v and %+v", first, second)
	}
}

func TestAProtocolRefuses(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("leave\r\n")
	d.hear("bye\r\n")
	d.closed()
	s.logged("it asked to leave")
	if n := s.refused(refusedAuth); n != 1 {
		t.Errorf("%v connections are refused", n)
	}
	for said, want := range map[string]string{
		"leave\r\n":     "it asked to leave",
		"broken\r\n":    "the frame makes no sense",
		"pos d2:x\r\n":  `a frame names the device \"d2\", but the connection belongs to \"d1\"`,
		"login d2\r\n":  `a frame names the device \"d2\"`,
		"login a/b\r\n": `a frame names the device \"a/b\"`,
	} {
		d := s.dial()
		d.say("login d1\r\n")
		d.hear("welcome\r\n")
		s.expect(device.Connected, "d1", "")
		d.say(said)
		s.expect(device.Disconnected, "d1", device.ProtocolError)
		d.closed()
		s.logged(want)
	}
	d, _ = s.dialAs(1)
	d.say("login a/b\r\n") // a unit's name
	d.closed()
	s.logged(`the name \"a/b\" contains`)
}

// A protocol can make another payload of frames, and report a problem without ending the session.
func TestAProtocolMakesThePayload(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("odd first\r\nlogin d1\r\n")
	d.hear("welcome\r\n")
	d.say("odd second\r\nmore a\r\nmore b\r\n")
	if first, second := s.frame(), s.frame(); first != "a" || second != "ab" {
		t.Errorf("got %q and %q", first, second)
	}
	s.logged("a strange line: first")
	s.logged("a strange line: second")
	ended := s.ask("d1", "k1 go")
	d.hear("1 k1 go\r\n")
	d.say("ans k1:yes\r\n")
	if w := await.Receive(t, "the answer", ended); w.Fate != device.Answered {
		t.Errorf("got %+v", w)
	}
}

// ask writes a request to a device.
func (s *server) ask(name, cmd string) <-chan device.Written {
	s.Helper()
	w, err := s.Devices().Enqueue(name, []byte(cmd), device.EnqueueOptions{ID: cmd, Request: &device.Request{Timeout: await.Patience}})
	if err != nil {
		s.Fatal(err)
	}
	ended := make(chan device.Written, 1)
	go func() { ended <- w.Wait(s.Context()) }()
	return ended
}

// Only the frame with the command's key answers it. Heartbeats get their response while the
// request is open, and everything else stays data.
func TestAnAnswerHasTheKey(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("login d1\r\n")
	d.hear("welcome\r\n")
	s.expect(device.Connected, "d1", "")
	ended := s.ask("d1", "k7 open")
	d.hear("1 k7 open\r\n")
	d.say("beat\r\n\r\npos d1:x\r\nans k8:no\r\nans k7:yes\r\n")
	d.hear("ON")
	for _, want := range []string{"", "pos d1:x", "ans k8:no"} {
		if got := s.frame(); got != want {
			t.Errorf("the data is %q, want %q", got, want)
		}
	}
	if w := await.Receive(t, "the answer", ended); w.Fate != device.Answered || w.Reply != "ans k7:yes" {
		t.Errorf("got %+v", w)
	}
}

// Without a protocol, an empty frame doesn't answer a request.
func TestABlankLineAnswersNothing(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	ended := s.ask("127.0.0.1", "open")
	d.hear("open\r\n")
	d.say("\r\n\r\nOK\r\n")
	if w := await.Receive(t, "the answer", ended); w.Fate != device.Answered || w.Reply != "OK" {
		t.Errorf("got %+v", w)
	}
	for range 2 {
		if got := s.frame(); got != "" {
			t.Errorf("the data is %q", got)
		}
	}
}

// The device hears that its data is safe only after every consumer has settled it.
func TestAResponseWaitsForTheConsumers(t *testing.T) {
	s := talking(t, nil)
	other := s.subscribe(device.DataTopic)
	d := s.dial()
	d.say("login d1\r\nsafe 1\r\nbeat\r\n")
	d.hear("welcome\r\nON") // the heartbeat came later
	if got := s.frame(); got != "safe 1" {
		t.Errorf("the data is %q", got)
	}
	msg := await.Receive(t, "the other consumer's copy", other)
	d.say("beat\r\n")
	d.hear("ON")
	msg.Nack()
	msg = await.Receive(t, "the copy after a nack", other)
	d.say("beat\r\n")
	d.hear("ON")
	msg.Ack()
	d.hear("ack 1\r\n")
}

// Responses that wait for consumers are written in the order of their frames.
func TestResponsesKeepTheirOrder(t *testing.T) {
	s := build(t, func(c *Config) { c.Framing, c.Protocol, c.MaxFrameRate = nil, talkConfig{}, 0 })
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "data"})
	if err != nil {
		t.Fatal(err)
	}
	deliveries := make(chan *transports.Delivery, 50)
	if _, err := sub.Subscribe(t.Context(), device.DataTopic, func(d *transports.Delivery) { deliveries <- d }); err != nil {
		t.Fatal(err)
	}
	d := s.dial()
	d.say("login d1\r\n")
	d.hear("welcome\r\n")
	for i := range 50 {
		d.say(fmt.Sprintf("safe %d\r\n", i))
	}
	for range 50 {
		await.Receive(t, "the data", deliveries).Settle(&transports.Outcome{})
	}
	for i := range 50 {
		d.hear(fmt.Sprintf("ack %d\r\n", i))
	}
}

// Without consumers nothing can be lost, so the device hears at once that its data is safe.
func TestAResponseNeedsNoConsumers(t *testing.T) {
	s := build(t, func(c *Config) { c.Framing, c.Protocol = nil, talkConfig{} })
	d := s.dial()
	d.say("login d1\r\nsafe 1\r\n")
	d.hear("welcome\r\nack 1\r\n")
}

// clocked is talk with a greeting and a timer. The frame "wake" sets the timer, and "fail" sets it
// so that Tick returns an error.
type clocked struct{ talk }

type clockedConfig struct{}

func (clockedConfig) Protocol() (protocol.Protocol, error) {
	p, err := talkConfig{}.Protocol()
	return clocked{p.(talk)}, err
}

func (clocked) Greet(_ *protocol.State, v *protocol.Verdict) error {
	v.Response = []byte("who?")
	return nil
}

func (p clocked) Decode(s *protocol.State, frame []byte, v *protocol.Verdict) error {
	switch string(frame) {
	case "wake":
		s.Wake = time.Now()
	case "fail":
		s.Wake, s.Own = time.Now(), errors.New("time is over")
	default:
		return p.talk.Decode(s, frame, v)
	}
	v.NoData = true
	return nil
}

func (clocked) Tick(s *protocol.State, _ time.Time, v *protocol.Verdict) error {
	if err, ok := s.Own.(error); ok {
		return err
	}
	v.Response = []byte("tick")
	return nil
}

func TestAProtocolGreetsAndTicks(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Framing, c.Protocol, c.Identity.Timeout = nil, clockedConfig{}, await.Patience
		c.IdleTimeout = await.Patience
	})
	d := s.dial()
	d.hear("who?\r\n")
	d.say("login d1\r\nwake\r\n")
	d.hear("welcome\r\ntick\r\n")
	s.expect(device.Connected, "d1", "")
	d.say("wake\r\n")
	d.hear("tick\r\n")
	d.say("fail\r\n")
	s.expect(device.Disconnected, "d1", device.ProtocolError)
	s.logged("time is over")
	d.closed()
}

func TestUnitsShareTheirDevice(t *testing.T) {
	s := talking(t, nil)
	d := s.dial()
	d.say("login modem\r\nunit 3:on\r\n")
	d.hear("welcome\r\n")
	if got := s.datum(); got.Device != "modem/3" {
		t.Errorf("the data is of %q", got.Device)
	}
	if w := s.send("modem/3", "read"); w.Fate != device.Sent {
		t.Errorf("the command: %+v", w)
	}
	d.hear("1@3 read\r\n")
	if base := s.Devices().Base("modem/3"); base != "modem" {
		t.Errorf("the base is %q", base)
	}
	if s.Devices().Epoch("modem/3") != s.Devices().Epoch("modem") || s.Devices().Epoch("modem") == 0 {
		t.Error("the unit has another epoch than its device")
	}
	if _, err := s.Devices().Enqueue("other/3", []byte("x"), device.EnqueueOptions{}); !errors.Is(err, device.ErrOffline) {
		t.Errorf("a unit of an offline device: %v", err)
	}
}

// A command for the unit of a device that is identified by its address.
func TestUnitsOfAnAddress(t *testing.T) {
	s := talking(t, func(c *Config) { c.Identity.By = byAddress })
	d := s.dial()
	d.say("unit 3:x\r\n")
	if got := s.datum(); got.Device != "127.0.0.1/3" {
		t.Errorf("got %+v", got)
	}
	if name, err := s.Devices().Canonical("::ffff:127.0.0.1/3"); err != nil || name != "127.0.0.1/3" {
		t.Errorf("got %q, %v", name, err)
	}
	if w := s.send("127.0.0.1/3", "go"); w.Fate != device.Sent {
		t.Errorf("the command: %+v", w)
	}
	d.hear("1@3 go\r\n")
}

// A connection can't put off the end of identity.timeout by frames that don't name its device.
func TestADeviceIsNamedInTime(t *testing.T) {
	s := talking(t, func(c *Config) { c.Identity.Timeout = 200 * time.Millisecond })
	d := s.dial()
	go func() { _, _ = io.Copy(io.Discard, d) }() // the responses
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for many := []byte(strings.Repeat("beat\r\n", 5000)); ; {
			if _, err := d.Write(many); err != nil {
				return
			}
		}
	}()
	await.Closed(t, "the connection ends", closed)
	s.logged(errFirstFrameLate.Error())
}

// The bytes of a frame whose end never comes are counted and logged, or published.
func TestATailDoesNotVanish(t *testing.T) {
	for _, partial := range []bool{false, true} {
		s := talking(t, func(c *Config) { c.Data.Partial = partial })
		d := s.dial()
		d.say("login d1\r\nwhole\r\nhal")
		d.hear("welcome\r\n")
		if got := s.frame(); got != "whole" {
			t.Errorf("the data is %q", got)
		}
		d.say("f")
		d.Close()
		s.logged(`frame="\"half\""`)
		if n := testutil.ToFloat64(s.metrics.partials); n != 1 {
			t.Errorf("%v tails are counted", n)
		}
		if partial {
			if got := s.datum(); got.Payload != "half" || !got.Partial {
				t.Errorf("got %+v", got)
			}
		}
		s.expect(device.Connected, "d1", "")
		s.expect(device.Disconnected, "d1", device.ClientClosed)
	}
	s := talking(t, nil)
	d := s.dial()
	d.say("login d") // and no more
	d.Close()
	s.logged(`after 7 bytes: \"login d\"`)
}

// A device that has closed its sending side still gets its commands.
func TestADeviceMayHalfClose(t *testing.T) {
	s := talking(t, func(c *Config) { c.HalfClose, c.IdleTimeout = true, await.Patience })
	d := s.dial()
	d.say("pos d1:x\r\n")
	if err := closeWrite(d.Conn); err != nil {
		t.Fatal(err)
	}
	s.expect(device.Connected, "d1", "")
	await.That(t, "the end of the stream is read", func() (any, bool) {
		state := s.only().peerState()
		return state, state == peerClosed && !s.only().handling.Load()
	})
	if w := s.send("d1", "go"); w.Fate != device.Sent {
		t.Errorf("the command: %+v", w)
	}
	d.hear("1 go\r\n")
	d.reset()
	s.expect(device.Disconnected, "d1", device.ConnectionLost)
}

// Split receives the number of bytes that it has seen. So a long frame in small pieces takes
// linear time.
func TestALongFrameIsSearchedOnce(t *testing.T) {
	counting := &countingFraming{Framing: mustNew(t, codec.Named("line"))}
	c := &conn{transport: &transport{metrics: newTestMetrics(t)}, dialog: device.NewDialog(protocol.Plain(counting), testPeer, "")}
	for range 100 {
		c.rest = append(c.rest, bytes.Repeat([]byte("x"), 40)...)
		if used, err := c.splitFrames(nil, c.rest, c.seen); used != 0 || err != nil {
			t.Fatalf("used %d, %v", used, err)
		}
	}
	if counting.unseen != len(c.rest) {
		t.Errorf("%d bytes of %d were searched", counting.unseen, len(c.rest))
	}
}

// countingFraming counts the bytes that Split hasn't seen.
type countingFraming struct {
	codec.Framing
	unseen int
}

func (f *countingFraming) Split(data []byte, seen int) (int, []byte, error) {
	f.unseen += len(data) - seen
	return f.Framing.Split(data, seen)
}

var testPeer = netip.MustParseAddrPort("192.0.2.1:1000")

func mustNew(t *testing.T, c codec.Config) codec.Framing {
	t.Helper()
	f, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newTestMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
