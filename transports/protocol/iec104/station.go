package iec104

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// A frame is 0x68, the length of the rest, a control field of 4 bytes, and in an I frame an ASDU.
const (
	start       = 0x68
	headSize    = 2
	controlSize = 4
	maxLength   = 253
)

// station implements the protocol. It is safe for concurrent use.
type station struct{ Config }

var (
	_ protocol.Greeter = (*station)(nil)
	_ protocol.Ticker  = (*station)(nil)
	_ protocol.Keyed   = (*station)(nil)
)

// Split returns the control field and the ASDU of a frame.
func (*station) Split(_ *protocol.State, data []byte, _ int) (int, []byte, error) {
	if data[0] != start {
		return 0, nil, fmt.Errorf("%w: a frame starts with %#02x, not with %#02x", codec.ErrFrame, data[0], start)
	}
	if len(data) < headSize {
		return 0, nil, nil
	}
	n := int(data[1])
	switch {
	case n < controlSize || n > maxLength:
		return 0, nil, fmt.Errorf("%w: the length of a frame is %d; allowed: from %d to %d", codec.ErrFrame, n, controlSize, maxLength)
	case len(data) < headSize+n:
		return 0, nil, nil
	}
	return headSize + n, data[headSize : headSize+n], nil
}

// Append makes a frame of a control field and an ASDU.
func (*station) Append(dst, payload []byte) ([]byte, error) {
	if n := len(payload); n < controlSize || n > maxLength {
		return dst, fmt.Errorf("%w: it has %d bytes; allowed: from %d to %d", codec.ErrPayload, n, controlSize, maxLength)
	}
	return append(append(dst, start, byte(len(payload))), payload...), nil
}

// Max implements protocol.Protocol.
func (*station) Max() int { return headSize + maxLength }

// HasKeys implements protocol.Keyed.
func (*station) HasKeys() bool { return true }

// Greet starts the data transfer.
func (p *station) Greet(s *protocol.State, v *protocol.Verdict) error {
	l := &link{config: &p.Config}
	s.Own = l
	v.Response = l.start(time.Now())
	s.Wake = l.wake()
	return nil
}

// Decode implements protocol.Protocol.
func (p *station) Decode(s *protocol.State, frame []byte, v *protocol.Verdict) error {
	l, ok := s.Own.(*link)
	if !ok {
		return errors.New("the connection wasn't greeted")
	}
	control, a := [controlSize]byte(frame), asdu(frame[controlSize:])
	response, isData, err := l.receive(control, len(a) > 0, time.Now())
	s.Wake = l.wake()
	if err != nil {
		return fmt.Errorf("%w: %w", codec.ErrFrame, err)
	}
	v.Response = response
	v.Answers, v.NoData = protocol.No, !isData
	if !isData {
		return nil
	}
	if len(a) < minASDU {
		return fmt.Errorf("%w: an ASDU of %d bytes; it has at least %d", codec.ErrFrame, len(a), minASDU)
	}
	v.Payload, v.Kind = a, strconv.Itoa(int(a[0]))
	if key := a.answers(); key != "" {
		v.Answers, v.Key = protocol.Yes, key
	}
	return nil
}

// Tick implements protocol.Ticker.
func (p *station) Tick(s *protocol.State, now time.Time, v *protocol.Verdict) error {
	l, ok := s.Own.(*link)
	if !ok {
		return nil
	}
	controls, err := l.tick(now)
	s.Wake = l.wake()
	if err != nil || len(controls) == 0 {
		return err
	}
	v.Raw = true
	for _, control := range controls {
		if v.Response, err = p.Append(v.Response, control); err != nil {
			return err
		}
	}
	return nil
}

// Encode makes an I frame of an ASDU.
func (p *station) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	a := asdu(c.Payload)
	switch {
	case len(a) < minASDU || len(a) > maxASDU:
		return dst, "", fmt.Errorf("%w: an ASDU has from %d to %d bytes, and this one %d", codec.ErrPayload, minASDU, maxASDU, len(a))
	case a[0] < firstControl:
		return dst, "", fmt.Errorf("%w: the type of the ASDU is %d; the controlling station sends types from %d", codec.ErrPayload, a[0], firstControl)
	}
	key := a.key(a[0])
	l, ok := s.Own.(*link)
	switch {
	case !ok || !l.started:
		return dst, "", fmt.Errorf("%w: the data transfer isn't started", protocol.ErrLater)
	case len(l.sentAt) >= p.K:
		return dst, "", fmt.Errorf("%w: %d frames aren't acknowledged", protocol.ErrLater, len(l.sentAt))
	case s.Awaits(key):
		return dst, "", fmt.Errorf("%w: an equal command waits for its answer", protocol.ErrLater)
	}
	sent, received := l.send(time.Now())
	s.Wake = l.wake()
	dst = binary.LittleEndian.AppendUint16(dst, sent<<1)
	dst = binary.LittleEndian.AppendUint16(dst, received<<1)
	return append(dst, a...), key, nil
}
