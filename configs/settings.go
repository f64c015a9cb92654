package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/BurntSushi/toml"
)

// Settings reads a table of settings that has a file to itself, in TOML or as a JSON object. Nothing is substituted in it.
func Settings(text []byte) (map[string]any, error) {
	if begun := bytes.TrimSpace(text); len(begun) > 0 && begun[0] == '{' {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		var settings map[string]any
		if err := dec.Decode(&settings); err != nil {
			return nil, err
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("there is more than one JSON object")
		}
		return settings, nil
	}
	var settings map[string]any
	if _, err := decodeTOML(string(text), &settings); err != nil {
		if parse, ok := errors.AsType[toml.ParseError](err); ok {
			return nil, fmt.Errorf("line %d: %s", parse.Position.Line, syntaxProblem(err).message)
		}
		return nil, err
	}
	return settings, nil
}
