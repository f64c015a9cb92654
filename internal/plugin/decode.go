package plugin

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/spelling"
)

// Decoder fills configuration structs from the tree of a file. The tree is a map[string]any as
// TOML decodes it, with [Substituted] in place of strings with substitutions. A Decoder collects
// all problems instead of stopping at the first. It is for one file and one goroutine.
type Decoder struct {
	// Set has the plugins that the file can name.
	Set *Set
	// Tables are the file's named tables by kind: Tables["codec"]["x"] is [codec.x].
	Tables map[string]map[string]any
	// ReadyMade are tables by kind that every file can name. A table or a plugin of the same name
	// has precedence.
	ReadyMade map[string]map[string]any

	// Problems are the problems so far. A named table is decoded once for each use and reports its
	// problems each time.
	Problems []Problem
	// References are all references found so far.
	References []Ref
	// Instances are the plugins in fields, by the field's path.
	Instances map[string]Instance
	// Meant has the plugin that was probably meant by each unknown name, by the field's path. Such
	// an instance has no Config. If no name is similar, its name and type are those in the file.
	Meant map[string]Instance
	// Used are the paths of the named tables that something refers to by name.
	Used map[string]bool

	building map[string]bool
	// Secrets are texts that messages must not show. Nil stands for an empty set.
	Secrets *redact.Set
	// secrets are the texts that must not be shown, by path.
	secrets map[string]string
}

// Ref is a [Reference] that was found in a configuration.
type Ref struct {
	// Path is the field's path.
	Path string
	// To is what is named: "topic" or "devices".
	To string
	// Value is the name; Shown is how a message shows it.
	Value, Shown string
}

// Instance is a decoded plugin.
type Instance struct {
	// Path is the path of its settings: its named table, or the field that names it.
	Path string
	Kind string
	// Name is the name of its table, or else its type.
	Name string
	Type string
	// Config is a pointer to the plugin's configuration struct.
	Config any
	// References are those of Config.
	References []Ref
}

// Table decodes the table m at path into the struct that ptr points to. The struct has the
// defaults.
func (d *Decoder) Table(path string, m map[string]any, ptr any) {
	d.decodeTable(path, m, reflect.ValueOf(ptr).Elem(), false)
}

func (d *Decoder) decodeTable(path string, m map[string]any, rv reflect.Value, typed bool) {
	fields := specsOf(rv.Type())
	allowed := make([]string, 0, len(fields)+1)
	if typed {
		allowed = append(allowed, "type")
	}
	for _, s := range fields {
		allowed = append(allowed, s.key)
	}
	// A required key that is misspelt or has its old name isn't reported as missing, too.
	misspelt := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if slices.Contains(allowed, key) {
			continue
		}
		if i := slices.IndexFunc(fields, func(s spec) bool { return slices.Contains(s.renamed, key) }); i >= 0 {
			misspelt[fields[i].key] = true
			d.addProblem(Join(path, key), key+" is now "+fields[i].key, "", "")
			continue
		}
		meant := spelling.Nearest(key, allowed)
		misspelt[meant] = true
		d.addProblem(Join(path, key), "unknown key", Names(allowed), meant)
	}
	for _, s := range fields {
		at := Join(path, s.key)
		v, ok := m[s.key]
		if !ok {
			if s.required && !misspelt[s.key] {
				d.addProblem(at, "missing: "+purposeOf(s), "", "")
			}
			continue
		}
		if sub, ok := v.(Substituted); ok && sub.Whole && !sub.File && !s.secret && rv.FieldByIndex(s.index).Kind() != reflect.Interface {
			d.redactor().Open(sub.Text)
		}
		d.decodeValue(at, v, rv.FieldByIndex(s.index), s)
	}
}

// decodeValue decodes v into rv and reports whether it fitted.
func (d *Decoder) decodeValue(path string, v any, rv reflect.Value, s spec) bool {
	t := rv.Type()
	if t.Kind() == reflect.Interface {
		return d.decodeInterface(path, v, rv)
	}
	if t == timeType {
		if at, ok := v.(time.Time); ok {
			rv.Set(reflect.ValueOf(at))
			return true
		}
	}
	if t != durationType && reflect.PointerTo(t).Implements(unmarshaler) {
		return d.decodeText(path, v, rv, s)
	}
	switch {
	case t.Kind() == reflect.Pointer:
		fresh := reflect.New(t.Elem())
		if rv.IsNil() {
			setDefaults(fresh)
		} else {
			fresh.Elem().Set(rv.Elem())
		}
		ok := d.decodeValue(path, v, fresh.Elem(), s)
		rv.Set(fresh)
		return ok
	case t.Kind() == reflect.Struct:
		m, ok := v.(map[string]any)
		if !ok {
			d.wrongType(path, v, "a table with keys of "+keysOf(t))
			return false
		}
		before := len(d.Problems)
		d.decodeTable(path, m, rv, false)
		return len(d.Problems) == before
	case t.Kind() == reflect.Slice:
		return d.decodeList(path, v, rv, s)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		return d.decodeMap(path, v, rv, s)
	case isScalar(t):
		return d.decodeScalar(path, v, rv, s)
	}
	panic(fmt.Sprintf("configuration field %q: a file can't contain a %v", s.key, t))
}

// wrongType reports a value of the wrong TOML type.
func (d *Decoder) wrongType(path string, v any, allowed string) {
	d.addProblem(path, kindOf(v)+" can't stand here", allowed, "")
}

// decodeInterface decodes a nested plugin, or a value of any type.
func (d *Decoder) decodeInterface(path string, v any, rv reflect.Value) bool {
	t := rv.Type()
	if t.NumMethod() == 0 {
		rv.Set(reflect.ValueOf(Plain(v)))
		return true
	}
	kind, ok := d.Set.KindOf(t)
	if !ok {
		panic(fmt.Sprintf("configuration field %s: %v is not a kind of plugin", path, t))
	}
	inst, ok := d.Plugin(kind.Name, path, v)
	if !ok {
		d.noteGuess(kind, path, v)
		return false
	}
	if d.Instances == nil {
		d.Instances = map[string]Instance{}
	}
	d.Instances[path] = inst
	rv.Set(reflect.ValueOf(inst.Config))
	return true
}

// decodeText decodes a string into a type that parses its own text.
func (d *Decoder) decodeText(path string, v any, rv reflect.Value, s spec) bool {
	text, shown, ok := textOf(v)
	if !ok {
		d.wrongType(path, v, "a string"+exampleOf(s))
		return false
	}
	d.noteSecret(path, v, s)
	fresh := reflect.New(rv.Type())
	if err := fresh.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		if s.secret {
			shown = "the value"
		}
		d.addProblem(path, fmt.Sprintf("%s doesn't fit: %s", shown, d.redactAt(path, err.Error())), strings.Join(s.enum, ", "), "")
		return false
	}
	rv.Set(fresh.Elem())
	d.noteReference(path, text, shown, rv)
	return d.checkEnum(path, text, shown, s)
}

// decodeList decodes a list. A single value may replace a list of single values.
func (d *Decoder) decodeList(path string, v any, rv reflect.Value, s spec) bool {
	elem := rv.Type().Elem()
	values, isList := listOf(v)
	alone := !isList
	if alone {
		if _, isTable := v.(map[string]any); isTable || !isScalar(elem) && elem.Kind() != reflect.Interface {
			d.wrongType(path, v, "a list")
			return false
		}
		values = []any{v}
	}
	element := s
	element.min, element.max, element.required = "", "", false
	out, ok := reflect.MakeSlice(rv.Type(), len(values), len(values)), true
	for i, e := range values {
		at := path
		if !alone {
			at = Index(path, i)
		}
		if elem.Kind() == reflect.Struct {
			setDefaults(out.Index(i).Addr())
		}
		ok = d.decodeValue(at, e, out.Index(i), element) && ok
	}
	rv.Set(out)
	return d.checkLength(path, len(values), "elements", s) && ok
}

// decodeMap decodes a table with free keys.
func (d *Decoder) decodeMap(path string, v any, rv reflect.Value, s spec) bool {
	m, ok := v.(map[string]any)
	if !ok {
		d.wrongType(path, v, "a table")
		return false
	}
	t := rv.Type()
	element := s
	element.min, element.max, element.required = "", "", false
	out := reflect.MakeMapWithSize(t, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		value := reflect.New(t.Elem())
		if t.Elem().Kind() == reflect.Struct {
			setDefaults(value)
		}
		if d.decodeValue(Join(path, key), m[key], value.Elem(), element) {
			out.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), value.Elem())
		} else {
			ok = false
			if t.Elem().Kind() == reflect.Struct {
				// The table exists, so that a reference to it isn't reported, too.
				out.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), value.Elem())
			}
		}
	}
	rv.Set(out)
	return d.checkLength(path, len(m), "entries", s) && ok
}

// noteReference records rv if it is a reference.
func (d *Decoder) noteReference(path, text, shown string, rv reflect.Value) {
	if text == "" || !rv.Type().Implements(referenceType) {
		return
	}
	to := rv.Interface().(Reference).References()
	d.References = append(d.References, Ref{Path: path, To: to, Value: text, Shown: shown})
}

// noteSecret remembers the text of v if messages must not show it.
func (d *Decoder) noteSecret(path string, v any, s spec) {
	text, _, _ := textOf(v)
	if sub, ok := v.(Substituted); s.secret || ok && sub.File {
		d.rememberSecret(path, text)
	}
}

// purposeOf returns what a required field is for.
func purposeOf(s spec) string {
	text := strings.TrimSuffix(s.doc, ".")
	if s.example != "" {
		text += ", such as " + s.example
	}
	return text
}

// exampleOf returns the example of a field as part of a message.
func exampleOf(s spec) string {
	if s.example == "" {
		return ""
	}
	return " such as " + s.example
}

// keysOf returns the keys of a table as text.
func keysOf(t reflect.Type) string {
	var keys []string
	for _, s := range specsOf(t) {
		keys = append(keys, s.key)
	}
	return Names(keys)
}
