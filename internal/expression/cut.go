package expression

import (
	"fmt"
	"strings"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// cutList returns the elements of the list at path in a JSON text. Each element is written as in
// the text. For a string, cutList returns the string's bytes.
func cutList(text string, path []string, most int) ([]Element, error) {
	value, found, err := jsontext.Find(text, path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the payload as JSON: %w", err)
	case found < len(path):
		return nil, fmt.Errorf("json.%s doesn't exist", strings.Join(path[:found+1], "."))
	case value.Kind != '[':
		return nil, fmt.Errorf("%s is not a list", strings.Join(append([]string{"json"}, path...), "."))
	}
	list := []Element{}
	s := jsontext.New(value.Raw)
	for s.Begin('['); s.Next(); {
		if len(list) == most {
			return nil, fmt.Errorf("the list has more than %d elements", most)
		}
		element := s.Value()
		if element.Kind == '"' {
			text, _ := element.Text() // Find has checked it
			list = append(list, Element{Data: []byte(text)})
			continue
		}
		list = append(list, Element{Data: []byte(element.Raw), JSON: true})
	}
	return list, nil
}
