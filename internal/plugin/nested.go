package plugin

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/pentrough/pentrough/internal/spelling"
)

// Plugin decodes a value that stands for a plugin of a kind. The value is a name or an inline
// table with a type. A name means the kind's table of that name, or else the plugin of that name
// with its defaults.
func (d *Decoder) Plugin(kind, path string, v any) (Instance, bool) {
	k, ok := d.Set.Kind(kind)
	if !ok {
		panic("there is no plugin kind " + kind)
	}
	if m, ok := v.(map[string]any); ok {
		t, ok := d.typeOf(k, path, m, "")
		if !ok {
			return Instance{}, false
		}
		return d.buildInstance(k, path, t, t, m)
	}
	name, shown, ok := textOf(v)
	if !ok {
		d.wrongType(path, v, "the name of a "+kind+", or a table with its type")
		return Instance{}, false
	}
	if _, ok := d.Tables[kind][name]; ok {
		if d.Used == nil {
			d.Used = map[string]bool{}
		}
		d.Used[Join(kind, name)] = true
		return d.Named(kind, name)
	}
	if _, ok := k.Lookup(name); ok {
		return d.buildInstance(k, path, name, name, nil)
	}
	if m, ok := d.ReadyMade[kind][name].(map[string]any); ok {
		return d.named(k, Join(kind, name), name, m)
	}
	known := d.knownNames(k)
	if other := d.OtherKind(kind, name); other != "" {
		d.addProblem(path, shown+" is a "+other+", not a "+kind, Names(known), "")
	} else {
		d.addProblem(path, describeUnknown(kind, shown, v), Names(known), spelling.Nearest(name, known))
	}
	return Instance{}, false
}

// OtherKind returns the kind other than the wanted one that has a plugin of this name, or else a
// table of this name in the file. It returns "" if there is none.
func (d *Decoder) OtherKind(wanted, name string) string {
	kinds := slices.DeleteFunc(d.Set.Kinds(), func(kind string) bool { return kind == wanted })
	for _, kind := range kinds {
		if k, _ := d.Set.Kind(kind); k.has(name) {
			return kind
		}
	}
	for _, kind := range kinds {
		_, own := d.Tables[kind][name]
		if _, ready := d.ReadyMade[kind][name]; own || ready {
			return kind
		}
	}
	return ""
}

// knownNames returns the names that can stand for a plugin of a kind.
func (d *Decoder) knownNames(k *Kind) []string {
	names := slices.Concat(slices.Collect(maps.Keys(d.Tables[k.Name])), slices.Collect(maps.Keys(d.ReadyMade[k.Name])), k.Names())
	slices.Sort(names)
	return slices.Compact(names)
}

// noteGuess records what v, which isn't a plugin of the kind, was probably meant to be.
func (d *Decoder) noteGuess(k *Kind, path string, v any) {
	if table, ok := v.(map[string]any); ok {
		v = table["type"]
	}
	name, _, ok := textOf(v)
	if !ok {
		return
	}
	if known := d.knownNames(k); !slices.Contains(known, name) {
		name = cmp.Or(spelling.Nearest(name, known), name)
	}
	meant := Instance{Path: path, Kind: k.Name, Name: name, Type: name}
	if table, ok := d.Tables[k.Name][name].(map[string]any); ok {
		if t, _, ok := textOf(table["type"]); ok {
			meant.Type = t
		}
	}
	if d.Meant == nil {
		d.Meant = map[string]Instance{}
	}
	d.Meant[path] = meant
}

// Alone decodes and validates the settings of one registered plugin. Paths begin with the
// settings' own keys.
func (d *Decoder) Alone(kind, name string, m map[string]any) any {
	k, _ := d.Set.Kind(kind)
	info, _ := k.Lookup(name)
	config := info.New()
	d.decodeTable("", m, reflect.ValueOf(config).Elem(), false)
	d.validateConfig("", m, config, 0)
	return config
}

// Named decodes the file's table of that kind and name into a new instance.
func (d *Decoder) Named(kind, name string) (Instance, bool) {
	k, _ := d.Set.Kind(kind)
	path := Join(kind, name)
	m, ok := d.Tables[kind][name].(map[string]any)
	if !ok {
		d.wrongType(path, d.Tables[kind][name], "a table with the settings of a "+kind)
		return Instance{}, false
	}
	return d.named(k, path, name, m)
}

// named decodes a named table of a kind.
func (d *Decoder) named(k *Kind, path, name string, m map[string]any) (Instance, bool) {
	if d.building[path] {
		d.addProblem(path, "the "+k.Name+" is part of itself", "", "")
		return Instance{}, false
	}
	t, ok := d.typeOf(k, path, m, name)
	if !ok {
		return Instance{}, false
	}
	if d.building == nil {
		d.building = map[string]bool{}
	}
	d.building[path] = true
	defer delete(d.building, path)
	return d.buildInstance(k, path, name, t, m)
}

// typeOf finds the plugin that a table configures. A named table may leave out the type if its own
// name is the type.
func (d *Decoder) typeOf(k *Kind, path string, m map[string]any, name string) (string, bool) {
	_, isType := k.Lookup(name)
	v, ok := m["type"]
	if !ok {
		if isType {
			return name, true
		}
		what := "missing: the type of the " + k.Name
		if other := d.OtherKind(k.Name, name); name != "" && other != "" {
			what += "; " + strconv.Quote(name) + " is a " + other + ", whose table is [" + Join(other, name) + "]"
		}
		d.addProblem(Join(path, "type"), what, Names(k.Names()), spelling.Nearest(name, k.Names()))
		return "", false
	}
	at := Join(path, "type")
	t, shown, ok := textOf(v)
	if !ok {
		d.wrongType(at, v, Names(k.Names()))
		return "", false
	}
	if !k.has(t) {
		if other := d.OtherKind(k.Name, t); other != "" {
			d.addProblem(at, shown+" is a "+other+", not a "+k.Name, Names(k.Names()), "")
		} else {
			d.addProblem(at, describeUnknown(k.Name+" type", shown, v), Names(k.Names()), spelling.Nearest(t, k.Names()))
		}
		return "", false
	}
	if isType && t != name {
		d.addProblem(at, "a table may not take the name of another type: ["+path+"] can only be of type \""+name+"\"", "", "")
		return "", false
	}
	return t, true
}

func describeUnknown(what, shown string, v any) string {
	if _, ok := v.(Substituted); ok {
		return shown + " is no " + what
	}
	return "there is no " + what + " " + shown
}

// buildInstance decodes m over the plugin's defaults and validates the result.
func (d *Decoder) buildInstance(k *Kind, path, name, typ string, m map[string]any) (Instance, bool) {
	info, _ := k.Lookup(typ)
	inst := Instance{Path: path, Kind: k.Name, Name: name, Type: typ, Config: info.New()}
	problems, references := len(d.Problems), len(d.References)
	d.decodeTable(path, m, reflect.ValueOf(inst.Config).Elem(), true)
	d.validateConfig(path, m, inst.Config, problems)
	inst.References = slices.Clone(d.References[references:])
	return inst, true
}
