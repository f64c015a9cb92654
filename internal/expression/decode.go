package expression

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// spellings are the numbers of a message whose value a float64 prints exactly, but in another
// spelling, such as 1.0 and 1e3: by the bits of the float64, the number as it was written. They are
// sent on as they came, unless one message writes the same value in two ways: then both are written
// in one of them.
type spellings map[uint64]string

// decode reads one JSON value, all of it, and builds what is wanted: of objects only the keys that
// are named, of what nobody named nothing. Numbers are int where they fit, else float64 if that
// prints the same value. Any other number keeps its digits as json.Number, and nothing can be
// computed with it.
func (in *Input) decode(text string, want *reads) (any, error) {
	d := decoder{Scanner: jsontext.New(text), in: in}
	v := d.value(want)
	if d.tooMuch != nil {
		return nil, d.tooMuch
	}
	return v, d.Finish()
}

// decoder builds values. After an error, which the scanner keeps, they mean nothing.
type decoder struct {
	jsontext.Scanner[string]
	in *Input
	// tooMuch is set once the values take too much memory. Then nothing is built any more.
	tooMuch error
}

// keep counts the memory of what was built.
func (d *decoder) keep(n int) {
	if d.tooMuch == nil {
		d.tooMuch = d.in.keep(n)
	}
}

// value builds the next value. A want of nil means that it is only passed over.
func (d *decoder) value(want *reads) any {
	if want == nil || d.tooMuch != nil {
		d.Value()
		return nil
	}
	switch d.Peek() {
	case '{':
		m := map[string]any{}
		d.keep(mapSize)
		for d.Begin('{'); d.Next(); {
			key := d.Key()
			inner := want.of(key)
			if v := d.value(inner); inner != nil {
				m[key] = v
				d.keep(entrySize)
			}
		}
		return m
	case '[':
		list := []any{}
		for d.Begin('['); d.Next(); {
			list = append(list, d.value(want))
			d.keep(elementSize)
		}
		return list
	case '"':
		return d.Str()
	}
	switch t := d.Value(); t.Kind {
	case 't', 'f':
		return t.Kind == 't'
	case '0':
		return d.in.number(t.Raw)
	default:
		return nil
	}
}

// of is what is wanted of a key's value.
func (r *reads) of(key string) *reads {
	if r == nil || r.all {
		return r
	}
	return r.keys[key]
}

func (in *Input) number(text string) any {
	// -0 is no int.
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
