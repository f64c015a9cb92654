package packet

import "strings"

// number describes a field of a frame that has a number.
type number struct {
	size   int // in bytes, or in digits of a text
	little bool
	base   int // 10 or 16 for text, 0 for binary
}

const upperDigits = "0123456789ABCDEF"

// read returns the number in the field. It reports false if the field isn't a number.
func (f number) read(field []byte) (n uint64, ok bool) {
	for i := range f.size {
		b := field[i]
		switch {
		case f.little:
			n |= uint64(b) << (8 * i)
		case f.base == 0:
			n = n<<8 | uint64(b)
		default:
			if b >= 'a' && b <= 'f' {
				b -= 'a' - 'A'
			}
			digit := strings.IndexByte(upperDigits[:f.base], b)
			if digit < 0 {
				return 0, false
			}
			n = n*uint64(f.base) + uint64(digit)
		}
	}
	return n, true
}

// append appends the field with n to dst. n must be at most the largest number.
func (f number) append(dst []byte, n uint64) []byte {
	at := len(dst)
	for range f.size {
		dst = append(dst, 0)
	}
	field := dst[at:]
	for i := range field {
		last := len(field) - 1 - i
		switch {
		case f.little:
			field[i] = byte(n)
			n >>= 8
		case f.base == 0:
			field[last] = byte(n)
			n >>= 8
		default:
			field[last] = upperDigits[n%uint64(f.base)]
			n /= uint64(f.base)
		}
	}
	return dst
}

// largest returns the largest number that fits into the field.
func (f number) largest() uint64 {
	base := uint64(256)
	if f.base > 0 {
		base = uint64(f.base)
	}
	n := uint64(1)
	for range f.size {
		n *= base
	}
	return n - 1
}
