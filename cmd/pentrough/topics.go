package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// topicsInUse returns the topics that pipelines consume or may publish to, sorted.
func topicsInUse(c router.Config) []transports.TopicRef {
	var all []transports.TopicRef
	for _, p := range c.Pipelines {
		all = append(all, p.From, p.To)
		for _, ref := range pipelineReferences(p) {
			if ref.to == topicReference {
				all = append(all, transports.TopicRef(ref.value))
			}
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(ref transports.TopicRef) bool { return ref == "" })
}

// topicUses returns how the pipelines use the topics of a transport, sorted by topic. A topic that
// is consumed may also be published to.
func topicUses(c router.Config, transport string) []transports.TopicUse {
	var uses []transports.TopicUse
	for _, ref := range topicsInUse(c) {
		name, topic, err := ref.Split()
		if err != nil || name != transport {
			continue
		}
		use := transports.TopicUse{Topic: topic, Use: transports.Produce}
		if i := slices.IndexFunc(c.Pipelines, func(p router.Pipeline) bool { return p.From == ref }); i >= 0 {
			use.Use, use.Competing = transports.Consume, c.Pipelines[i].Competing
		}
		uses = append(uses, use)
	}
	return uses
}

// reference is a setting that names a topic, or a transport that has devices.
type reference struct {
	// by is the name of the middleware or handler, and key is the name of its setting.
	by, key    string
	middleware bool
	// to is the kind of what the setting names, and value is the name.
	to, value string
}

// The kinds of references, with the names that package configs uses.
const (
	topicReference   = "topic"
	devicesReference = "devices"
)

// pipelineReferences returns the references of a pipeline's middleware and handler, in the order
// of the chain.
func pipelineReferences(p router.Pipeline) []reference {
	var all []reference
	for _, m := range p.Middleware {
		findReferences(reflect.ValueOf(m.Config), "", func(r reference) {
			r.by, r.middleware = m.Name, true
			all = append(all, r)
		})
	}
	findReferences(reflect.ValueOf(p.Handler.Config), "", func(r reference) {
		r.by = p.Handler.Type
		all = append(all, r)
	})
	return all
}

// findReferences calls found for each reference in a plugin's configuration. key is the name of
// the setting that has the value v.
func findReferences(v reflect.Value, key string, found func(reference)) {
	switch v.Kind() {
	case reflect.String:
		if ref, ok := v.Interface().(plugin.Reference); ok && v.String() != "" {
			found(reference{key: key, to: ref.References(), value: v.String()})
		}
	case reflect.Pointer, reflect.Interface:
		findReferences(v.Elem(), key, found)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
				findReferences(v.Field(i), name, found)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			findReferences(v.Index(i), key, found)
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			findReferences(v.MapIndex(k), key, found)
		}
	}
}

// unusedTopic returns a message if no pipeline uses a topic, with the topic that was probably
// meant. Otherwise it returns "". It accepts every topic of a transport with devices, because such
// a transport publishes to topics of its own.
func unusedTopic(c router.Config, ref transports.TopicRef) string {
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
	text := fmt.Sprintf("no pipeline consumes or publishes to %q; in use: %s", ref, strings.Join(known, ", "))
	if meant := spelling.Nearest(topic, near); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", name+":"+meant)
	}
	return text
}
