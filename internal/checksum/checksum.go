// Package checksum has the checks that protocols of devices use. Start with [Named].
package checksum

import (
	"hash/crc32"
	"math/bits"
)

// Sum is a check of bytes.
type Sum struct {
	// Width is the natural size of the result, in bytes.
	Width int
	// Of computes the check.
	Of func([]byte) uint32
}

// Named are the checks by name. Their names, and the parameters of the CRCs, are those of the
// catalogue of parametrised CRC algorithms (reveng.sourceforge.io).
var Named = map[string]Sum{
	"xor":               {1, xor},
	"sum8":              {1, sum8},
	"crc16-x25":         {2, reflected(0x1021, 0xffff, 0xffff)},
	"crc16-ibm":         {2, reflected(0x8005, 0, 0)},
	"crc16-modbus":      {2, reflected(0x8005, 0xffff, 0)},
	"crc16-kermit":      {2, reflected(0x1021, 0, 0)},
	"crc16-xmodem":      {2, straight(0x1021, 0)},
	"crc16-ccitt-false": {2, straight(0x1021, 0xffff)},
	"crc16-hj212":       {2, hj212()},
	"crc32":             {4, crc32.ChecksumIEEE},
}

func xor(data []byte) (n uint32) {
	for _, b := range data {
		n ^= uint32(b)
	}
	return n
}

func sum8(data []byte) uint32 {
	var n byte
	for _, b := range data {
		n += b
	}
	return uint32(n)
}

// reflected returns a CRC of 16 bits that takes the lowest bit of each byte first.
func reflected(poly, init, xorOut uint16) func([]byte) uint32 {
	table := reflectedTable(poly)
	return func(data []byte) uint32 {
		crc := init
		for _, b := range data {
			crc = crc>>8 ^ table[byte(crc)^b]
		}
		return uint32(crc ^ xorOut)
	}
}

func reflectedTable(poly uint16) *[256]uint16 {
	table := new([256]uint16)
	poly = bits.Reverse16(poly)
	for i := range table {
		crc := uint16(i)
		for range 8 {
			crc = crc>>1 ^ poly*(crc&1)
		}
		table[i] = crc
	}
	return table
}

// straight returns a CRC of 16 bits that takes the highest bit of each byte first.
func straight(poly, init uint16) func([]byte) uint32 {
	table := new([256]uint16)
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			crc = crc<<1 ^ poly*(crc>>15)
		}
		table[i] = crc
	}
	return func(data []byte) uint32 {
		crc := init
		for _, b := range data {
			crc = crc<<8 ^ table[byte(crc>>8)^b]
		}
		return uint32(crc)
	}
}

// hj212 returns the CRC of HJ 212, appendix A. It is computed like crc16-modbus, but it combines
// each byte with the high half of the sum, and drops the low half.
func hj212() func([]byte) uint32 {
	table := reflectedTable(0x8005)
	return func(data []byte) uint32 {
		crc := uint16(0xffff)
		for _, b := range data {
			crc = table[byte(crc>>8)^b]
		}
		return uint32(crc)
	}
}
