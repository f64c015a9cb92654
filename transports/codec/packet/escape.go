package packet

import (
	"bytes"
	"slices"
)

// escape replaces bytes by pairs of bytes. All pairs begin with the same byte, which is escaped
// itself. So in escaped bytes, this byte always begins a pair.
type escape struct {
	first byte
	// second maps an escaped byte to the second byte of its pair, and plain maps that byte back.
	// -1 means that there is none.
	second, plain [256]int16
}

func newEscape(first byte) *escape {
	e := &escape{first: first}
	for i := range 256 {
		e.second[i], e.plain[i] = -1, -1
	}
	return e
}

// remove removes the escapes in data[from:] in place and returns the shorter data. A pair that
// stands for nothing is left as it is.
func (e *escape) remove(data []byte, from int) []byte {
	i := bytes.IndexByte(data[from:], e.first)
	if i < 0 {
		return data
	}
	to := from + i
	for i := to; i < len(data); i++ {
		b := data[i]
		if b == e.first && i+1 < len(data) {
			if plain := e.plain[data[i+1]]; plain >= 0 {
				b = byte(plain)
				i++
			}
		}
		data[to] = b
		to++
	}
	return data[:to]
}

// add escapes data[from:] and returns the longer data.
func (e *escape) add(data []byte, from int) []byte {
	more := 0
	for _, b := range data[from:] {
		if e.second[b] >= 0 {
			more++
		}
	}
	// Move the bytes from the end, so that none is overwritten before it has moved.
	to := len(data) + more
	data = slices.Grow(data, more)[:to]
	for i := to - more - 1; i >= from && more > 0; i-- {
		b := data[i]
		to--
		if second := e.second[b]; second >= 0 {
			data[to] = byte(second)
			b = e.first
			to--
			more--
		}
		data[to] = b
	}
	return data
}
