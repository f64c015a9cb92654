package expression

import (
	"errors"
	"fmt"
	"math/bits"
	"reflect"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// About how much is done in the time of one iteration.
const (
	bytesPerStep    = 256
	elementsPerStep = 4
	// decodedPerStep is the number of bytes of JSON that are parsed.
	decodedPerStep = 32
	// walkedPerStep is the number of elements that a walk visits.
	walkedPerStep = 64
	// matchedPerStep is the number of bytes that a regular expression of size 1 reads.
	matchedPerStep = 64
	// comparedPerStep is the number of elements that a sort compares.
	comparedPerStep = 32
	// compared is about how often a sort of a million elements compares each of them.
	compared = 20
	// cutPerStep is the number of bytes in a set of characters that trim searches.
	cutPerStep = 4096
	// zoneSteps is the number of steps for reading a time zone.
	zoneSteps = 50
)

// About how many bytes of memory values take.
const (
	elementSize = 16
	entrySize   = 48
	mapSize     = 320
)

// countCost spends the steps of a function with the argument v.
func (in *Input) countCost(kind cost, v any) error {
	switch kind {
	case counts:
		return in.spendSteps(1 + textLength(v)/bytesPerStep)
	case zone:
		return in.spendSteps(zoneSteps + readSteps(v))
	case searched:
		if reflect.ValueOf(v).Kind() == reflect.Map {
			return in.spendSteps(1)
		}
		return in.countCost(deep, v)
	case deep, sorted, squared:
		n := lengthOf(v)
		s, err := in.measure(v)
		if err != nil {
			return err
		}
		text := s.text / bytesPerStep
		switch kind {
		case deep:
			return in.spendSteps(1 + s.elements/elementsPerStep + text)
		case sorted:
			return in.spendSteps(1 + (n/comparedPerStep+text)*bits.Len(uint(n)))
		default:
			return in.spendSteps(1 + n*(s.elements/elementsPerStep+text))
		}
	default:
		return in.spendSteps(readSteps(v))
	}
}

// readSteps returns the number of steps for reading a value without the content of its elements.
func readSteps(v any) int {
	if s, ok := v.(string); ok {
		return 1 + len(s)/bytesPerStep
	}
	return 1 + lengthOf(v)/elementsPerStep
}

// textLength returns the bytes of a string; 0 for anything else.
func textLength(v any) int {
	s, _ := v.(string)
	return len(s)
}

// lengthOf returns the number of elements of a list or map; 0 for anything else.
func lengthOf(v any) int {
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

// bytesOf returns the approximate size of a string or list in bytes, without the content of its
// elements.
func bytesOf(v any) int {
	if s, ok := v.(string); ok {
		return len(s)
	}
	return elementSize * lengthOf(v)
}

// size is the size of a value with all its content. A part that occurs several times counts each
// time.
type size struct {
	// elements is the number of elements of all lists and maps, and text the length of all
	// strings.
	elements, text int
	// left is the number of bytes that the value may still have.
	left int
}

var errLarge = errors.New("a list or map is too large with all its content")

// measure returns the size of a value, or an error if it is too large.
func (in *Input) measure(v any) (size, error) {
	s := size{left: in.env.limits.Values}
	if err := s.walk(v, 0); err != nil {
		return s, err
	}
	return s, nil
}

// countMade counts a list or map that a program made, with all its content.
func (in *Input) countMade(v any) error {
	s, err := in.measure(v)
	if err != nil {
		return err
	}
	if reflect.ValueOf(v).Kind() == reflect.Map {
		if err := in.countMemory(mapSize + entrySize*lengthOf(v)); err != nil {
			return err
		}
	}
	return in.spendSteps(s.elements / walkedPerStep)
}

// countMemory counts memory of lists and maps that no other count includes.
func (in *Input) countMemory(n int) error {
	in.values += n
	if in.values > in.env.limits.Values {
		return fmt.Errorf("lists and maps of this message take more than %d bytes", in.env.limits.Values)
	}
	return nil
}

// walk adds a value and all its content to the size.
func (s *size) walk(v any, depth int) error {
	if depth > jsontext.MaxDepth {
		return fmt.Errorf("a list or map is nested too deep; allowed: %d levels", jsontext.MaxDepth)
	}
	switch v := v.(type) {
	case nil, bool, int, float64:
		return nil
	case string:
		s.text += len(v)
		return s.takeBytes(len(v))
	case []any:
		if err := s.addElements(len(v)); err != nil {
			return err
		}
		for _, inner := range v {
			if err := s.walk(inner, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		if err := s.addElements(len(v)); err != nil {
			return err
		}
		for key, inner := range v {
			s.text += len(key)
			if err := s.takeBytes(len(key)); err != nil {
				return err
			}
			if err := s.walk(inner, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return s.walkReflected(reflect.ValueOf(v), depth)
}

// walkReflected walks a value of one of the rarer types that functions of the language make.
func (s *size) walkReflected(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		if err := s.addElements(v.Len()); err != nil {
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
		if err := s.addElements(v.Len()); err != nil {
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

func (s *size) addElements(elements int) error {
	s.elements += elements
	return s.takeBytes(elementSize * elements)
}

func (s *size) takeBytes(n int) error {
	if s.left -= n; s.left < 0 {
		return errLarge
	}
	return nil
}
