package plugin

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// panics returns what f panics with.
func panics(f func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

func TestRegisterRefuses(t *testing.T) {
	right := func() any { return &round{} }
	for name, test := range map[string]struct {
		kind string
		info Info
		want string
	}{
		"no such kind": {"colour", Info{Name: "red", Summary: "Red.", New: right}, "no such kind"},
		"name":         {"shape", Info{Name: "Red_", Summary: "Red.", New: right}, "a name is lower case"},
		"summary":      {"shape", Info{Name: "red", New: right}, "the summary is missing"},
		"constructor":  {"shape", Info{Name: "red", Summary: "Red."}, "constructor is missing"},
		"not a shape":  {"shape", Info{Name: "red", Summary: "Red.", New: func() any { return &inner{} }}, "implements"},
		"no pointer":   {"shape", Info{Name: "red", Summary: "Red.", New: func() any { return 5 }}, "not a pointer to a struct"},
		"nil":          {"shape", Info{Name: "red", Summary: "Red.", New: func() any { return nil }}, "not a pointer to a struct"},
		"taken":        {"shape", Info{Name: "round", Summary: "Round.", New: right}, "the name is taken"},
	} {
		if got := panics(func() { testSet().Register(test.kind, test.info) }); !strings.Contains(got, test.want) {
			t.Errorf("%s: panics with %q", name, got)
		}
	}
	if got := panics(func() { testSet().Define("shape", reflect.TypeFor[shape]()) }); !strings.Contains(got, "defined twice") {
		t.Errorf("a kind twice panics with %q", got)
	}
}

// A plugin's defaults may contain a plugin that was registered before it.
func TestRegisterWhileLookingUp(t *testing.T) {
	set := testSet()
	set.Register("shape", Info{Name: "ring", Summary: "A ring.", New: func() any {
		kind, _ := set.Clone().Kind("shape")
		info, _ := kind.Lookup("round")
		return &round{Inside: info.New().(shape)}
	}})
	if got := set.Fields(must(set, "ring")); got[1].Default != "round" {
		t.Errorf("the ring's inside is %v", got[1].Default)
	}
}

func must(set *Set, name string) any {
	kind, _ := set.Kind("shape")
	info, _ := kind.Lookup(name)
	return info.New()
}

func TestCopiesAreIndependent(t *testing.T) {
	set := testSet()
	clone, bare := set.Clone(), set.Bare()
	clone.Register("shape", Info{Name: "red", Summary: "Red.", New: func() any { return &round{} }})
	for s, want := range map[*Set][]string{set: {"round"}, clone: {"red", "round"}, bare: nil} {
		kind, ok := s.Kind("shape")
		if !ok || !slices.Equal(kind.Names(), want) || !slices.Equal(s.Kinds(), []string{"shape"}) {
			t.Errorf("got %v, want %v", kind.Names(), want)
		}
	}
}

type badTags struct {
	Number   int           `toml:"number" min:"few"`
	Duration time.Duration `toml:"duration" max:"long"`
	Channel  chan int      `toml:"channel"`
	Other    error         `toml:"other"`
}

// A mistake in the tags of a plugin's configuration makes the program panic, as a wrong
// registration does.
func TestBadFieldsPanic(t *testing.T) {
	for key, test := range map[string]struct {
		v    any
		want string
	}{
		"number": {int64(1), `the tag min:"few" doesn't fit`}, "duration": {"1s", `the tag max:"long" doesn't fit`},
		"channel": {int64(1), "a file can't contain a chan int"}, "other": {"x", "not a kind of plugin"},
	} {
		d := Decoder{Set: testSet()}
		if got := panics(func() { d.Table("x", map[string]any{key: test.v}, &badTags{}) }); !strings.Contains(got, test.want) {
			t.Errorf("%s: panics with %q", key, got)
		}
	}
}
