package expression

import (
	"errors"
	"fmt"
	"math/bits"
	"reflect"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// How much is done in the time of one iteration, about.
const (
	bytesPerStep    = 256
	elementsPerStep = 4
	// decodedPerStep is how many bytes of JSON are decoded.
	decodedPerStep = 32
	// walkedPerStep is how many elements are only looked at.
	walkedPerStep = 64
	// matchedPerStep is how many bytes a regular expression of the size 1 looks at.
	matchedPerStep = 64
	// comparedPerStep is how many elements a sort compares.
	comparedPerStep = 32
	// compared is how often a sort compares each of a million elements, about.
	compared = 20
	// cutPerStep is how many bytes of a set of characters trim looks through.
	cutPerStep = 4096
	// zoneSteps is what reading a time zone takes.
	zoneSteps = 50
)

// What values take in memory, about.
const (
	elementSize = 16
	entrySize   = 48
	mapSize     = 320
)

// count spends what a function costs that is given v.
func (in *Input) count(kind cost, v any) error {
	switch kind {
	case counts:
		return in.spend(1 + textLength(v)/bytesPerStep)
	case zone:
		return in.spend(zoneSteps + weight(v))
	case searched:
		if reflect.ValueOf(v).Kind() == reflect.Map {
			return in.spend(1)
		}
		return in.count(deep, v)
	case deep, sorted, squared:
		n := length(v)
		s, err := in.measure(v)
		if err != nil {
			return err
		}
		text := s.text / bytesPerStep
		switch kind {
		case deep:
			return in.spend(1 + s.elements/elementsPerStep + text)
		case sorted:
			return in.spend(1 + (n/comparedPerStep+text)*bits.Len(uint(n)))
		default:
			return in.spend(1 + n*(s.elements/elementsPerStep+text))
		}
	default:
		return in.spend(weight(v))
	}
}

// weight is how many steps it takes to read a value, but not what lies in its elements.
func weight(v any) int {
	if s, ok := v.(string); ok {
		return 1 + len(s)/bytesPerStep
	}
	return 1 + length(v)/elementsPerStep
}

func textLength(v any) int {
	s, _ := v.(string)
	return len(s)
}

// length is how many elements a list or map has; 0 of anything else.
func length(v any) int {
	switch v := v.(type) {
	case nil, string, int, float64, bool:
		return 0
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return r.Len()
	default:
		return 0
	}
}

func bytesOf(v any) int {
	if s, ok := v.(string); ok {
		return len(s)
	}
	return elementSize * length(v)
}

// size is how much is in a value, where what is in it several times counts as often.
type size struct {
	// elements are those of lists and maps, text is the length of all strings.
	elements, text int
	// left is how many bytes all may have until a walk ends.
	left int
}

var errLarge = errors.New("a list or map is too large, counted with all that is in it")

// measure walks through a value.
func (in *Input) measure(v any) (size, error) {
	s := size{left: in.env.limits.Values}
	if err := s.walk(v, 0); err != nil {
		return s, err
	}
	return s, nil
}

// whole counts a list or map that the program made, with all that is in it.
func (in *Input) whole(v any) error {
	s, err := in.measure(v)
	if err != nil {
		return err
	}
	if reflect.ValueOf(v).Kind() == reflect.Map {
		if err := in.keep(mapSize + entrySize*length(v)); err != nil {
			return err
		}
	}
	return in.spend(s.elements / walkedPerStep)
}

// keep counts memory of lists and maps that nothing else counts.
func (in *Input) keep(n int) error {
	in.values += n
	if in.values > in.env.limits.Values {
		return fmt.Errorf("lists and maps of this message take more than %d bytes", in.env.limits.Values)
	}
	return nil
}

func (s *size) walk(v any, depth int) error {
	if depth > jsontext.MaxDepth {
		return fmt.Errorf("a list or map is nested too deep; allowed: %d levels", jsontext.MaxDepth)
	}
	switch v := v.(type) {
	case nil, bool, int, float64:
		return nil
	case string:
		s.text += len(v)
		return s.take(len(v))
	case []any:
		if err := s.add(len(v)); err != nil {
			return err
		}
		for _, inner := range v {
			if err := s.walk(inner, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		if err := s.add(len(v)); err != nil {
			return err
		}
		for key, inner := range v {
			s.text += len(key)
			if err := s.take(len(key)); err != nil {
				return err
			}
			if err := s.walk(inner, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return s.other(reflect.ValueOf(v), depth)
}

// other walks through what the language's functions make beside the usual.
func (s *size) other(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		if err := s.add(v.Len()); err != nil {
			return err
		}
		switch v.Type().Elem().Kind() {
		case reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.String:
		default:
			return nil
		}
		for i := range v.Len() {
			if err := s.walk(v.Index(i).Interface(), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		if err := s.add(v.Len()); err != nil {
			return err
		}
		for entries := v.MapRange(); entries.Next(); {
			for _, part := range []reflect.Value{entries.Key(), entries.Value()} {
				if err := s.walk(part.Interface(), depth+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *size) add(elements int) error {
	s.elements += elements
	return s.take(elementSize * elements)
}

func (s *size) take(n int) error {
	if s.left -= n; s.left < 0 {
		return errLarge
	}
	return nil
}
