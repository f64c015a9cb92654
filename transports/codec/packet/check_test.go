package packet

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
	for name, s := range sums {
		if got := s.of(data); got != want[name] || got == 0 {
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

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		number number
		n      uint64
		field  string
	}{
		{number{size: 1}, 0xab, "\xab"},
		{number{size: 3}, 0xabcd, "\x00\xab\xcd"},
		{number{size: 3, little: true}, 0xabcd, "\xcd\xab\x00"},
		{number{size: 4, base: 10}, 42, "0042"},
		{number{size: 4, base: 16}, 0xabc, "0ABC"},
	} {
		if got := tt.number.append([]byte("x"), tt.n); string(got) != "x"+tt.field {
			t.Errorf("%+v: %d is written as %q, not %q", tt.number, tt.n, got[1:], tt.field)
		}
		if n, ok := tt.number.read([]byte(tt.field + "99")); !ok || n != tt.n {
			t.Errorf("%+v: %q is read as %d, not %d", tt.number, tt.field, n, tt.n)
		}
	}
	for _, field := range []string{"12a", "1-2", " 12", "+12"} {
		if n, ok := (number{size: 3, base: 10}).read([]byte(field)); ok {
			t.Errorf("%q is read as %d", field, n)
		}
	}
	if n, ok := (number{size: 2, base: 16}).read([]byte("aF")); !ok || n != 0xaf {
		t.Errorf("aF is read as %#x", n)
	}
}
