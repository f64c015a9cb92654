package plugin

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// spec has the tags of one configuration field.
type spec struct {
	key, doc, unit, example string
	min, max                string
	enum                    []string
	later                   []string // values of enum that a later version will have
	schemes                 []string // that a URL may have
	renamed                 []string // the keys that the field had in earlier versions
	required, secret        bool

	typ   reflect.Type
	index []int
}

// specsOf returns the fields of a configuration struct in order. Fields of embedded structs are in
// the place of the struct.
func specsOf(t reflect.Type) []spec {
	var all []spec
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if f.Anonymous && key == "" && f.Type.Kind() == reflect.Struct {
			for _, s := range specsOf(f.Type) {
				s.index = append([]int{f.Index[0]}, s.index...)
				all = append(all, s)
			}
			continue
		}
		if !f.IsExported() || key == "" || key == "-" {
			continue
		}
		s := spec{
			key: key, doc: f.Tag.Get("doc"), unit: f.Tag.Get("unit"), example: f.Tag.Get("example"),
			min: f.Tag.Get("min"), max: f.Tag.Get("max"),
			required: f.Tag.Get("required") == "true", secret: f.Tag.Get("secret") == "true" || hidesText(f.Type),
			typ: f.Type, index: f.Index,
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			s.enum = strings.Split(enum, ",")
		}
		if later := f.Tag.Get("later"); later != "" {
			s.later = strings.Split(later, ",")
		}
		if schemes := f.Tag.Get("schemes"); schemes != "" {
			s.schemes = strings.Split(schemes, ",")
		}
		if renamed := f.Tag.Get("renamed"); renamed != "" {
			s.renamed = strings.Split(renamed, ",")
		}
		all = append(all, s)
	}
	return all
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	timeType      = reflect.TypeFor[time.Time]()
	marshaler     = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshaler   = reflect.TypeFor[encoding.TextUnmarshaler]()
	referenceType = reflect.TypeFor[Reference]()
)

// hidesText reports whether t is a string type that doesn't show its text, or a list or map of
// such strings.
func hidesText(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return hidesText(t.Elem())
	case reflect.String:
		if !t.Implements(marshaler) {
			return false
		}
		probe := reflect.New(t).Elem()
		probe.SetString("probe")
		text, err := probe.Interface().(encoding.TextMarshaler).MarshalText()
		return err != nil || string(text) != "probe"
	default:
		return false
	}
}

// setDefaults fills a value that a table of the file creates: an element of a map or list of
// tables, or an optional table. The type may have a method SetDefaults. Otherwise the value is
// zero.
func setDefaults(ptr reflect.Value) {
	if d, ok := ptr.Interface().(interface{ SetDefaults() }); ok {
		d.SetDefaults()
	}
}

// isScalar reports whether t is written as one TOML value that isn't a list or table.
func isScalar(t reflect.Type) bool {
	if t == durationType || t == timeType || reflect.PointerTo(t).Implements(unmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Pointer:
		return isScalar(t.Elem())
	default:
		return false
	}
}

// badTag returns the text with which the program panics about a wrong tag in its own code.
func badTag(s spec, tag, value string, err error) string {
	return fmt.Sprintf("configuration field %q: the tag %s:%q doesn't fit its type: %v", s.key, tag, value, err)
}
