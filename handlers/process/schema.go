package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// checkSettings checks the config against the JSON Schema in the plugin's hello. A hello without a
// schema accepts any config.
func (h *handler) checkSettings(schema json.RawMessage) error {
	if len(schema) == 0 || string(schema) == "null" {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return fmt.Errorf("reading the schema in its hello: %w", err)
	}
	const name = "plugin.json"
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource(name, doc); err != nil {
		return fmt.Errorf("reading the schema in its hello: %w", err)
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return fmt.Errorf("reading the schema in its hello: %w", err)
	}
	config, err := jsonschema.UnmarshalJSON(bytes.NewReader(h.settings))
	if err != nil {
		return err
	}
	err = compiled.Validate(config)
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return err
	}
	return errors.New(strings.Join(schemaProblems(invalid), "; "))
}

// noLoader refuses to load other schemas, so that a schema can't make the host read files or
// addresses.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("the schema refers to %s; it must contain everything that it needs", url)
}

// schemaProblems returns the problems that a schema found, each with its key.
func schemaProblems(e *jsonschema.ValidationError) []string {
	if len(e.Causes) > 0 {
		var all []string
		for _, cause := range e.Causes {
			all = append(all, schemaProblems(cause)...)
		}
		return all
	}
	where := "config"
	for _, part := range e.InstanceLocation {
		where += "." + part
	}
	if unknown, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
		return []string{fmt.Sprintf("%s has the unknown key %s", where, strings.Join(unknown.Properties, ", "))}
	}
	return []string{where + ": " + e.ErrorKind.LocalizedString(english)}
}

var english = message.NewPrinter(language.English)
