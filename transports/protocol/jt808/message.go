package jt808

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/pentrough/pentrough/transports/codec"
)

// A frame is a message between two flags. In the message, a flag and an escape are replaced by two
// bytes. A message is
//
//	id | attributes | [version] | phone | serial number | [number of parts | part] | body | check
//
// All numbers have two bytes, but version and check have one. The phone number has two digits in
// each byte: 6 bytes, or 10 if there is a version. The check is the exclusive or of all bytes
// before it.
const (
	flag       = 0x7e
	escape     = 0x7d
	escapeFlag = 0x02 // after escape: a flag
	escapeSelf = 0x01 // after escape: an escape

	bodyMask    = 0x03ff
	encrypted   = 0x1c00
	hasParts    = 0x2000
	hasVersion  = 0x4000
	longestBody = bodyMask
	longestHead = 21
	// longestFrame is a message whose bytes are all escaped.
	longestFrame = 2*(longestHead+longestBody+1) + 2
)

// header is the header of a message.
type header struct {
	id         uint16
	attributes uint16
	sender
	serial uint16
	// parts is how many parts the message has. part is the number of this part, from 1. Both are 0
	// if the message isn't sent in parts.
	parts, part uint16
}

// sender is the part of a header that is the same in all messages of a terminal.
type sender struct {
	// versioned says that the header has the version, and that the phone number has 10 bytes.
	versioned bool
	version   byte
	phone     [10]byte
}

// name returns the phone number without leading zeros.
func (s *sender) name() string {
	digits := strings.TrimLeft(hex.EncodeToString(s.digits()), "0")
	if digits == "" {
		return "0"
	}
	return digits
}

// terminalNamed returns the sender of another terminal of the same edition. It returns s if the
// name isn't a phone number, because then the connection has only one terminal.
func (s sender) terminalNamed(name string) sender {
	other := s
	digits := other.digits()
	if missing := 2*len(digits) - len(name); missing >= 0 && name != "" {
		name = strings.Repeat("0", missing) + name
	}
	phone, err := hex.DecodeString(name)
	if err != nil || len(phone) != len(digits) {
		return s
	}
	copy(digits, phone)
	return other
}

func (s *sender) digits() []byte {
	if s.versioned {
		return s.phone[:]
	}
	return s.phone[:6]
}

// splitFrame implements protocol.Protocol.Split. The frame is the message with its check.
func splitFrame(data []byte, seen int) (advance int, message []byte, err error) {
	if data[0] != flag {
		return 0, nil, fmt.Errorf("%w: a frame starts with %#02x, not with %#02x", codec.ErrFrame, data[0], flag)
	}
	from := min(max(1, seen), len(data))
	i := bytes.IndexByte(data[from:], flag)
	switch end := from + i; {
	case i < 0 && len(data) >= longestFrame:
		return 0, nil, fmt.Errorf("%w: a frame has no end within %d bytes", codec.ErrFrame, longestFrame)
	case i < 0:
		return 0, nil, nil
	case end == 1:
		return 1, nil, nil // the first flag ends an earlier frame
	default:
		return end + 1, unescape(data[1:end]), nil
	}
}

// unescape removes the escapes in place.
func unescape(message []byte) []byte {
	to := bytes.IndexByte(message, escape)
	if to < 0 {
		return message
	}
	for from := to; from < len(message); from++ {
		b := message[from]
		if b == escape && from+1 < len(message) {
			switch message[from+1] {
			case escapeFlag:
				b, from = flag, from+1
			case escapeSelf:
				from++
			}
		}
		message[to] = b
		to++
	}
	return message[:to]
}

// appendFrame adds the check to a message, and appends the frame to dst.
func appendFrame(dst, message []byte) ([]byte, error) {
	if len(message) > longestHead+longestBody {
		return dst, fmt.Errorf("%w: a message of %d bytes; allowed: up to %d", codec.ErrPayload, len(message), longestHead+longestBody)
	}
	dst = append(dst, flag)
	for _, b := range message {
		dst = appendEscaped(dst, b)
	}
	return append(appendEscaped(dst, xor(message)), flag), nil
}

func appendEscaped(dst []byte, b byte) []byte {
	switch b {
	case flag:
		return append(dst, escape, escapeFlag)
	case escape:
		return append(dst, escape, escapeSelf)
	default:
		return append(dst, b)
	}
}

func xor(message []byte) (x byte) {
	for _, b := range message {
		x ^= b
	}
	return x
}

// parse reads a message with its check. The body is a slice of the message.
func parse(message []byte) (h header, body []byte, err error) {
	last := len(message) - 1
	if last < 0 {
		return h, nil, errors.New("it is empty")
	}
	if want := xor(message[:last]); message[last] != want {
		return h, nil, fmt.Errorf("its check is %02x, and %02x would be right", message[last], want)
	}
	rest := message[:last]
	take := func(n int) (b []byte) {
		if len(rest) < n {
			err = fmt.Errorf("it is too short for its header: %d bytes", len(message))
			return make([]byte, n)
		}
		b, rest = rest[:n], rest[n:]
		return b
	}
	number := func() uint16 { return binary.BigEndian.Uint16(take(2)) }
	h.id, h.attributes = number(), number()
	if h.versioned = h.attributes&hasVersion != 0; h.versioned {
		h.version = take(1)[0]
	}
	copy(h.phone[:], take(len(h.digits())))
	h.serial = number()
	if h.attributes&hasParts != 0 {
		h.parts, h.part = number(), number()
	}
	switch n := int(h.attributes & bodyMask); {
	case err != nil:
	case len(rest) != n:
		err = fmt.Errorf("its body has %d bytes, and its header says %d", len(rest), n)
	case h.attributes&hasParts != 0 && (h.part == 0 || h.part > h.parts):
		err = fmt.Errorf("it is part %d of %d", h.part, h.parts)
	}
	return h, rest, err
}

// appendMessage appends a message for the terminal to dst, without its check.
func (s *sender) appendMessage(dst []byte, id, serial uint16, body []byte) []byte {
	attributes := uint16(len(body))
	if s.versioned {
		attributes |= hasVersion
	}
	dst = binary.BigEndian.AppendUint16(dst, id)
	dst = binary.BigEndian.AppendUint16(dst, attributes)
	if s.versioned {
		dst = append(dst, s.version)
	}
	dst = append(dst, s.digits()...)
	dst = binary.BigEndian.AppendUint16(dst, serial)
	return append(dst, body...)
}
