package configs

import (
	"encoding/json"
	"reflect"
	"strconv"

	"github.com/pentrough/pentrough/internal/plugin"
)

// schemaDialect is the dialect of JSON Schema in which [Schema] writes.
const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// object is a JSON object; encoding/json sorts its keys, so that a schema is the same in every run.
type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of a configuration file in which the plugins of set can be named; nil means everything
// registered. Editors complete and check files by it.
func Schema(set Plugins) ([]byte, error) {
	s := schema{set: setOf(set), defs: object{}}
	properties := object{
		hostSection:      s.table(hostDefaults, "The host itself."),
		storeSection:     s.table(storeDefaults, "Where the ledger is kept."),
		tracingSection:   s.tracing(),
		inventorySection: s.table(inventoryTable{}, "Which devices there are."),
		pipelineSection: object{
			"type": "object", "description": "Pipelines by name.", "propertyNames": names(),
			"additionalProperties": s.table(pipelineDefaults, "From a topic, through middleware, into a handler, to a topic."),
		},
	}
	for _, f := range s.set.Fields(&testsTable{}) {
		properties[f.Key] = s.field(f)
	}
	for _, kind := range kinds {
		properties[kind] = s.named(kind)
	}
	return json.MarshalIndent(object{
		"$schema": schemaDialect, "title": "Pentrough configuration", "type": "object",
		"properties": properties, "additionalProperties": false, "$defs": s.defs,
	}, "", "  ")
}

type schema struct {
	set  *plugin.Set
	defs object
}

func names() object { return object{"pattern": validName.String()} }

// table is the schema of one of this package's own tables with its defaults.
func (s *schema) table(defaults any, doc string) object {
	ptr := reflect.New(reflect.TypeOf(defaults))
	ptr.Elem().Set(reflect.ValueOf(defaults))
	return s.fields(s.set.Fields(ptr.Interface()), doc)
}

// tracing is the schema of [tracing], whose endpoint may be empty, and not missing.
func (s *schema) tracing() object {
	o := s.table(tracingDefaults, "Where spans of what happens to messages go.")
	o["required"] = []string{"endpoint"}
	return o
}

func (s *schema) fields(fields []plugin.Field, doc string) object {
	properties, required := object{}, []string{}
	for _, f := range fields {
		properties[f.Key] = s.field(f)
		if f.Required {
			required = append(required, f.Key)
		}
	}
	o := object{"type": "object", "properties": properties, "additionalProperties": false}
	if doc != "" {
		o["description"] = doc
	}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// field is the schema of one setting.
func (s *schema) field(f plugin.Field) object {
	o := s.value(f, f.Type)
	doc := f.Doc
	if f.Unit != "" {
		doc += " In " + f.Unit + "."
	}
	if doc != "" {
		o["description"] = doc
	}
	if f.Default != nil && f.Default != "" {
		o["default"] = f.Default
	}
	return o
}

// substitutable is what may stand for a number, a bool or one of some words: a string with a substitution.
var substitutable = object{"type": "string", "pattern": `\$\{`}

const durationPattern = `^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$|\$\{`

// value is the schema of a setting's value of type t; f gives its bounds.
func (s *schema) value(f plugin.Field, t plugin.Type) object {
	switch t.Shape {
	case plugin.ShapeString:
		if len(f.Enum) > 0 {
			return object{"anyOf": []any{object{"enum": f.Enum}, substitutable}}
		}
		o := object{"type": "string"}
		if f.Required {
			o["minLength"] = 1
		}
		return o
	case plugin.ShapeTopic:
		return object{"type": "string", "pattern": `^[^:]+:.|\$\{|^$`}
	case plugin.ShapeDevices:
		return object{"type": "string"}
	case plugin.ShapeBool:
		return object{"anyOf": []any{object{"type": "boolean"}, substitutable}}
	case plugin.ShapeInteger:
		return object{"anyOf": []any{bounded(object{"type": "integer"}, "minimum", "maximum", f), substitutable}}
	case plugin.ShapeNumber:
		return object{"anyOf": []any{bounded(object{"type": "number"}, "minimum", "maximum", f), substitutable}}
	case plugin.ShapeDuration:
		return object{"type": "string", "pattern": durationPattern}
	case plugin.ShapeTime:
		return object{"type": "string"}
	case plugin.ShapeList:
		return s.list(f, *t.Elem)
	case plugin.ShapeMap:
		return object{"type": "object", "additionalProperties": s.value(inside(f), *t.Elem)}
	case plugin.ShapeTable:
		return s.fields(t.Fields, "")
	case plugin.ShapePlugin:
		return s.plugin(t.Kind)
	default:
		return object{}
	}
}

// inside is f for its elements: bounds count those, they don't bound them.
func inside(f plugin.Field) plugin.Field {
	f.Min, f.Max, f.Required = "", "", false
	return f
}

func (s *schema) list(f plugin.Field, elem plugin.Type) object {
	one := s.value(inside(f), elem)
	list := bounded(object{"type": "array", "items": one}, "minItems", "maxItems", f)
	if elem.Single() || elem.Shape == plugin.ShapePlugin {
		return object{"anyOf": []any{list, one}}
	}
	return list
}

func bounded(o object, lowest, highest string, f plugin.Field) object {
	for key, text := range map[string]string{lowest: f.Min, highest: f.Max} {
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			o[key] = n
		}
	}
	return o
}

// plugin is the name of a plugin of a kind, or an inline table with its type.
func (s *schema) plugin(kind string) object {
	k, _ := s.set.Kind(kind)
	choices := []any{object{"type": "string", "description": "The name of a [" + kind + ".NAME] table, or of a plugin."}}
	if names := k.Names(); len(names) > 0 {
		// Editors offer these.
		choices = append(choices, object{"enum": names})
	}
	for _, name := range k.Names() {
		choices = append(choices, typed(s.config(kind, name)))
	}
	return object{"anyOf": choices}
}

// typed demands the type, which a table may leave out only if its own name says it.
func typed(ref object) object {
	return object{"allOf": []any{ref, object{"required": []string{"type"}}}}
}

// named is a section of named tables of a kind.
func (s *schema) named(kind string) object {
	k, _ := s.set.Kind(kind)
	own, choices := object{}, []any{}
	for _, name := range k.Names() {
		own[name] = s.config(kind, name)
		choices = append(choices, typed(s.config(kind, name)))
	}
	o := object{"type": "object", "description": "Each " + kind + " by its name.", "properties": own, "propertyNames": names()}
	o["additionalProperties"] = false
	if len(choices) > 0 {
		o["additionalProperties"] = object{"anyOf": choices}
	}
	return o
}

// config is a reference to the schema of a plugin's settings, which is written once.
func (s *schema) config(kind, name string) object {
	def := kind + "." + name
	ref := object{"$ref": "#/$defs/" + def}
	if _, ok := s.defs[def]; ok {
		return ref
	}
	// Plugins may hold each other; the place is taken before the fields are described.
	s.defs[def] = nil
	page, _ := s.set.Page(kind, name)
	o := s.fields(page.Fields, page.Summary)
	o["properties"].(object)["type"] = object{"const": name, "description": page.Summary}
	s.defs[def] = o
	return ref
}
