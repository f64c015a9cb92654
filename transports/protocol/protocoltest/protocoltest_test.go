package protocoltest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unsafe"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// lines is a correct protocol. Frames are lines. "hello NAME" names the device, and the host
// responds to "? X" with X.
type lines struct{}

func (lines) Max() int { return 64 }

func (lines) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > 60 || bytes.ContainsRune(payload, '\n') {
		return dst, codec.ErrPayload
	}
	return append(append(dst, payload...), '\n'), nil
}

func (l lines) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	switch end := bytes.IndexByte(data[seen:], '\n'); {
	case end >= 0:
		return seen + end + 1, data[:seen+end], nil
	case len(data) >= l.Max():
		return 0, nil, codec.ErrFrame
	}
	return 0, nil, nil
}

func (lines) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	if name, ok := bytes.CutPrefix(frame, []byte("hello ")); ok {
		v.Device, v.NoData = string(name), true
	}
	if x, ok := bytes.CutPrefix(frame, []byte("? ")); ok {
		v.Response = x
	}
	return nil
}

func (lines) Encode(_ *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	return append(dst, c.Payload...), "", nil
}

var examples = []Example{{
	Name:     "lines",
	Commands: []Command{{Payload: "open", Wire: "open\n"}, {Payload: "a\nb", Error: "payload"}},
	Stream:   "hello dev-1\n? x\n",
	Frames:   []Frame{{Device: "dev-1", NoData: true}, {Response: "x\n"}},
}, {
	Name: "a long line", Stream: strings.Repeat("x", 64), Error: "cannot be framed",
}}

func TestSuite(t *testing.T) { Run(t, lines{}, examples...) }

func FuzzSuite(f *testing.F) { Fuzz(f, lines{}, examples...) }

type (
	keeping  struct{ lines }
	impure   struct{ lines }
	stalling struct{ lines }
	greedy   struct{ lines }
	unkind   struct{ lines }
	dirty    struct{ lines }
)

func (keeping) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	name := frame[len(frame)/2:]
	v.Device, v.NoData = unsafe.String(&name[0], len(name)), true
	return nil
}

func (i impure) Split(s *protocol.State, data []byte, seen int) (int, []byte, error) {
	advance, frame, err := i.lines.Split(s, data, seen)
	if advance == 0 {
		data[0] ^= 1
	}
	return advance, frame, err
}

func (stalling) Split(*protocol.State, []byte, int) (int, []byte, error) { return 0, nil, nil }

func (greedy) Split(_ *protocol.State, data []byte, _ int) (int, []byte, error) {
	return len(data), data, nil
}

func (unkind) Split(*protocol.State, []byte, int) (int, []byte, error) {
	return 0, nil, errors.New("no")
}

func (dirty) Encode(_ *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	return append(dst[:0], c.Payload...), "", nil
}

func TestWrongProtocolsAreSeen(t *testing.T) {
	for want, p := range map[string]protocol.Protocol{
		`Device: "dev-1"`:               keeping{},
		"needs more bytes, but changed": impure{},
		"needs more than the 64 bytes":  stalling{},
		"protocoltest.Frame{":           greedy{},
		"isn't of kind codec.ErrFrame":  unkind{},
		"encoding changed what was in":  dirty{},
	} {
		seen := ""
		for _, e := range examples {
			for _, pieces := range cuts(e.Stream) {
				if problem := problemOf(p, e, pieces); strings.Contains(problem, want) {
					seen = problem
				}
			}
		}
		if seen == "" {
			t.Errorf("%T: nothing is said of %s", p, want)
		}
	}
}
