package plugin

import (
	"encoding"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field describes one setting, for documentation and for the schema.
type Field struct {
	Key  string
	Type Type
	// Default is the value without a setting: a string, bool, int64, float64, []any or
	// map[string]any. Nil: there is none.
	Default any
	// Unit is the unit of a number; Example is a value as TOML writes it.
	Unit, Example string
	// Min and Max bound a number or duration, or a string's or list's length; empty: no bound.
	Min, Max string
	Enum     []string
	Required bool
	Secret   bool
	Doc      string
}

// Shape is how a setting is written in TOML.
type Shape int

// The shapes of settings.
const (
	ShapeAny Shape = iota
	ShapeString
	ShapeBool
	ShapeInteger
	ShapeNumber
	ShapeDuration
	ShapeTopic
	ShapeDevices
	ShapeTime
	// ShapeList is a list, and has an element type. A single value may replace the list if its
	// elements are single values.
	ShapeList
	// ShapeMap is a table with free keys, and has an element type.
	ShapeMap
	// ShapeTable is a table with the settings in Fields.
	ShapeTable
	// ShapePlugin is the name of a plugin of a kind, or an inline table with its type.
	ShapePlugin
)

// Type is the type of a setting.
type Type struct {
	Shape Shape
	// Elem is the type of a list's or map's elements.
	Elem *Type
	// Fields are the settings of a table.
	Fields []Field
	// Kind is the kind of plugin.
	Kind string
}

// Word returns the type in one or a few words.
func (t Type) Word() string {
	switch t.Shape {
	case ShapeString:
		return "string"
	case ShapeBool:
		return "bool"
	case ShapeInteger:
		return "integer"
	case ShapeNumber:
		return "number"
	case ShapeDuration:
		return "duration"
	case ShapeTopic:
		return "topic"
	case ShapeDevices:
		return "devices"
	case ShapeTime:
		return "time"
	case ShapeList:
		return "list of " + t.Elem.plural()
	case ShapeMap:
		return "table of " + t.Elem.plural()
	case ShapeTable:
		return "table"
	case ShapePlugin:
		return t.Kind
	default:
		return "anything"
	}
}

func (t Type) plural() string {
	switch t.Shape {
	case ShapeDevices, ShapeAny:
		return t.Word()
	case ShapeList, ShapeMap:
		first, rest, _ := strings.Cut(t.Word(), " ")
		return first + "s " + rest
	default:
		return t.Word() + "s"
	}
}

// Single reports whether the type is written as one value.
func (t Type) Single() bool {
	return t.Shape != ShapeAny && t.Shape < ShapeList
}

// Fields describes the settings of a configuration: config is a pointer to its struct with every
// default set.
func (s *Set) Fields(config any) []Field {
	return s.describeFields(reflect.ValueOf(config).Elem(), nil)
}

// describeFields describes the struct rv. It leaves out a type that occurs inside itself.
func (s *Set) describeFields(rv reflect.Value, outer []reflect.Type) []Field {
	if slices.Contains(outer, rv.Type()) {
		return nil
	}
	outer = append(slices.Clip(outer), rv.Type())
	all := specsOf(rv.Type())
	fields := make([]Field, len(all))
	for i, sp := range all {
		v := rv.FieldByIndex(sp.index)
		fields[i] = Field{
			Key: sp.key, Type: s.typeOf(v, outer), Unit: sp.unit, Example: sp.example, Min: sp.min, Max: sp.max,
			Enum: sp.enum, Required: sp.required, Secret: sp.secret, Doc: sp.doc,
		}
		if !sp.required {
			fields[i].Default = s.plainDefault(v, outer)
		}
	}
	return fields
}

// typeOf describes the type of v. The value of v has the defaults inside.
func (s *Set) typeOf(v reflect.Value, outer []reflect.Type) Type {
	t := v.Type()
	switch {
	case t == durationType:
		return Type{Shape: ShapeDuration}
	case t == timeType:
		return Type{Shape: ShapeTime}
	case reflect.PointerTo(t).Implements(unmarshaler):
		return Type{Shape: ShapeString}
	}
	switch t.Kind() {
	case reflect.Interface:
		if kind, ok := s.KindOf(t); ok {
			return Type{Shape: ShapePlugin, Kind: kind.Name}
		}
		return Type{Shape: ShapeAny}
	case reflect.Pointer:
		if !v.IsNil() {
			return s.typeOf(v.Elem(), outer)
		}
		return s.typeOf(newValue(t.Elem()), outer)
	case reflect.Struct:
		return Type{Shape: ShapeTable, Fields: s.describeFields(v, outer)}
	case reflect.Slice:
		elem := s.typeOf(newValue(t.Elem()), outer)
		return Type{Shape: ShapeList, Elem: &elem}
	case reflect.Map:
		elem := s.typeOf(newValue(t.Elem()), outer)
		return Type{Shape: ShapeMap, Elem: &elem}
	case reflect.Bool:
		return Type{Shape: ShapeBool}
	case reflect.String:
		if t.Implements(referenceType) {
			if reflect.Zero(t).Interface().(Reference).References() == "devices" {
				return Type{Shape: ShapeDevices}
			}
			return Type{Shape: ShapeTopic}
		}
		return Type{Shape: ShapeString}
	case reflect.Float32, reflect.Float64:
		return Type{Shape: ShapeNumber}
	default:
		return Type{Shape: ShapeInteger}
	}
}

// newValue returns a value of a type with the defaults that the decoder starts from.
func newValue(t reflect.Type) reflect.Value {
	ptr := reflect.New(t)
	setDefaults(ptr)
	return ptr.Elem()
}

// plainDefault returns a default as plain TOML values. It returns nil for empty values, and for
// tables, whose fields have their own defaults.
func (s *Set) plainDefault(v reflect.Value, outer []reflect.Type) any {
	t := v.Type()
	switch {
	case t == durationType:
		return Duration(time.Duration(v.Int()))
	case t == timeType:
		return nil
	case t.Implements(marshaler) && v.Kind() != reflect.String && v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface:
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil || len(text) == 0 {
			return nil
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(min(v.Uint(), math.MaxInt64))
	case reflect.Interface:
		return s.pluginDefault(v, outer)
	case reflect.Pointer:
		if v.IsNil() || !isScalar(t.Elem()) {
			return nil
		}
		return s.plainDefault(v.Elem(), outer)
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = s.plainDefault(v.Index(i), outer)
		}
		return list
	default:
		return nil
	}
}

// pluginDefault returns a nested plugin as the name of its type, or as an inline table with the
// settings that differ from its defaults.
func (s *Set) pluginDefault(v reflect.Value, outer []reflect.Type) any {
	kind, ok := s.KindOf(v.Type())
	if !ok || v.IsNil() {
		return nil
	}
	config := v.Interface()
	name, own := "", any(nil)
	for _, n := range kind.Names() {
		info, _ := kind.Lookup(n)
		c := info.New()
		if reflect.DeepEqual(c, config) {
			return n
		}
		if reflect.TypeOf(c) == reflect.TypeOf(config) {
			name, own = n, c
		}
	}
	if own == nil {
		return nil
	}
	table := map[string]any{"type": name}
	ours := s.describeFields(reflect.ValueOf(own).Elem(), outer)
	for i, f := range s.describeFields(reflect.ValueOf(config).Elem(), outer) {
		if !reflect.DeepEqual(ours[i].Default, f.Default) {
			table[f.Key] = f.Default
		}
	}
	return table
}

// Duration formats a duration without parts that are zero: "5m", not "5m0s".
func Duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// TOML formats a plain value as TOML in one line.
func TOML(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return quoteTOML(v)
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = TOML(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			// The type comes first, as people write it.
			if a == "type" || b == "type" {
				return map[bool]int{true: -1, false: 1}[a == "type"]
			}
			return strings.Compare(a, b)
		})
		parts := make([]string, len(keys))
		for i, key := range keys {
			parts[i] = Join("", key) + " = " + TOML(v[key])
		}
		if len(parts) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	default:
		return ""
	}
}

// quoteTOML returns a TOML basic string, or a literal one if that avoids escapes.
func quoteTOML(s string) string {
	if strings.ContainsAny(s, `"\`) && !strings.ContainsAny(s, "'\r\n\t\x00") && strconv.Quote(s) == `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)+`"` {
		return "'" + s + "'"
	}
	q := strconv.Quote(s)
	return strings.NewReplacer(`\\`, `\\`, `\a`, `\u0007`, `\v`, `\u000b`, `\x`, `\u00`).Replace(q)
}
