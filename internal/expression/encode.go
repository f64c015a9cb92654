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
	if err := w.value(v, 0); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return w.out, in.grow(len(w.out) - w.counted)
}

type writer struct {
	in  *Input
	out []byte
	// counted is how much of out was counted already.
	counted int
}

// countEvery is how much may be written until it is counted: a small value may stand in a list a million times.
const countEvery = 64 << 10

func (w *writer) value(v any, depth int) error {
	if depth > jsontext.MaxDepth {
		return fmt.Errorf("nested too deep; allowed: %d levels", jsontext.MaxDepth)
	}
	if n := len(w.out) - w.counted; n > countEvery {
		w.counted += n
		if err := w.in.grow(n); err != nil {
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
		return w.float(v)
	case json.Number:
		w.out = append(w.out, v...)
	case string:
		return w.str(v)
	case time.Time:
		return w.str(v.Format(time.RFC3339Nano))
	case time.Duration:
		return w.str(v.String())
	case map[string]any:
		return object(w, v, depth)
	case map[string]string:
		return object(w, v, depth)
	case []any:
		return w.list(len(v), func(i int) any { return v[i] }, depth)
	default:
		return w.other(reflect.ValueOf(v), depth)
	}
	return nil
}

// other writes what the language's functions make beside the usual.
func (w *writer) other(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		return w.list(v.Len(), func(i int) any { return v.Index(i).Interface() }, depth)
	case reflect.Map:
		m := make(map[string]any, v.Len())
		for iter := v.MapRange(); iter.Next(); {
			key, err := w.in.format(iter.Key().Interface())
			if err != nil {
				return err
			}
			m[key] = iter.Value().Interface()
		}
		return object(w, m, depth)
	}
	switch {
	case v.CanInt():
		w.out = strconv.AppendInt(w.out, v.Int(), 10)
	case v.CanUint():
		w.out = strconv.AppendUint(w.out, v.Uint(), 10)
	case v.CanFloat():
		return w.float(v.Float())
	default:
		return fmt.Errorf("%s has no form in JSON", v.Type())
	}
	return nil
}

func (w *writer) list(n int, at func(int) any, depth int) error {
	w.out = append(w.out, '[')
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.value(at(i), depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

func object[V any](w *writer, m map[string]V, depth int) error {
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
		if err := w.str(key); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.value(m[key], depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *writer) float(f float64) error {
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

func (w *writer) str(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("a string isn't valid UTF-8; toBase64 makes text of any bytes")
	}
	w.out = jsontext.AppendString(w.out, s)
	return nil
}
