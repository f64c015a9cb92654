package configs_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/configs"
	_ "github.com/pentrough/pentrough/handlers/command"
	_ "github.com/pentrough/pentrough/handlers/deliver"
	_ "github.com/pentrough/pentrough/handlers/httprequest"
	_ "github.com/pentrough/pentrough/handlers/log"
	_ "github.com/pentrough/pentrough/handlers/passthrough"
	_ "github.com/pentrough/pentrough/handlers/sql"
	_ "github.com/pentrough/pentrough/handlers/store"
	"github.com/pentrough/pentrough/internal/plugin"
	_ "github.com/pentrough/pentrough/router/middleware/circuitbreaker"
	_ "github.com/pentrough/pentrough/router/middleware/dedup"
	_ "github.com/pentrough/pentrough/router/middleware/poison"
	_ "github.com/pentrough/pentrough/router/middleware/ratelimit"
	_ "github.com/pentrough/pentrough/router/middleware/retry"
	_ "github.com/pentrough/pentrough/router/middleware/throttle"
	_ "github.com/pentrough/pentrough/router/middleware/timeout"
	_ "github.com/pentrough/pentrough/transports/amqp"
	_ "github.com/pentrough/pentrough/transports/codec/delimiter"
	_ "github.com/pentrough/pentrough/transports/codec/fixed"
	_ "github.com/pentrough/pentrough/transports/codec/length"
	_ "github.com/pentrough/pentrough/transports/codec/line"
	_ "github.com/pentrough/pentrough/transports/codec/packet"
	_ "github.com/pentrough/pentrough/transports/codec/raw"
	_ "github.com/pentrough/pentrough/transports/http"
	_ "github.com/pentrough/pentrough/transports/memory"
	_ "github.com/pentrough/pentrough/transports/protocol/iec104"
	_ "github.com/pentrough/pentrough/transports/protocol/jt808"
	_ "github.com/pentrough/pentrough/transports/protocol/rules"
	_ "github.com/pentrough/pentrough/transports/schedule"
	_ "github.com/pentrough/pentrough/transports/tcp"
)

// noEnv is an environment without variables: examples must work without any.
var noEnv = configs.Options{LookupEnv: func(string) (string, bool) { return "", false }}

// TestExamples holds the examples against the plugins that the program has, and against the
// schema.
func TestExamples(t *testing.T) {
	schema := configs.CompileSchema(t, nil)
	for name, pipelines := range map[string][]string{
		configs.Quickstart: {"commands", "data", "events"},
		configs.Commands:   {"commands", "data", "status", "web"},
		configs.Original:   {"commands", "status"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := configs.Example(name)
			if err != nil {
				t.Fatal(err)
			}
			config, warnings, err := configs.Parse(name, data, noEnv)
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) > 0 {
				t.Errorf("warnings:\n%s", warnings)
			}
			var got []string
			for _, p := range config.Router.Pipelines {
				got = append(got, p.Name)
			}
			if diff := cmp.Diff(pipelines, got); diff != "" {
				t.Error(diff)
			}
			if err := schema.Validate(configs.AsJSON(t, string(data))); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := configs.Example("nothing.toml"); err == nil {
		t.Error("there is an example of nothing")
	}
}

// TestOneBroker holds that one queue is found behind two transports that name its broker in
// different ways.
func TestOneBroker(t *testing.T) {
	file := func(url string) []byte {
		return []byte(`
[transport.a]
type = "amqp"
port = 5673
[transport.b]
type = "amqp"
url = "` + url + `"
[pipeline.one]
from = "a:q"
on_error = "drop"
[pipeline.two]
from = "b:q"
on_error = "drop"
`)
	}
	_, _, err := configs.Parse("x.toml", file("amqp://other:name@127.0.0.1:5673/"), noEnv)
	if err == nil || !strings.Contains(err.Error(), `pipeline.two.from: pipeline "one" also consumes from queue q ("a:q")`) {
		t.Errorf("got %v", err)
	}
	for _, url := range []string{"amqp://127.0.0.1:5672/", "amqp://127.0.0.1:5673/vhost"} {
		if _, _, err := configs.Parse("x.toml", file(url), noEnv); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestSettings holds every plugin's settings to the rules of their tags: each is documented, its
// example can be set, and its default would be accepted.
func TestSettings(t *testing.T) {
	set := plugin.Registered()
	for _, kindName := range set.Kinds() {
		kind, _ := set.Kind(kindName)
		for _, name := range kind.Names() {
			t.Run(kindName+"."+name, func(t *testing.T) {
				info, _ := kind.Lookup(name)
				if a, b := info.New(), info.New(); a == b && reflect.TypeOf(a).Elem().Size() > 0 {
					t.Error("two configurations are one")
				}
				untagged(t, reflect.TypeOf(info.New()).Elem())
				page, _ := set.Page(kindName, name)
				settings(t, set, info, "", page.Fields)
			})
		}
	}
}

// untagged tells of exported fields that a file can't set.
func untagged(t *testing.T, s reflect.Type) {
	for f := range s.Fields() {
		if f.IsExported() && !f.Anonymous && f.Tag.Get("toml") == "" {
			t.Errorf("%v.%s has no toml tag", s, f.Name)
		}
	}
}

func settings(t *testing.T, set *plugin.Set, info plugin.Info, table string, fields []plugin.Field) {
	for _, f := range fields {
		key := strings.TrimPrefix(table+"."+f.Key, ".")
		if !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s: the doc tag is no sentence: %q", key, f.Doc)
		}
		values := map[string]string{"example": f.Example}
		if f.Default != nil && f.Default != "" && f.Default != int64(0) && f.Default != "0s" {
			values["default"] = plugin.TOML(f.Default)
		}
		for what, value := range values {
			if value == "" {
				continue
			}
			var tree map[string]any
			if _, err := toml.Decode(key+" = "+value, &tree); err != nil {
				t.Errorf("%s: the %s is no TOML: %v", key, what, err)
				continue
			}
			// Validate isn't asked: one setting may need another.
			d := plugin.Decoder{Set: set}
			substituted(tree)
			d.Table("x", tree, info.New())
			for _, p := range d.Problems {
				if strings.HasPrefix(p.Path, "x."+key) && !strings.HasPrefix(p.Message, "missing") {
					t.Errorf("the %s of %s: %s", what, p.Path, p.Message)
				}
			}
		}
		inner := f.Type
		for inner.Elem != nil {
			inner = *inner.Elem
		}
		if f.Type.Shape == plugin.ShapeMap {
			key += ".NAME"
		}
		if f.Type.Shape != plugin.ShapeList {
			settings(t, set, info, key, inner.Fields)
		}
	}
}

// substituted marks strings with variables, so that an example may be one.
func substituted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = substituted(v[key])
		}
	case string:
		if strings.HasPrefix(v, "${") {
			if strings.HasSuffix(v, "_URL}") {
				return plugin.Substituted{Text: "postgres://127.0.0.1/x", Source: v, Whole: true}
			}
			return plugin.Substituted{Text: "text", Source: v, Whole: true}
		}
	}
	return v
}

var (
	block       = regexp.MustCompile("(?s)```(toml)?\n(.*?)```")
	excerptLine = regexp.MustCompile(`(?m)^    .*\n`)
)

// TestConfigurationPage checks the examples of docs/configuration.md. The first two are right. The
// errors of the third are those that the page prints, without what it leaves out as "..." and
// without the lines of the file, which only validate prints.
func TestConfigurationPage(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 4 {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	if _, _, err := configs.Parse("pentrough.toml", []byte(blocks[0][2]), noEnv); err != nil {
		t.Error(err)
	}
	if devices, err := configs.ParseInventory("devices.toml", []byte(blocks[1][2])); err != nil || len(devices) != 2 {
		t.Errorf("the inventory has %d devices, error %v", len(devices), err)
	}
	_, _, err = configs.Parse("pentrough.toml", []byte(blocks[2][2]), noEnv)
	if err == nil {
		t.Fatal("the wrong example is right")
	}
	_, printout, _ := strings.Cut(blocks[3][2], "\n")
	printout = excerptLine.ReplaceAllString(printout, "")
	want := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(printout)), regexp.QuoteMeta(", ..."), ".*")
	if !regexp.MustCompile("^" + want + "$").MatchString(err.Error()) {
		t.Errorf("the page prints\n%s\nthe program\n%s", printout, err)
	}
}

// The configurations of the page are right.
func TestConnectYourDevicesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/connect-your-devices.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, b := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		found++
		if _, _, err := configs.Parse("pentrough.toml", []byte(b[1]), noEnv); err != nil {
			t.Errorf("%s\n%v", b[1], err)
		}
	}
	if found != 3 {
		t.Errorf("the page has %d configurations", found)
	}
	for _, p := range configs.Protocols() {
		if !strings.Contains(string(page), "`"+p.Name+"`") {
			t.Errorf("the page lacks the protocol %s", p.Name)
		}
	}
}
