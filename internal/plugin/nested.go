package plugin

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/pentrough/pentrough/internal/spelling"
)

// Plugin decodes what stands where a plugin of a kind is wanted: a name, which means the kind's table of that name, else the plugin
// of that name with its defaults; or an inline table with a type.
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
		return d.build(k, path, t, t, m)
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
		return d.build(k, path, name, name, nil)
	}
	known := d.known(k)
	if other := d.OtherKind(kind, name); other != "" {
		d.problem(path, shown+" is a "+other+", not a "+kind, Names(known), "")
	} else {
		d.problem(path, noSuch(kind, shown, v), Names(known), spelling.Nearest(name, known))
	}
	return Instance{}, false
}

// OtherKind returns the kind of the plugin, or else of the file's table, that has a name, if that
// isn't the kind that is wanted; "" if there is none.
func (d *Decoder) OtherKind(wanted, name string) string {
	kinds := slices.DeleteFunc(d.Set.Kinds(), func(kind string) bool { return kind == wanted })
	for _, kind := range kinds {
		if k, _ := d.Set.Kind(kind); k.has(name) {
			return kind
		}
	}
	for _, kind := range kinds {
		if _, ok := d.Tables[kind][name]; ok {
			return kind
		}
	}
	return ""
}

// known are the names that can stand for a plugin of a kind.
func (d *Decoder) known(k *Kind) []string {
	names := append(slices.Sorted(maps.Keys(d.Tables[k.Name])), k.Names()...)
	slices.Sort(names)
	return slices.Compact(names)
}

// guess notes what v, which is no plugin of the kind, was probably meant to be.
func (d *Decoder) guess(k *Kind, path string, v any) {
	if table, ok := v.(map[string]any); ok {
		v = table["type"]
	}
	name, _, ok := textOf(v)
	if !ok {
		return
	}
	if known := d.known(k); !slices.Contains(known, name) {
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

// Alone decodes the settings of the plugin of that kind and name, which is registered, and validates them. Paths begin with the settings' own keys.
func (d *Decoder) Alone(kind, name string, m map[string]any) any {
	k, _ := d.Set.Kind(kind)
	info, _ := k.Lookup(name)
	config := info.New()
	d.table("", m, reflect.ValueOf(config).Elem(), false)
	d.validate("", m, config, 0)
	return config
}

// Named decodes the file's table of that kind and name into an instance of its own.
func (d *Decoder) Named(kind, name string) (Instance, bool) {
	k, _ := d.Set.Kind(kind)
	path := Join(kind, name)
	m, ok := d.Tables[kind][name].(map[string]any)
	if !ok {
		d.wrongType(path, d.Tables[kind][name], "a table with the settings of a "+kind)
		return Instance{}, false
	}
	if d.building[path] {
		d.problem(path, "the "+kind+" is part of itself", "", "")
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
	return d.build(k, path, name, t, m)
}

// typeOf finds the plugin that a table configures. A named table may leave the type out if its own name says it.
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
		d.problem(Join(path, "type"), what, Names(k.Names()), spelling.Nearest(name, k.Names()))
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
			d.problem(at, shown+" is a "+other+", not a "+k.Name, Names(k.Names()), "")
		} else {
			d.problem(at, noSuch(k.Name+" type", shown, v), Names(k.Names()), spelling.Nearest(t, k.Names()))
		}
		return "", false
	}
	if isType && t != name {
		d.problem(at, "a table may not take the name of another type: ["+path+"] can only be of type \""+name+"\"", "", "")
		return "", false
	}
	return t, true
}

func noSuch(what, shown string, v any) string {
	if _, ok := v.(Substituted); ok {
		return shown + " is no " + what
	}
	return "there is no " + what + " " + shown
}

// build decodes m over the plugin's defaults and validates the outcome.
func (d *Decoder) build(k *Kind, path, name, typ string, m map[string]any) (Instance, bool) {
	info, _ := k.Lookup(typ)
	inst := Instance{Path: path, Kind: k.Name, Name: name, Type: typ, Config: info.New()}
	problems, references := len(d.Problems), len(d.References)
	d.table(path, m, reflect.ValueOf(inst.Config).Elem(), true)
	d.validate(path, m, inst.Config, problems)
	inst.References = slices.Clone(d.References[references:])
	return inst, true
}
