// Package protocoltest is the conformance suite of protocols. Every protocol passes it:
//
//	func TestProtocol(t *testing.T) {
//		protocoltest.Run(t, build(t), protocoltest.Example{
//			Name:   "login and position",
//			Stream: "##,imei:359586015829802,A;imei:359586015829802,tracker,...;",
//			Frames: []protocoltest.Frame{
//				{Device: "359586015829802", Response: "LOAD", Answers: protocol.No, NoData: true},
//				{Device: "359586015829802", Kind: "tracker"},
//			},
//		})
//	}
//
// Take the streams from manuals and from real devices.
package protocoltest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// Example is what happens on one connection.
type Example struct {
	// Name is the name of the subtest.
	Name string
	// Auth is that of protocol.State.
	Auth bool
	// Greeting is what the host says first.
	Greeting string
	// Login is what the device sends before the commands. Its frames are the first ones of Frames.
	Login string
	// Commands are written to the device before it sends the stream.
	Commands []Command
	// Stream is what the device sends.
	Stream string
	// Frames are the frames of the stream.
	Frames []Frame
	// Error is a part of the error that ends the stream after the frames. Without it, the stream
	// has no error.
	Error string
}

// Command is a command and what the protocol makes of it.
type Command struct {
	// Device, Unit, ID and Payload are those of protocol.Command.
	Device, Unit, ID, Payload string
	// Wire is what the host writes to the device.
	Wire string
	// Key is the key of the answer.
	Key string
	// Error is a part of the error that rejects the command, instead of Wire and Key.
	Error string
}

// Frame is a frame and what the protocol says of it.
type Frame struct {
	// Device, Unit, Token, Kind, Payload, Problem, Refusal, Answers, Key, NoData and Confirmed are
	// those of protocol.Verdict.
	Device, Unit, Token, Kind string
	Payload, Problem, Refusal string
	Answers                   protocol.Answers
	Key                       string
	NoData, Confirmed         bool
	// Response is what the host writes to the device because of the frame.
	Response string
}

// Run checks a protocol with examples. Each stream must give the same frames, no matter in which
// pieces it arrives. If an example has commands and an answer, one of the commands has the key of
// the answer.
func Run(t *testing.T, p protocol.Protocol, examples ...Example) {
	t.Helper()
	if len(examples) == 0 {
		t.Fatal("protocoltest needs at least one example")
	}
	for _, e := range examples {
		t.Run(e.Name, func(t *testing.T) {
			checkKeys(t, e)
			for _, pieces := range cuts(e.Stream) {
				if problem := problemOf(p, e, pieces); problem != "" {
					t.Fatalf("the stream in pieces %.400q: %s", pieces, problem)
				}
			}
		})
	}
	t.Run("concurrent connections", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for _, e := range examples {
					if problem := problemOf(p, e, []string{e.Stream}); problem != "" {
						t.Error(e.Name + ": " + problem)
					}
				}
			})
		}
		wg.Wait()
	})
}

// problemOf returns how a protocol differs from an example whose stream arrives in pieces.
func problemOf(p protocol.Protocol, e Example, pieces []string) string {
	c, greeting := newConnection(p, e.Auth)
	switch {
	case c.err != nil:
		return c.err.Error()
	case greeting != e.Greeting:
		return fmt.Sprintf("the host greets with %q; want %q", greeting, e.Greeting)
	}
	c.read([]string{e.Login})
	if c.err != nil {
		return fmt.Sprintf("the login: %v", c.err)
	}
	if problem := c.encode(e.Commands); problem != "" {
		return problem
	}
	c.read(pieces)
	return c.compare(e)
}

// cuts returns the stream in all ways to cut it once, and in single bytes.
func cuts(stream string) (all [][]string) {
	all = append(all, []string{stream}, nil)
	for i := range len(stream) {
		all[1] = append(all[1], stream[i:i+1])
		if i > 0 {
			all = append(all, []string{stream[:i], stream[i:]})
		}
	}
	return all
}

// checkKeys checks that the answers of an example have the keys of its commands.
func checkKeys(t *testing.T, e Example) {
	t.Helper()
	if len(e.Commands) == 0 {
		return
	}
	for _, f := range e.Frames {
		if f.Answers == protocol.Yes && !slices.ContainsFunc(e.Commands, func(c Command) bool { return c.Key == f.Key }) {
			t.Errorf("no command has the key %q of the answer", f.Key)
		}
	}
}

// violation is an error of the protocol's code, unlike an error of the stream.
type violation struct{ error }

func violationf(format string, args ...any) error {
	return violation{fmt.Errorf(format, args...)}
}

// connection does what a host does with a connection.
type connection struct {
	protocol protocol.Protocol
	state    *protocol.State
	frames   []Frame
	err      error
}

// newConnection returns a connection and what the host says first on it.
func newConnection(p protocol.Protocol, auth bool) (c *connection, greeting string) {
	c = &connection{protocol: p, state: &protocol.State{Auth: auth, Awaits: func(string) bool { return false }}}
	if g, ok := p.(protocol.Greeter); ok {
		var v protocol.Verdict
		if c.err = g.Greet(c.state, &v); c.err == nil {
			greeting, c.err = c.response(&v)
		}
	}
	if c.err != nil {
		c.err = violationf("greeting: %w", c.err)
	}
	return c, greeting
}

// encode encodes commands. It returns how the first wrong result differs from the expected one.
func (c *connection) encode(commands []Command) string {
	for _, command := range commands {
		wire, key, err := c.encodeOne(protocol.Command{Device: command.Device, Unit: command.Unit, ID: command.ID, Payload: []byte(command.Payload)})
		switch {
		case command.Error != "" || err != nil:
			if err == nil || command.Error == "" || !strings.Contains(err.Error(), command.Error) {
				return fmt.Sprintf("the command %q: %v; want the error %q", command.Payload, err, command.Error)
			}
		case wire != command.Wire || key != command.Key:
			return fmt.Sprintf("the command %q is written as %q with the key %q; want %q with the key %q", command.Payload, wire, key, command.Wire, command.Key)
		}
	}
	return ""
}

// encodeOne returns the frame and the key of a command, and checks the duties of Encode.
func (c *connection) encodeOne(command protocol.Command) (wire, key string, err error) {
	const before = "what was there"
	original := bytes.Clone(command.Payload)
	dst := append(make([]byte, 0, len(before)+1), before...)
	payload, key, err := c.protocol.Encode(c.state, dst, command)
	switch {
	case err != nil && !errors.Is(err, codec.ErrPayload) && !errors.Is(err, protocol.ErrLater):
		return "", "", violationf("encoding: an error that isn't of kind codec.ErrPayload or protocol.ErrLater: %w", err)
	case err != nil:
		return "", "", err
	case string(dst) != before || !bytes.HasPrefix(payload, []byte(before)):
		return "", "", violationf("encoding changed what was in dst to %q and %q", dst, payload)
	case !bytes.Equal(command.Payload, original):
		return "", "", violationf("encoding changed the command to %q", command.Payload)
	}
	frame, err := c.protocol.Append(nil, payload[len(before):])
	if err != nil && !errors.Is(err, codec.ErrPayload) {
		return "", "", violationf("framing: an error that isn't of kind codec.ErrPayload: %w", err)
	}
	return string(frame), key, err
}

// overwritten replaces all bytes of a frame after Decode, because a host may reuse them.
const overwritten = 0xa5

// read reads pieces of a stream until the first error.
func (c *connection) read(pieces []string) {
	var rest []byte
	for _, piece := range pieces {
		if c.err != nil {
			return
		}
		// Copy the rest, so that a slice of the old buffer doesn't show the new bytes.
		rest, c.err = c.split(append(bytes.Clone(rest), piece...), len(rest))
	}
}

// split reads the frames of data and returns the rest.
func (c *connection) split(data []byte, seen int) ([]byte, error) {
	for len(data) > 0 {
		before := bytes.Clone(data)
		advance, frame, err := c.protocol.Split(c.state, data, seen)
		switch {
		case err != nil && !errors.Is(err, codec.ErrFrame):
			return nil, violationf("an error of Split that isn't of kind codec.ErrFrame: %w", err)
		case err != nil:
			return nil, err
		case advance < 0 || advance > len(data):
			return nil, violationf("split used %d of %d bytes", advance, len(data))
		case advance == 0 && !bytes.Equal(data, before):
			return nil, violationf("split needs more bytes, but changed %q to %q", before, data)
		case advance == 0 && len(data) >= c.protocol.Max():
			return nil, violationf("split needs more than the %d bytes of Max", c.protocol.Max())
		case advance == 0:
			return data, nil
		case !bytes.Equal(data[advance:], before[advance:]):
			return nil, violationf("split used %d bytes, and changed others", advance)
		}
		if frame != nil {
			if err := c.decode(frame); err != nil {
				return nil, err
			}
		}
		for i := range data[:advance] {
			data[i] = overwritten
		}
		data, seen = data[advance:], 0
	}
	return nil, nil
}

// decode records what the protocol says of a frame.
func (c *connection) decode(frame []byte) error {
	var v protocol.Verdict
	if err := c.protocol.Decode(c.state, frame, &v); err != nil {
		return err
	}
	if v.Device != "" {
		c.state.Device = v.Device
	}
	f := Frame{
		Device: v.Device, Unit: v.Unit, Token: string(v.Token), Kind: v.Kind, Payload: string(v.Payload), Problem: v.Problem, Refusal: v.Refusal,
		Answers: v.Answers, Key: v.Key, NoData: v.NoData, Confirmed: v.Confirmed,
	}
	var err error
	f.Response, err = c.response(&v)
	c.frames = append(c.frames, f)
	return err
}

// response returns the response of a verdict as the device gets it.
func (c *connection) response(v *protocol.Verdict) (string, error) {
	if v.Response == nil || v.Raw {
		return string(v.Response), nil
	}
	wire, err := c.protocol.Append(nil, v.Response)
	if err != nil {
		return "", fmt.Errorf("framing the response %q: %w", v.Response, err)
	}
	return string(wire), nil
}

// compare returns how the result differs from an example. By now, all frames are overwritten.
func (c *connection) compare(e Example) string {
	switch {
	case e.Error == "" && c.err != nil:
		return c.err.Error()
	case e.Error != "" && (c.err == nil || !strings.Contains(c.err.Error(), e.Error)):
		return fmt.Sprintf("the error is %v; want %s", c.err, e.Error)
	}
	return cmp.Diff(e.Frames, c.frames)
}

// Fuzz checks a protocol with random streams and commands. The protocol must not panic, and a
// stream must give the same frames, no matter in which pieces it arrives.
func Fuzz(f *testing.F, p protocol.Protocol, examples ...Example) {
	f.Helper()
	for i, e := range examples {
		f.Add([]byte(e.Login+e.Stream), uint8(i))
		for _, c := range e.Commands {
			f.Add([]byte(c.Payload), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		whole, _ := newConnection(p, false)
		whole.read([]string{string(data)})
		var pieces []string
		for part := range slices.Chunk(data, int(piece)+1) {
			pieces = append(pieces, string(part))
		}
		cut, _ := newConnection(p, false)
		cut.read(pieces)
		if diff := cmp.Diff(whole.frames, cut.frames); diff != "" {
			t.Fatalf("in pieces of %d: %s", int(piece)+1, diff)
		}
		if (whole.err == nil) != (cut.err == nil) {
			t.Fatalf("read at once: %v; in pieces of %d: %v", whole.err, int(piece)+1, cut.err)
		}
		_, _, err := whole.encodeOne(protocol.Command{Device: "d", Unit: "1", ID: "i", Payload: data})
		for _, err := range []error{whole.err, cut.err, err} {
			if _, ok := errors.AsType[violation](err); ok {
				t.Fatal(err)
			}
		}
	})
}
