package rules

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/checksum"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// framing is a codec of tests.
type framing struct{ codec.Framing }

func (f framing) New() (codec.Framing, error) { return f.Framing, nil }

// kindFraming is a codec of tests whose frames have kinds.
type kindFraming struct{ codec.Kinds }

func (f kindFraming) New() (codec.Framing, error) { return f.Kinds, nil }

// gt06Frames has the frames of the protocol GT06: 78 78, a length of one byte, the content, a
// check and 0D 0A.
type gt06Frames struct{}

func (gt06Frames) Max() int { return 260 }

func (gt06Frames) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > 253 {
		return dst, fmt.Errorf("%w: too long", codec.ErrPayload)
	}
	start := len(dst) + 2
	dst = append(dst, 0x78, 0x78, byte(len(payload)+2))
	dst = append(dst, payload...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(x25(dst[start:])))
	return append(dst, '\r', '\n'), nil
}

func (gt06Frames) Split(data []byte, _ int) (int, []byte, error) {
	switch {
	case !bytes.HasPrefix([]byte{0x78, 0x78}, data[:min(2, len(data))]):
		return 0, nil, fmt.Errorf("%w: %x", codec.ErrFrame, data[:min(2, len(data))])
	case len(data) < 3:
		return 0, nil, nil
	}
	n := int(data[2]) + 5
	switch {
	case n < 7:
		return 0, nil, fmt.Errorf("%w: too short", codec.ErrFrame)
	case len(data) < n:
		return 0, nil, nil
	}
	if uint32(binary.BigEndian.Uint16(data[n-4:])) != x25(data[2:n-4]) {
		return 0, nil, fmt.Errorf("%w: the check is wrong", codec.ErrFrame)
	}
	return n, data[3 : n-4], nil
}

var x25, modbusSum = checksum.Named["crc16-x25"].Of, checksum.Named["crc16-modbus"].Of

// dtuFrames has the frames of Modbus RTU behind a modem, which registers with REG and a name.
type dtuFrames struct{}

func (dtuFrames) Max() int { return 300 }

func (dtuFrames) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) == 0 || len(payload) > 253 {
		return dst, fmt.Errorf("%w: %d bytes", codec.ErrPayload, len(payload))
	}
	sum := modbusSum(payload)
	return binary.LittleEndian.AppendUint16(append(dst, payload...), uint16(sum)), nil
}

func (f dtuFrames) Split(data []byte, seen int) (int, []byte, error) {
	advance, payload, _, err := f.SplitKind(data, seen)
	return advance, payload, err
}

func (dtuFrames) SplitKind(data []byte, _ int) (int, []byte, string, error) {
	if len(data) < 3 {
		return 0, nil, "", nil
	}
	n, kind := 0, "rtu"
	switch {
	case string(data[:3]) == "REG":
		n, kind = 9, "hello"
	case data[0] == 'p':
		n, kind = 4, "ping"
	case data[1] > 0x80:
		n = 5
	case data[1] < 5:
		n = 5 + int(data[2])
	default:
		n = 8
	}
	if len(data) < n {
		return 0, nil, "", nil
	}
	if kind != "rtu" {
		return n, data[:n], kind, nil
	}
	if uint32(binary.LittleEndian.Uint16(data[n-2:])) != modbusSum(data[:n-2]) {
		return 0, nil, "", fmt.Errorf("%w: the check is wrong", codec.ErrFrame)
	}
	return n, data[:n-2], kind, nil
}

// unhexed returns the bytes of hexadecimal digits with spaces.
func unhexed(digits string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func build(tb testing.TB, c *Config) protocol.Protocol {
	tb.Helper()
	p, err := c.Protocol()
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// with returns a rule with the defaults.
func with(r Rule) Rule {
	r.SetDefaults()
	return r
}

// sign returns a rule with data = false.
func sign(r Rule) Rule {
	r.Data = false
	return r
}
