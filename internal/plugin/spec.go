package plugin

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// spec is what the tags of one configuration field say.
type spec struct {
	key, doc, unit, example string
	min, max                string
	enum                    []string
	later                   []string // of enum's kind, but not built yet
	schemes                 []string // of a URL
	renamed                 []string // the keys that the field had in earlier versions
	required, secret        bool

	typ   reflect.Type
	index []int
}

// specs returns the fields of a configuration struct in their order, those of embedded structs in their place.
func specs(t reflect.Type) []spec {
	var all []spec
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if f.Anonymous && key == "" && f.Type.Kind() == reflect.Struct {
			for _, s := range specs(f.Type) {
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
			required: f.Tag.Get("required") == "true", secret: f.Tag.Get("secret") == "true" || hides(f.Type),
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

// hides says whether t, or what t is a list or map of, is a string that keeps its text to itself.
func hides(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return hides(t.Elem())
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

// setDefaults fills a value that a file's table calls into being: an element of a map or list of tables, or an optional table. Its
// type may have a method SetDefaults; everything else begins as zero.
func setDefaults(ptr reflect.Value) {
	if d, ok := ptr.Interface().(interface{ SetDefaults() }); ok {
		d.SetDefaults()
	}
}

// scalar says whether t is written as one TOML value that isn't a list or table.
func scalar(t reflect.Type) bool {
	if t == durationType || t == timeType || reflect.PointerTo(t).Implements(unmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Pointer:
		return scalar(t.Elem())
	default:
		return false
	}
}

// badTag stops a program whose own tags make no sense, as a bad registration does.
func badTag(s spec, tag, value string, err error) string {
	return fmt.Sprintf("configuration field %q: the tag %s:%q doesn't fit its type: %v", s.key, tag, value, err)
}
