package expression

import (
	"fmt"
	"strings"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// cut returns the elements of the list that the keys of path lead to in a JSON text, each as it is there; a string's are its bytes.
func cut(text string, path []string, most int) ([]Element, error) {
	value, found, err := jsontext.Find(text, path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the payload as JSON: %w", err)
	case found < len(path):
		return nil, fmt.Errorf("json.%s is not there", strings.Join(path[:found+1], "."))
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
			text, _ := element.Text() // Find has looked at it
			list = append(list, Element{Data: []byte(text)})
			continue
		}
		list = append(list, Element{Data: []byte(element.Raw), JSON: true})
	}
	return list, nil
}
