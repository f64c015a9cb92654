package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pentrough/pentrough/internal/checksum"
)

// BenchmarkSplit measures a position of a GT06 and of a JT/T 808 tracker, next to decoders in Go
// for just this protocol.
func BenchmarkSplit(b *testing.B) {
	for _, bm := range []struct {
		name     string
		config   Config
		byHand   func(data []byte) (advance int, payload []byte)
		position string
	}{
		{"gt06", gt06, splitGT06(checksum.Named["crc16-x25"].Of), "12 0b081d112e10cf027ac7eb0c46584900148f01cc00287d001fb8 0003"},
		{"jt808", jt808, splitJT808, "0200 0032 013511221122 0007 00000000000c000301577ec006ca3a5c00470000000014072317201501040000000030011631010b"},
	} {
		position := unhex(b, bm.position)
		f := build(b, bm.config)
		frame, err := f.Append(nil, position)
		if err != nil {
			b.Fatal(err)
		}
		data := make([]byte, len(frame))
		check := func(advance int, payload []byte) {
			if advance != len(frame) || !bytes.Equal(payload, position) {
				b.Fatal(advance, payload)
			}
		}
		b.Run(bm.name+"/packet", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				copy(data, frame)
				advance, payload, _ := f.Split(data, 0)
				check(advance, payload)
			}
		})
		b.Run(bm.name+"/by hand", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				copy(data, frame)
				check(bm.byHand(data))
			}
		})
	}
}

func splitGT06(crc func([]byte) uint32) func(data []byte) (int, []byte) {
	return func(data []byte) (int, []byte) {
		if len(data) < 5 {
			return 0, nil
		}
		var size, head int
		switch {
		case data[0] == 0x78 && data[1] == 0x78:
			size, head = int(data[2])+5, 3
		case data[0] == 0x79 && data[1] == 0x79:
			size, head = int(binary.BigEndian.Uint16(data[2:]))+6, 4
		}
		if size < head+4 || size > limit || len(data) < size || data[size-2] != '\r' || data[size-1] != '\n' {
			return 0, nil
		}
		if uint32(binary.BigEndian.Uint16(data[size-4:])) != crc(data[2:size-4]) {
			return 0, nil
		}
		return size, data[head : size-4]
	}
}

func splitJT808(data []byte) (int, []byte) {
	if len(data) < 3 || data[0] != 0x7e {
		return 0, nil
	}
	end := bytes.IndexByte(data[1:], 0x7e)
	if end < 0 {
		return 0, nil
	}
	var check byte
	to := 1
	for i := 1; i <= end; i++ {
		c := data[i]
		if c == 0x7d && i < end {
			switch i++; data[i] {
			case 1:
			case 2:
				c = 0x7e
			default:
				return 0, nil
			}
		}
		data[to] = c
		to++
		check ^= c
	}
	if check != 0 || to < 2 {
		return 0, nil
	}
	return end + 2, data[1 : to-1]
}
