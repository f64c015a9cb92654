package configs

import (
	"bytes"
	"fmt"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// Settings parses a file that has only the settings of one plugin, in TOML or as a JSON object. It
// substitutes nothing.
func Settings(text []byte) (map[string]any, error) {
	if begun := bytes.TrimSpace(text); len(begun) > 0 && begun[0] == '{' {
		var settings map[string]any
		if err := jsontext.Unmarshal(text, &settings); err != nil {
			return nil, err
		}
		return settings, nil
	}
	var settings map[string]any
	if _, err := decodeTOML(string(text), &settings); err != nil {
		found := scan(string(text)).syntaxProblem(err)
		return nil, fmt.Errorf("line %d, column %d: %s", found.at.Line, found.at.Column, found.message)
	}
	return settings, nil
}
