package jsontext

import (
	"bytes"
	"encoding/json"
)

// Find follows the keys of path into the object text, and returns the value that they lead to.
// found is how many of the keys exist: len(path) if the value exists. Find checks the whole text.
// If a key is repeated, the last one counts.
func Find[T Text](text T, path []string) (value Token[T], found int, err error) {
	s := New(text)
	value = s.Value()
	if err := s.Finish(); err != nil {
		return Token[T]{}, 0, err
	}
	for i, key := range path {
		if value.Kind != '{' {
			return Token[T]{}, i, nil
		}
		var inner Token[T]
		s := New(value.Raw)
		for s.Begin('{'); s.Next(); {
			here := string(s.Key()) == key
			if v := s.Value(); here {
				inner = v
			}
		}
		if inner.Kind == 0 {
			return Token[T]{}, i, nil
		}
		value = inner
	}
	return value, len(path), nil
}

// Unmarshal checks text by the rules of this package, and stores it in the value that to points
// to, as json.Unmarshal does. A number for an interface becomes a [json.Number], which keeps its
// digits.
func Unmarshal[T Text](text T, to any) error {
	s := New(text)
	s.Value()
	if err := s.Finish(); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	return dec.Decode(to)
}
