package rules

import (
	"fmt"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/internal/byteexpr"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// rules implements the protocol. It is safe for concurrent use.
type rules struct {
	framing codec.Framing
	// kinds is the framing if it distinguishes kinds of frames, or nil.
	kinds         codec.Kinds
	command, asks *byteexpr.Program
	rules         []*rule
	// numbered is set if command or asks uses n.
	numbered bool
	// units is set if a rule names a unit, or if command or asks uses unit.
	units bool
	// listed is set if answers have no key and rules say what answers look like.
	listed bool
	// limit is the largest size of the texts of one run of an expression.
	limit  int
	values sync.Pool
}

// input returns an input that must be given back with release.
func (p *rules) input(data []byte) byteexpr.Input {
	values, ok := p.values.Get().(*byteexpr.Values)
	if !ok {
		values = &byteexpr.Values{Limit: p.limit}
	}
	return byteexpr.Input{Data: data, Values: values}
}

func (p *rules) release(v *byteexpr.Values) {
	v.Reset()
	p.values.Put(v)
}

func (p *rules) Split(s *protocol.State, data []byte, seen int) (int, []byte, error) {
	if p.kinds == nil {
		return p.framing.Split(data, seen)
	}
	advance, frame, kind, err := p.kinds.SplitKind(data, seen)
	if frame != nil {
		s.FrameKind = kind
	}
	return advance, frame, err
}

func (p *rules) Append(dst, payload []byte) ([]byte, error) { return p.framing.Append(dst, payload) }

func (p *rules) Max() int { return p.framing.Max() }

// HasUnits implements protocol.Units.
func (p *rules) HasUnits() bool { return p.units }

// HasTokens implements protocol.Tokens.
func (p *rules) HasTokens() bool {
	return slices.ContainsFunc(p.rules, func(r *rule) bool { return r.token != nil })
}

func (p *rules) Decode(s *protocol.State, frame []byte, v *protocol.Verdict) error {
	for i, r := range p.rules {
		fits, known := r.quickFits(frame, s.FrameKind)
		if !known || fits && !r.plain {
			return p.decode(s, frame, v, i)
		}
		if fits {
			p.complete(r, v)
			return nil
		}
	}
	return unknownFrame(s, frame)
}

// decode is Decode for rules that need an input. first is the index of the rule to begin with.
func (p *rules) decode(s *protocol.State, frame []byte, v *protocol.Verdict, first int) error {
	in := p.input(frame)
	defer p.release(in.Values)
	in.Device = s.Device
	for i, r := range p.rules[first:] {
		fits, err := r.fits(in, s.FrameKind)
		if err == nil && fits {
			err = r.apply(in, s, v)
		}
		if err != nil {
			return fmt.Errorf("%w: rules[%d].%w", codec.ErrFrame, first+i, err)
		}
		if fits {
			p.complete(r, v)
			return nil
		}
	}
	return unknownFrame(s, frame)
}

// complete sets the fields of a verdict that need no expression: whether the frame is data, and
// whether it can be an answer.
func (p *rules) complete(r *rule, v *protocol.Verdict) {
	v.NoData = r.noData
	if r.answers == nil && (r.noData || p.listed) {
		v.Answers = protocol.No
	}
}

func unknownFrame(s *protocol.State, frame []byte) error {
	if s.FrameKind != "" {
		return fmt.Errorf("%w: no rule fits the frame %.100q of kind %s", codec.ErrFrame, frame, s.FrameKind)
	}
	return fmt.Errorf("%w: no rule fits the frame %.100q", codec.ErrFrame, frame)
}

// HasKeys implements protocol.Keyed.
func (p *rules) HasKeys() bool { return p.asks != nil }

func (p *rules) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	if p.command == nil && p.asks == nil {
		return append(dst, c.Payload...), "", nil
	}
	in := p.input(c.Payload)
	defer p.release(in.Values)
	in.Command, in.Device, in.Unit, in.ID = c.Payload, c.Device, c.Unit, c.ID
	number := s.Number
	if p.numbered {
		in.Number = nextNumberOf(s)
	}
	payload := dst
	if p.command == nil {
		payload = append(payload, c.Payload...)
	} else {
		var err error
		if payload, err = p.command.Append(in, dst); err != nil {
			return dst, "", fmt.Errorf("%w: command: %w", codec.ErrPayload, err)
		}
	}
	if p.asks == nil {
		return payload, "", nil
	}
	in.Data = payload[len(dst):]
	key, err := p.asks.Read(in, "")
	if err != nil {
		return dst, "", fmt.Errorf("%w: asks: %w", codec.ErrPayload, err)
	}
	if s.Awaits(key) {
		s.Number = number
		return dst, "", protocol.ErrLater
	}
	return payload, key, nil
}
