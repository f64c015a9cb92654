package jt808

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// The ids of messages that the host reads or sends.
const (
	generalAnswer  = 0x0001
	heartbeat      = 0x0002
	registration   = 0x0100
	authentication = 0x0102
	attributes     = 0x0107 // answers queryAttributes
	multimedia     = 0x0801

	generalResponse      = 0x8001
	requestParts         = 0x8003
	registrationResponse = 0x8100
	queryAttributes      = 0x8107
	multimediaResponse   = 0x8800
)

// quotesSerial has the ids of the answers whose body begins with the serial number of the command.
var quotesSerial = map[uint16]bool{generalAnswer: true, 0x0104: true, 0x0201: true, 0x0302: true, 0x0500: true, 0x0700: true, 0x0802: true, 0x0805: true}

// The results of responses.
const (
	accepted   = 0
	failed     = 1
	noTerminal = 4 // of a registration
)

// platform implements the protocol. It is safe for concurrent use.
type platform struct{ Config }

var (
	_ protocol.Ticker = (*platform)(nil)
	_ protocol.Keyed  = (*platform)(nil)
	_ protocol.Tokens = (*platform)(nil)
)

// terminal is the state of a connection. If devices are attached to the connection, it has several
// terminals.
type terminal struct {
	sender // of the latest frame
	// admitted means that the terminal may send data.
	admitted bool
	// queried is the key of the latest command queryAttributes.
	queried string
	parts   joiner
	payload []byte // of the latest verdict, unless it had several parts
}

// terminalOf returns the state of a connection.
func (p *platform) terminalOf(s *protocol.State) *terminal {
	t, ok := s.Own.(*terminal)
	if !ok {
		t = &terminal{admitted: p.Token == "" && !s.Auth, parts: joiner{limits: &p.Parts}}
		s.Own = t
	}
	return t
}

func (*platform) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	return splitFrame(data, seen)
}

func (*platform) Append(dst, payload []byte) ([]byte, error) { return appendFrame(dst, payload) }

func (*platform) Max() int { return longestFrame }

// HasTokens implements protocol.Tokens.
func (*platform) HasTokens() bool { return true }

// HasKeys implements protocol.Keyed.
func (*platform) HasKeys() bool { return true }

// Encode adds the header to a command.
func (p *platform) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	if n := len(c.Payload); n < 2 || n > 2+longestBody {
		return dst, "", fmt.Errorf("%w: a command is the id of a message (2 bytes) and a body of up to %d bytes, and this one has %d bytes", codec.ErrPayload, longestBody, n)
	}
	t, ok := s.Own.(*terminal)
	if !ok || !t.admitted {
		return dst, "", fmt.Errorf("%w: the terminal isn't authenticated", protocol.ErrLater)
	}
	serial := nextSerial(s)
	key := strconv.Itoa(int(serial))
	id := binary.BigEndian.Uint16(c.Payload)
	if id == queryAttributes {
		t.queried = key
	}
	to := t.terminalNamed(c.Device)
	return to.appendMessage(dst, id, serial, c.Payload[2:]), key, nil
}

// nextSerial returns the serial number of the host's next message.
func nextSerial(s *protocol.State) uint16 {
	n := uint16(s.Number)
	s.Number++
	return n
}

// Decode implements protocol.Protocol.
func (p *platform) Decode(s *protocol.State, frame []byte, v *protocol.Verdict) error {
	t := p.terminalOf(s)
	v.Answers = protocol.No
	h, body, err := parse(frame)
	if err != nil {
		v.NoData, v.Problem = true, fmt.Sprintf("a message is dropped: %v: %.100x", err, frame)
		return nil
	}
	if h.attributes&encrypted != 0 {
		return fmt.Errorf("%w: message %04x is encrypted", codec.ErrFrame, h.id)
	}
	t.sender = h.sender
	respond := func(id uint16, body []byte) { v.Response = t.appendMessage(nil, id, nextSerial(s), body) }
	confirm := func(result byte) { respond(generalResponse, resultBody(h.serial, h.id, result)) }

	isWhole := true
	if h.parts > 0 {
		body, isWhole, v.Problem = t.parts.add(&h, body, time.Now())
		s.Wake = t.parts.wake()
	}
	switch {
	case h.id == registration && isWhole && s.Auth && p.Token == "":
		v.NoData = true
		v.Refusal = fmt.Sprintf("terminal %s registers, and the host can't give it a token", h.name())
		respond(registrationResponse, []byte{byte(h.serial >> 8), byte(h.serial), noTerminal})
		return nil
	case h.id == registration && isWhole:
		v.NoData = true
		token := string(p.Token)
		if token == "" {
			token = h.name()
		}
		respond(registrationResponse, append([]byte{byte(h.serial >> 8), byte(h.serial), accepted}, token...))
	case h.id == authentication && isWhole:
		v.NoData = true
		v.Token = tokenOf(&h, body)
		if t.admitted = p.admits(v.Token); !t.admitted {
			v.Refusal = fmt.Sprintf("terminal %s has a wrong token", h.name())
			confirm(failed)
			return nil
		}
		confirm(accepted)
	case !t.admitted:
		v.Refusal = fmt.Sprintf("terminal %s sends message %04x before it has authenticated", h.name(), h.id)
		v.NoData = true
		confirm(failed)
		return nil
	case !isWhole:
		v.NoData = true
		if v.Problem != "" {
			confirm(failed)
		} else if !t.parts.late || p.After == "" {
			confirm(accepted) // otherwise the message may not be settled yet
		}
	case h.id == heartbeat:
		v.NoData = true
		confirm(accepted)
	case quotesSerial[h.id] && len(body) >= 2:
		v.Answers, v.Key = protocol.Yes, strconv.Itoa(int(binary.BigEndian.Uint16(body)))
	case h.id == attributes && t.queried != "":
		v.Answers, v.Key = protocol.Yes, t.queried
	case h.id == multimedia && len(body) >= 4:
		respond(multimediaResponse, body[:4])
		v.Confirmed = p.After != ""
	default:
		confirm(accepted)
		v.Confirmed = p.After != ""
	}
	if t.admitted {
		v.Device = h.name()
	}
	if !v.NoData {
		v.Kind = fmt.Sprintf("%04x", h.id)
		if h.parts > 0 {
			v.Payload = append(binary.BigEndian.AppendUint16(nil, h.id), body...)
		} else {
			t.payload = append(binary.BigEndian.AppendUint16(t.payload[:0], h.id), body...)
			v.Payload = t.payload
		}
	}
	return nil
}

// resultBody returns the body of a general response.
func resultBody(serial, id uint16, result byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, serial)
	return append(binary.BigEndian.AppendUint16(body, id), result)
}

// tokenOf returns the token of an authentication, or nil. In the edition of 2019, other fields
// follow the token.
func tokenOf(h *header, body []byte) []byte {
	if h.versioned {
		if len(body) == 0 || len(body) < 1+int(body[0]) {
			return nil
		}
		body = body[1 : 1+int(body[0])]
	}
	return bytes.TrimRight(body, "\x00")
}

// admits reports whether a token is the one that the host gives to terminals.
func (p *platform) admits(token []byte) bool {
	return p.Token == "" || subtle.ConstantTimeCompare(token, []byte(p.Token)) == 1
}

// Tick implements protocol.Ticker. It requests missing parts, or drops their messages.
func (p *platform) Tick(s *protocol.State, now time.Time, v *protocol.Verdict) error {
	t := p.terminalOf(s)
	requests, problems := t.parts.expire(now)
	s.Wake = t.parts.wake()
	v.Problem = strings.Join(problems, "; ")
	for _, r := range requests {
		var err error
		v.Raw = true
		if v.Response, err = appendFrame(v.Response, r.to.appendMessage(nil, requestParts, nextSerial(s), r.body())); err != nil {
			return err
		}
	}
	return nil
}
