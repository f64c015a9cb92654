// Package plugin has the registry of everything that a configuration file can name, and the one
// decoder that fills the configuration structs. Plugin authors never import it. Each contract
// package (such as handlers and transports/codec) defines a kind here and offers a Register of its
// own.
package plugin

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"sync"
)

// Info describes one plugin.
type Info struct {
	// Name is what `type = "..."` says in TOML: lower case letters, digits and dashes.
	Name string
	// Summary is one line for lists.
	Summary string
	// Description is Markdown for the plugin's page.
	Description string
	// New returns a pointer to a new configuration struct with every default set.
	New func() any
	// Extra is what the kind's contract stores in addition (its own Plugin struct).
	Extra any
}

// Package is the import path of the Go package that the plugin's configuration belongs to.
func (i Info) Package() string { return reflect.TypeOf(i.New()).Elem().PkgPath() }

// Kind is a family of plugins that share a contract, such as "handler".
type Kind struct {
	// Name is the word that TOML and messages use for the family.
	Name string
	// Interface is the type that every configuration of this kind implements. A configuration
	// field of this type has a nested plugin.
	Interface reflect.Type

	plugins map[string]Info
}

// Names returns the names of the kind's plugins, sorted.
func (k *Kind) Names() []string { return slices.Sorted(maps.Keys(k.plugins)) }

func (k *Kind) has(name string) bool {
	_, ok := k.Lookup(name)
	return ok
}

// Lookup returns the plugin of that name.
func (k *Kind) Lookup(name string) (Info, bool) {
	info, ok := k.plugins[name]
	return info, ok
}

// Set is all kinds with their plugins.
type Set struct {
	mu    sync.Mutex
	kinds map[string]*Kind
}

var registered = &Set{kinds: map[string]*Kind{}}

// Registered returns a copy of the process's own set.
func Registered() *Set { return registered.Clone() }

// Define adds a kind whose configurations implement C. It panics if the kind exists.
func Define[C any](kind string) {
	registered.Define(kind, reflect.TypeFor[C]())
}

// Register adds a plugin to a kind. It panics on an error, because a program with two plugins of
// one name must not start.
func Register(kind string, info Info) { registered.Register(kind, info) }

// Define adds a kind to the set.
func (s *Set) Define(kind string, iface reflect.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.kinds[kind]; ok {
		panic(fmt.Sprintf("plugin kind %q defined twice", kind))
	}
	s.kinds[kind] = &Kind{Name: kind, Interface: iface, plugins: map[string]Info{}}
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// Register adds a plugin to a kind of the set. It panics on a bad name, a name that is taken, a
// missing summary, or a configuration that isn't a pointer to a struct implementing the kind's
// interface.
func (s *Set) Register(kind string, info Info) {
	k, ok := s.Kind(kind)
	switch {
	case !ok:
		panic(fmt.Sprintf("registering %s %q: there is no such kind", kind, info.Name))
	case !validName.MatchString(info.Name):
		panic(fmt.Sprintf("registering %s %q: a name is lower case letters, digits and single dashes", kind, info.Name))
	case info.Summary == "":
		panic(fmt.Sprintf("registering %s %q: the summary is missing", kind, info.Name))
	case info.New == nil:
		panic(fmt.Sprintf("registering %s %q: the configuration constructor is missing", kind, info.Name))
	}
	t := reflect.TypeOf(info.New())
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct || !t.Implements(k.Interface) {
		panic(fmt.Sprintf("registering %s %q: %v is not a pointer to a struct that implements %v", kind, info.Name, t, k.Interface))
	}
	// A constructor may look up plugins itself, such as a default codec. So the lock is taken
	// after the call.
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := k.plugins[info.Name]; ok {
		panic(fmt.Sprintf("registering %s %q of %s: the name is taken by that of %s", kind, info.Name, info.Package(), other.Package()))
	}
	k.plugins[info.Name] = info
}

// Clone returns an independent copy.
func (s *Set) Clone() *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Set{kinds: make(map[string]*Kind, len(s.kinds))}
	for name, k := range s.kinds {
		c.kinds[name] = &Kind{Name: k.Name, Interface: k.Interface, plugins: maps.Clone(k.plugins)}
	}
	return c
}

// Bare returns a set with the same kinds and no plugins, for tests.
func (s *Set) Bare() *Set {
	c := s.Clone()
	for _, k := range c.kinds {
		clear(k.plugins)
	}
	return c
}

// Kind returns the kind of that name.
func (s *Set) Kind(name string) (*Kind, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.kinds[name]
	return k, ok
}

// KindOf returns the kind whose configurations implement the interface type t.
func (s *Set) KindOf(t reflect.Type) (*Kind, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kinds {
		if k.Interface == t {
			return k, true
		}
	}
	return nil, false
}

// Kinds returns the names of all kinds, sorted.
func (s *Set) Kinds() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.kinds))
}

// A Reference is a string in a configuration that names something elsewhere in the file. The
// decoder collects references, so that they can be checked before anything starts.
type Reference interface {
	// References returns what the string names: "topic" (transport:topic) or "devices" (a
	// transport with devices).
	References() string
}

// FieldError is a Validate error that belongs to one field.
type FieldError struct {
	// Field is the TOML key inside the struct, dotted for nested tables.
	Field   string
	Message string
	// Text is the field's value, and Offset the byte at which it is wrong. Without an offset, Text
	// is empty.
	Text   string
	Offset int
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// Invalid returns a FieldError. Several are joined with errors.Join.
func Invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}

// InvalidAt returns a FieldError with the byte offset of a problem in the field's text, and shows
// that place.
func InvalidAt(field, text string, offset int, format string, args ...any) error {
	offset = max(0, min(offset, len(text)))
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...) + Caret(text, offset), Text: text, Offset: offset}
}
