package expression

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// spellings has the numbers of a message whose text differs from the usual one, such as 1.0 and
// 1e3. It maps the bits of the float64 to the number as it was written. When such a number is
// written again, it has its original text. If one message writes the same value in two ways, both
// are written in the first way.
type spellings map[uint64]string

// decode parses a JSON text and builds the parts that are wanted. An integer becomes an int if it
// fits. Another number becomes a float64 if that keeps its value. Any other number keeps its
// digits as a json.Number, and programs can't compute with it.
func (in *Input) decode(text string, want *reads) (any, error) {
	d := decoder{Scanner: jsontext.New(text), in: in}
	v := d.build(want)
	if d.tooMuch != nil {
		return nil, d.tooMuch
	}
	return v, d.Finish()
}

// decoder builds values. The scanner keeps an error; the values after it have no meaning.
type decoder struct {
	jsontext.Scanner[string]
	in *Input
	// tooMuch is set when the values take too much memory. After that, nothing is built.
	tooMuch error
}

// countMemory counts the memory of a value that was built.
func (d *decoder) countMemory(n int) {
	if d.tooMuch == nil {
		d.tooMuch = d.in.countMemory(n)
	}
}

// build builds the next value. If want is nil, it skips the value and returns nil.
func (d *decoder) build(want *reads) any {
	if want == nil || d.tooMuch != nil {
		d.Value()
		return nil
	}
	switch d.Peek() {
	case '{':
		m := map[string]any{}
		d.countMemory(mapSize)
		for d.Begin('{'); d.Next(); {
			key := d.Key()
			inner := want.ofKey(key)
			if v := d.build(inner); inner != nil {
				m[key] = v
				d.countMemory(entrySize)
			}
		}
		return m
	case '[':
		list := []any{}
		for d.Begin('['); d.Next(); {
			list = append(list, d.build(want))
			d.countMemory(elementSize)
		}
		return list
	case '"':
		return d.Str()
	}
	switch t := d.Value(); t.Kind {
	case 't', 'f':
		return t.Kind == 't'
	case '0':
		return d.in.parseNumber(t.Raw)
	default:
		return nil
	}
}

// ofKey returns what is wanted of the value of a key.
func (r *reads) ofKey(key string) *reads {
	if r == nil || r.all {
		return r
	}
	return r.keys[key]
}

// parseNumber returns an int, a float64 or a json.Number.
func (in *Input) parseNumber(text string) any {
	// an int has no -0
	whole := text != "-0" && !strings.ContainsAny(text, ".eE")
	if whole {
		if i, err := strconv.Atoi(text); err == nil {
			return i
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || whole {
		return json.Number(text)
	}
	if printed := appendFloat(make([]byte, 0, 32), f); string(printed) != text {
		value, ok := jsontext.ParseDecimal(text)
		if kept, _ := jsontext.ParseDecimal(printed); !ok || kept != value {
			return json.Number(text)
		}
		if in.written == nil {
			in.written = spellings{}
		}
		if bits := math.Float64bits(f); in.written[bits] == "" {
			in.written[bits] = text
		}
	}
	return f
}
