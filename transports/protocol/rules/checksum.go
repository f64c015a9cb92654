package rules

import (
	"maps"
	"slices"
	"strings"
)

// crc is a cyclic redundancy check of 16 bits.
type crc struct {
	polynomial, initial, final uint16
	// reflected is set if the lowest bit comes first. Then the polynomial is reversed, too.
	reflected bool
}

// crcs are named as in the catalogue of parametrised CRC algorithms (reveng.sourceforge.io),
// except for ibm, which it calls ARC.
var crcs = map[string]crc{
	"modbus":      {polynomial: 0xa001, initial: 0xffff, reflected: true},
	"ibm":         {polynomial: 0xa001, reflected: true},
	"x25":         {polynomial: 0x8408, initial: 0xffff, final: 0xffff, reflected: true},
	"kermit":      {polynomial: 0x8408, reflected: true},
	"xmodem":      {polynomial: 0x1021},
	"ccitt-false": {polynomial: 0x1021, initial: 0xffff},
}

func (c crc) sum(b []byte) int {
	sum := c.initial
	for _, x := range b {
		if c.reflected {
			sum ^= uint16(x)
		} else {
			sum ^= uint16(x) << 8
		}
		for range 8 {
			switch {
			case c.reflected && sum&1 != 0:
				sum = sum>>1 ^ c.polynomial
			case c.reflected:
				sum >>= 1
			case sum&0x8000 != 0:
				sum = sum<<1 ^ c.polynomial
			default:
				sum <<= 1
			}
		}
	}
	return int(sum ^ c.final)
}

func xor8(b []byte) int {
	var sum byte
	for _, x := range b {
		sum ^= x
	}
	return int(sum)
}

func sum8(b []byte) int {
	var sum byte
	for _, x := range b {
		sum += x
	}
	return int(sum)
}

// sums returns a function that computes a number of all bytes of a text.
func sums(name string, sum func([]byte) int) function {
	return function{usage: name + "(text)", takes: []string{"t"}, pure: true, build: func(_ *compiler, _ fault, args []value) (value, error) {
		return summing(args[0], sum), nil
	}}
}

func summing(of value, sum func([]byte) int) value {
	return numberOf(func(in *input) (int, error) {
		mark := len(in.stack)
		if err := of.text(in); err != nil {
			return 0, err
		}
		return sum(in.pop(mark)), nil
	})
}

func buildCRC16(_ *compiler, f fault, args []value) (value, error) {
	c, ok := crcs[args[0].s]
	if !ok || !args[0].constant {
		return value{}, f.errorf("the first argument of crc16 names the check; allowed: %s", strings.Join(slices.Sorted(maps.Keys(crcs)), ", "))
	}
	return summing(args[1], c.sum), nil
}
