package expression

import (
	"fmt"
	"strings"
)

// cut returns the elements of the list that the keys of path lead to in a JSON text, each as it is there; a string's are its bytes.
func cut(text string, path []string, most int) ([]Element, error) {
	c := &cutter{decoder: decoder{text: text}, most: most}
	if _, err := c.document(nil); err != nil {
		return nil, fmt.Errorf("reading the payload as JSON: %w", err)
	}
	// The text is JSON now: what follows only finds its way.
	c.pos = 0
	c.blank()
	for i, key := range path {
		if !c.find(key) {
			return nil, fmt.Errorf("json.%s is not there", strings.Join(path[:i+1], "."))
		}
	}
	if !c.at('[') {
		return nil, fmt.Errorf("%s is not a list", strings.Join(append([]string{"json"}, path...), "."))
	}
	return c.elements()
}

type cutter struct {
	decoder
	most int
}

// find goes to the value of a key of the object that begins here; of equal keys to that of the last.
func (c *cutter) find(key string) bool {
	if !c.at('{') {
		return false
	}
	c.pos++
	found := -1
	for c.blank(); !c.at('}'); c.blank() {
		if c.at(',') {
			c.pos++
			continue
		}
		// No step of this can fail, as the text was read before.
		name, _ := c.str(true)
		c.blank()
		c.pos++
		c.blank()
		if name == key {
			found = c.pos
		}
		_, _ = c.value(nil)
	}
	c.pos = found
	return found >= 0
}

func (c *cutter) elements() ([]Element, error) {
	c.pos++
	list := []Element{}
	for c.blank(); !c.at(']'); c.blank() {
		if c.at(',') {
			c.pos++
			continue
		}
		if len(list) == c.most {
			return nil, fmt.Errorf("the list has more than %d elements", c.most)
		}
		start := c.pos
		if c.at('"') {
			s, _ := c.str(true)
			list = append(list, Element{Data: []byte(s)})
			continue
		}
		_, _ = c.value(nil)
		list = append(list, Element{Data: []byte(c.text[start:c.pos]), JSON: true})
	}
	return list, nil
}
