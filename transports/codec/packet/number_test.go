package packet

import "testing"

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
