package rules

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"testing"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// handwritten is the protocol GT06 in Go: the peer of the benchmark.
type handwritten struct{ codec.Framing }

func (h handwritten) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	return h.Framing.Split(data, seen)
}

func (h handwritten) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	if len(frame) < 3 {
		return fmt.Errorf("%w: a frame of %d bytes", codec.ErrFrame, len(frame))
	}
	switch frame[0] {
	case 0x01:
		if len(frame) < 11 {
			return fmt.Errorf("%w: a login of %d bytes", codec.ErrFrame, len(frame))
		}
		v.Device = hex.EncodeToString(frame[1:9])[1:]
		v.Response = append([]byte{frame[0]}, frame[len(frame)-2:]...)
		v.NoData, v.Answers = true, protocol.No
	case 0x13, 0x23:
		v.Response = append([]byte{frame[0]}, frame[len(frame)-2:]...)
		v.NoData, v.Answers = true, protocol.No
	case 0x15, 0x21:
		at := 1
		if frame[0] == 0x15 {
			at = 2
		}
		if len(frame) < at+4 {
			return fmt.Errorf("%w: an answer of %d bytes", codec.ErrFrame, len(frame))
		}
		v.Answers, v.Key = protocol.Yes, strconv.Itoa(int(binary.BigEndian.Uint32(frame[at:])))
	}
	return nil
}

func (h handwritten) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	s.Number++
	dst = append(dst, 0x80, byte(4+len(c.Payload)))
	dst = binary.BigEndian.AppendUint32(dst, s.Number)
	dst = append(dst, c.Payload...)
	dst = binary.BigEndian.AppendUint16(dst, 2)
	return binary.BigEndian.AppendUint16(dst, uint16(s.Number)), strconv.Itoa(int(s.Number)), nil
}

// BenchmarkGT06 reads frames of the protocol GT06 by rules and in Go.
func BenchmarkGT06(b *testing.B) {
	for _, frame := range []struct{ name, stream string }{
		{"position", unhexed(gt06Position)}, {"login", unhexed(gt06Login)}, {"answer", framed(b, "15 06 00000001 4F4B 0002 0005")},
	} {
		for _, peer := range []struct {
			name string
			p    protocol.Protocol
		}{{"go", handwritten{gt06Frames{}}}, {"rules", build(b, gt06())}} {
			b.Run(frame.name+"/"+peer.name, func(b *testing.B) {
				data, s, v := []byte(frame.stream), &protocol.State{Device: "123456789012345"}, new(protocol.Verdict)
				b.ReportAllocs()
				for b.Loop() {
					_, payload, err := peer.p.Split(s, data, 0)
					if err != nil {
						b.Fatal(err)
					}
					*v = protocol.Verdict{}
					if err := peer.p.Decode(s, payload, v); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	for _, peer := range []struct {
		name string
		p    protocol.Protocol
	}{{"go", handwritten{gt06Frames{}}}, {"rules", build(b, gt06())}} {
		b.Run("command/"+peer.name, func(b *testing.B) {
			s, c := &protocol.State{Awaits: func(string) bool { return false }}, protocol.Command{Device: "123456789012345", Payload: []byte("RESET#")}
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, _, err = peer.p.Encode(s, dst[:0], c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGPS103 reads a line of the protocol GPS103.
func BenchmarkGPS103(b *testing.B) {
	p := build(b, gps103())
	data := []byte("imei:359586015829802,tracker,0809231929,13554900601,F,112909.397,A,2234.4669,N,11354.3287,E,0.11,;")
	s, v := &protocol.State{Device: "359586015829802"}, new(protocol.Verdict)
	b.ReportAllocs()
	for b.Loop() {
		_, payload, err := p.Split(s, data, 0)
		if err != nil {
			b.Fatal(err)
		}
		*v = protocol.Verdict{}
		if err := p.Decode(s, payload, v); err != nil {
			b.Fatal(err)
		}
	}
}
