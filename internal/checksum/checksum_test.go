package checksum

import "testing"

// The catalogue of parametrised CRC algorithms has the check of "123456789" for each algorithm.
func TestChecks(t *testing.T) {
	data := []byte("123456789")
	want := map[string]uint32{
		"xor":               0x31,
		"sum8":              0xdd,
		"crc16-x25":         0x906e,
		"crc16-ibm":         0xbb3d,
		"crc16-modbus":      0x4b37,
		"crc16-kermit":      0x2189,
		"crc16-xmodem":      0x31c3,
		"crc16-ccitt-false": 0x29b1,
		"crc32":             0xcbf43926,
		"crc16-hj212":       bitwiseHJ212(data),
	}
	for name, s := range Named {
		if got := s.Of(data); got != want[name] || got == 0 {
			t.Errorf("%s is %#x, not %#x", name, got, want[name])
		}
	}
}

// bitwiseHJ212 is the CRC as appendix A of HJ 212 describes it. TestProtocols has the example of
// the standard.
func bitwiseHJ212(data []byte) uint32 {
	crc := uint32(0xffff)
	for _, b := range data {
		crc = crc>>8 ^ uint32(b)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low == 1 {
				crc ^= 0xa001
			}
		}
	}
	return crc
}
