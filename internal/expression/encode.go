package expression

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// encode writes a value as JSON, with the keys of maps sorted.
func (in *Input) encode(v any) ([]byte, error) {
	w := &writer{in: in}
	if err := w.writeValue(v, 0); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return w.out, in.countBytes(len(w.out) - w.counted)
}

// writer writes a value as JSON and counts the bytes.
type writer struct {
	in  *Input
	out []byte
	// counted is the number of bytes of out that were counted.
	counted int
}

// countEvery is the number of bytes after which a writer counts what it wrote. Counting only at
// the end would be too late, because a list can have a small value a million times.
const countEvery = 64 << 10

func (w *writer) writeValue(v any, depth int) error {
	if depth > jsontext.MaxDepth {
		return fmt.Errorf("nested too deep; allowed: %d levels", jsontext.MaxDepth)
	}
	if n := len(w.out) - w.counted; n > countEvery {
		w.counted += n
		if err := w.in.countBytes(n); err != nil {
			return err
		}
	}
	switch v := v.(type) {
	case nil:
		w.out = append(w.out, "null"...)
	case bool:
		w.out = strconv.AppendBool(w.out, v)
	case int:
		w.out = strconv.AppendInt(w.out, int64(v), 10)
	case float64:
		return w.writeFloat(v)
	case json.Number:
		w.out = append(w.out, v...)
	case string:
		return w.writeString(v)
	case time.Time:
		return w.writeString(v.Format(time.RFC3339Nano))
	case time.Duration:
		return w.writeString(v.String())
	case map[string]any:
		return writeObject(w, v, depth)
	case map[string]string:
		return writeObject(w, v, depth)
	case []any:
		return w.writeList(len(v), func(i int) any { return v[i] }, depth)
	default:
		return w.writeReflected(reflect.ValueOf(v), depth)
	}
	return nil
}

// writeReflected writes a value of one of the rarer types that functions of the language make.
func (w *writer) writeReflected(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		return w.writeList(v.Len(), func(i int) any { return v.Index(i).Interface() }, depth)
	case reflect.Map:
		m := make(map[string]any, v.Len())
		for iter := v.MapRange(); iter.Next(); {
			key, err := w.in.formatText(iter.Key().Interface())
			if err != nil {
				return err
			}
			m[key] = iter.Value().Interface()
		}
		return writeObject(w, m, depth)
	}
	switch {
	case v.CanInt():
		w.out = strconv.AppendInt(w.out, v.Int(), 10)
	case v.CanUint():
		w.out = strconv.AppendUint(w.out, v.Uint(), 10)
	case v.CanFloat():
		return w.writeFloat(v.Float())
	default:
		return fmt.Errorf("%s has no form in JSON", v.Type())
	}
	return nil
}

func (w *writer) writeList(n int, at func(int) any, depth int) error {
	w.out = append(w.out, '[')
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.writeValue(at(i), depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

func writeObject[V any](w *writer, m map[string]V, depth int) error {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	w.out = append(w.out, '{')
	for i, key := range keys {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.writeString(key); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.writeValue(m[key], depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *writer) writeFloat(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%v has no form in JSON", f)
	}
	if text, ok := w.in.written[math.Float64bits(f)]; ok {
		w.out = append(w.out, text...)
	} else {
		w.out = appendFloat(w.out, f)
	}
	return nil
}

// appendFloat appends f as encoding/json and ECMAScript write it.
func appendFloat(dst []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

func (w *writer) writeString(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("a string isn't valid UTF-8; toBase64 turns any bytes into text")
	}
	w.out = jsontext.AppendString(w.out, s)
	return nil
}
