package plugin

import "strconv"

// SchemaDialect is the dialect of JSON Schema that [Schema] writes.
const SchemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Object is a JSON object. encoding/json sorts its keys, so a schema is the same in every run.
type Object = map[string]any

// Schema writes JSON Schemas (draft 2020-12) of settings.
type Schema struct {
	// Set has the plugins that can be named.
	Set *Set
	// Substitutions is set if values may be strings with a substitution such as ${NAME}.
	Substitutions bool
	// Defs has the schemas of the plugins that were referred to, as #/$defs/KIND.NAME. It is never
	// nil.
	Defs Object
}

// Table returns the schema of a table with these settings and no others.
func (s *Schema) Table(fields []Field, doc string) Object {
	properties, required := Object{}, []string{}
	for _, f := range fields {
		properties[f.Key] = s.Field(f)
		if f.Required {
			required = append(required, f.Key)
		}
	}
	o := Object{"type": "object", "properties": properties, "additionalProperties": false}
	if doc != "" {
		o["description"] = doc
	}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// Field returns the schema of one setting.
func (s *Schema) Field(f Field) Object {
	o := s.valueSchema(f, f.Type)
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

// substitutable is the schema of a string with a substitution, which may replace a number, a bool
// or an enum value.
var substitutable = Object{"type": "string", "pattern": `\$\{`}

const (
	durationPattern = `^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
	topicPattern    = `^[^:]+:.|^$`
)

// openToSubstitution returns a schema for o or, where allowed, a string with a substitution.
func (s *Schema) openToSubstitution(o Object) Object {
	if !s.Substitutions {
		return o
	}
	return Object{"anyOf": []any{o, substitutable}}
}

// patternSchema returns a schema for strings of that pattern or, where allowed, with a
// substitution.
func (s *Schema) patternSchema(p string) Object {
	if s.Substitutions {
		p += `|\$\{`
	}
	return Object{"type": "string", "pattern": p}
}

// valueSchema returns the schema of a value of type t. f has its bounds.
func (s *Schema) valueSchema(f Field, t Type) Object {
	switch t.Shape {
	case ShapeString:
		if len(f.Enum) > 0 {
			return s.openToSubstitution(Object{"enum": f.Enum})
		}
		o := Object{"type": "string"}
		if f.Required {
			o["minLength"] = 1
		}
		return o
	case ShapeTopic:
		return s.patternSchema(topicPattern)
	case ShapeDevices:
		return Object{"type": "string"}
	case ShapeBool:
		return s.openToSubstitution(Object{"type": "boolean"})
	case ShapeInteger:
		return s.openToSubstitution(withBounds(Object{"type": "integer"}, "minimum", "maximum", f))
	case ShapeNumber:
		return s.openToSubstitution(withBounds(Object{"type": "number"}, "minimum", "maximum", f))
	case ShapeDuration:
		return s.patternSchema(durationPattern)
	case ShapeTime:
		return Object{"type": "string"}
	case ShapeList:
		return s.listSchema(f, *t.Elem)
	case ShapeMap:
		return Object{"type": "object", "additionalProperties": s.valueSchema(elementField(f), *t.Elem)}
	case ShapeTable:
		return s.Table(t.Fields, "")
	case ShapePlugin:
		return s.pluginSchema(t.Kind)
	default:
		return Object{}
	}
}

// elementField returns f without the bounds, because they limit the number of elements and not the
// elements themselves.
func elementField(f Field) Field {
	f.Min, f.Max, f.Required = "", "", false
	return f
}

func (s *Schema) listSchema(f Field, elem Type) Object {
	one := s.valueSchema(elementField(f), elem)
	list := withBounds(Object{"type": "array", "items": one}, "minItems", "maxItems", f)
	if elem.Single() || elem.Shape == ShapePlugin {
		return Object{"anyOf": []any{list, one}}
	}
	return list
}

func withBounds(o Object, lowest, highest string, f Field) Object {
	for key, text := range map[string]string{lowest: f.Min, highest: f.Max} {
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			o[key] = n
		}
	}
	return o
}

// pluginSchema returns the schema of a plugin: the name of one, or an inline table with its type.
func (s *Schema) pluginSchema(kind string) Object {
	k, _ := s.Set.Kind(kind)
	choices := []any{Object{"type": "string", "description": "The name of a [" + kind + ".NAME] table, or of a plugin."}}
	if names := k.Names(); len(names) > 0 {
		// Editors offer these names for completion.
		choices = append(choices, Object{"enum": names})
	}
	for _, name := range k.Names() {
		choices = append(choices, Typed(s.Config(kind, name)))
	}
	return Object{"anyOf": choices}
}

// Typed makes the type required. Only a table whose own name is the type may leave it out.
func Typed(ref Object) Object {
	return Object{"allOf": []any{ref, Object{"required": []string{"type"}}}}
}

// Standalone returns the schema of the settings of one plugin alone, without a type.
func (s *Schema) Standalone(kind, name string) Object {
	page, _ := s.Set.Page(kind, name)
	o := s.Table(page.Fields, page.Summary)
	o["$schema"] = SchemaDialect
	if len(s.Defs) > 0 {
		o["$defs"] = s.Defs
	}
	return o
}

// Config returns a reference to the schema of a plugin's settings. It adds that schema to Defs
// once.
func (s *Schema) Config(kind, name string) Object {
	def := kind + "." + name
	ref := Object{"$ref": "#/$defs/" + def}
	if _, ok := s.Defs[def]; ok {
		return ref
	}
	// A plugin may contain itself. So its entry exists before its fields are described.
	s.Defs[def] = nil
	page, _ := s.Set.Page(kind, name)
	o := s.Table(page.Fields, page.Summary)
	o["properties"].(Object)["type"] = Object{"const": name, "description": page.Summary}
	s.Defs[def] = o
	return ref
}
