package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// topicsInUse returns the topics that a configuration's pipelines take from or may publish to, in order.
func topicsInUse(c router.Config) []transports.TopicRef {
	var all []transports.TopicRef
	add := func(ref transports.TopicRef) { all = append(all, ref) }
	for _, p := range c.Pipelines {
		add(p.From)
		add(p.To)
		references(reflect.ValueOf(p.Handler.Config), add)
		for _, m := range p.Middleware {
			references(reflect.ValueOf(m.Config), add)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(ref transports.TopicRef) bool { return ref == "" })
}

// references finds the topics in a plugin's configuration.
func references(v reflect.Value, found func(transports.TopicRef)) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[transports.TopicRef]() {
			found(transports.TopicRef(v.String()))
		}
	case reflect.Pointer, reflect.Interface:
		references(v.Elem(), found)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				references(v.Field(i), found)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			references(v.Index(i), found)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			references(v.MapIndex(key), found)
		}
	}
}

// unused says that no pipeline has to do with a topic, and which was probably meant. It says nothing of topics that a transport fills
// by itself, as one with devices does.
func unused(c router.Config, ref transports.TopicRef) string {
	topics := topicsInUse(c)
	name, topic, err := ref.Split()
	if err != nil || slices.Contains(topics, ref) {
		return ""
	}
	kind, _ := plugin.Registered().Kind("transport")
	for _, t := range c.Transports {
		if info, ok := kind.Lookup(t.Type); ok && t.Name == name && info.Extra.(transports.Plugin).Devices {
			return ""
		}
	}
	var known, near []string
	for _, other := range topics {
		known = append(known, string(other))
		if of, topic, err := other.Split(); err == nil && of == name {
			near = append(near, topic)
		}
	}
	text := fmt.Sprintf("no pipeline takes from or publishes to %q; in use: %s", ref, strings.Join(known, ", "))
	if meant := plugin.Nearest(topic, near); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", name+":"+meant)
	}
	return text
}
