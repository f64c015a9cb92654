package configs

import (
	"encoding/json"
	"reflect"

	"github.com/pentrough/pentrough/internal/plugin"
)

type object = plugin.Object

// Schema returns the JSON Schema (draft 2020-12) of a configuration file with the plugins of set;
// nil means all registered plugins. Editors use it to check and complete files.
func Schema(set Plugins) ([]byte, error) {
	s := schema{plugin.Schema{Set: setOf(set), Defs: object{}, Substitutions: true}}
	properties := object{
		hostSection:      s.table(hostDefaults, "The host itself."),
		storeSection:     s.table(storeDefaults, "Where the host keeps the ledger."),
		tracingSection:   s.tracing(),
		inventorySection: s.table(inventoryTable{}, "Which devices exist."),
		pipelineSection: object{
			"type": "object", "description": "Pipelines by name.", "propertyNames": names(),
			"additionalProperties": s.table(pipelineDefaults, "A pipeline: it takes messages from a topic through middleware and a handler to a topic."),
		},
	}
	for _, f := range s.Set.Fields(&testsTable{}) {
		properties[f.Key] = s.Field(f)
	}
	for _, kind := range kinds {
		properties[kind] = s.named(kind)
	}
	return json.MarshalIndent(object{
		"$schema": plugin.SchemaDialect, "title": "Pentrough configuration", "type": "object",
		"properties": properties, "additionalProperties": false, "$defs": s.Defs,
	}, "", "  ")
}

type schema struct{ plugin.Schema }

func names() object { return object{"pattern": validName.String()} }

// table returns the schema of a table of this package, with its defaults.
func (s *schema) table(defaults any, doc string) object {
	ptr := reflect.New(reflect.TypeOf(defaults))
	ptr.Elem().Set(reflect.ValueOf(defaults))
	return s.Table(s.Set.Fields(ptr.Interface()), doc)
}

// tracing returns the schema of [tracing]. Its endpoint is required, but may be empty.
func (s *schema) tracing() object {
	o := s.table(tracingDefaults, "Where the host sends traces of messages.")
	o["required"] = []string{"endpoint"}
	return o
}

// named returns the schema of a section with named tables of a kind.
func (s *schema) named(kind string) object {
	k, _ := s.Set.Kind(kind)
	own, choices := object{}, []any{}
	for _, name := range k.Names() {
		own[name] = s.Config(kind, name)
		choices = append(choices, plugin.Typed(s.Config(kind, name)))
	}
	o := object{"type": "object", "description": "Every " + kind + ", by name.", "properties": own, "propertyNames": names()}
	o["additionalProperties"] = false
	if len(choices) > 0 {
		o["additionalProperties"] = object{"anyOf": choices}
	}
	return o
}
