package configs

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/pentrough/pentrough/internal/plugin"
)

// CompileSchema makes a validator of a set's schema.
func CompileSchema(t *testing.T, set Plugins) *jsonschema.Schema {
	t.Helper()
	text, err := Schema(set)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pentrough.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("pentrough.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// AsJSON is a TOML text as an editor hands it to a JSON Schema validator.
func AsJSON(t *testing.T, text string) any {
	t.Helper()
	var tree map[string]any
	if _, err := decodeTOML(text, &tree); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSchemaAgreesWithTheDecoder(t *testing.T) {
	compiled := CompileSchema(t, fakePlugins())
	// What only shows when the parts are held against each other, or when a variable is looked up,
	// is beyond a schema.
	beyond := map[string]bool{
		"admin": true, "listeners": true, "loops": true, "order": true, "settling": true, "store": true, "store-url": true, "streams": true, "secrets": true, "substitution": true, "tracing-values": true, "inventory-missing": true,
	}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		if strings.HasPrefix(name, "syntax") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range archive.Files {
				files[f.Name] = string(f.Data)
			}
			if name == "bounds" || name == "types" {
				// JSON has neither nan nor dates.
				files["pentrough.toml"] = strings.NewReplacer("nan", "99", "1979-05-27", "5").Replace(files["pentrough.toml"])
			}
			err = compiled.Validate(AsJSON(t, files["pentrough.toml"]))
			if _, wrong := files["problems"]; wrong && !beyond[name] && err == nil {
				t.Error("the schema accepts a file with problems")
			} else if !wrong && err != nil {
				t.Errorf("the schema refuses a right file: %v", err)
			}
		})
	}
}

func TestSchemaValues(t *testing.T) {
	compiled := CompileSchema(t, fakePlugins())
	for config, ok := range map[string]bool{
		`[host]` + "\n" + `shutdown_timeout = "1h30m"`:                                           true,
		`[host]` + "\n" + `shutdown_timeout = "0.5s"`:                                            true,
		`[host]` + "\n" + `shutdown_timeout = "0"`:                                               true,
		`[host]` + "\n" + `shutdown_timeout = "${T}"`:                                            true,
		`[host]` + "\n" + `shutdown_timeout = "5 s"`:                                             false,
		`[host]` + "\n" + `shutdown_timeout = 5`:                                                 false,
		`[host]` + "\n" + `log.level = "${LEVEL:-info}"`:                                         true,
		`[host]` + "\n" + `log.level = "loud"`:                                                   false,
		`[tracing]` + "\n" + `endpoint = ""`:                                                     true,
		`[tracing]` + "\n" + `sample = 0.5`:                                                      false,
		`[transport.amqp]` + "\n" + `port = "${PORT}"`:                                           true,
		`[transport.amqp]` + "\n" + `port = "5672"`:                                              false,
		`[transport.amqp]` + "\n" + `port = 0`:                                                   false,
		`[transport.broker]` + "\n" + `port = 1`:                                                 false,
		`[transport.broker]` + "\n" + `type = "amqp"`:                                            true,
		`[transport.amqp]` + "\n" + `type = "tcp"`:                                               false,
		`[transport."a b"]` + "\n" + `type = "tcp"`:                                              false,
		`[transport.tcp]` + "\n" + `framing = "named"`:                                           true,
		`[transport.tcp]` + "\n" + `framing = { type = "line" }`:                                 true,
		`[transport.tcp]` + "\n" + `framing = { max = 1 }`:                                       false,
		`[transport.tcp]` + "\n" + `events = "${ON}"`:                                            true,
		`[transport.tcp]` + "\n" + `events = "yes"`:                                              false,
		`[pipeline.a]` + "\n" + `from = "x"`:                                                     false,
		`[pipeline.a]` + "\n" + `from = "x:y"`:                                                   true,
		`[pipeline.a]` + "\n" + `from = "${FROM}"`:                                               true,
		`[pipeline.a]` + "\n" + `from = "x:y"` + "\nmiddleware = 1":                              false,
		`[pipeline.a]` + "\n" + `from = "x:y"` + "\nmiddleware = \"retry\"":                      true,
		`[pipeline.a]` + "\n" + `from = "x:y"` + "\nmiddleware = [\"retry\", {type=\"poison\"}]": false,
		`[transport.amqp.topic.x]` + "\n" + `routing_key = "#"`:                                  true,
		`[transport.amqp.topic.x]` + "\n" + `routing_key = ["a", "b"]`:                           true,
		`[transport.amqp.topic.x]` + "\n" + `routing_key = [1]`:                                  false,
	} {
		if err := compiled.Validate(AsJSON(t, config)); (err == nil) != ok {
			t.Errorf("%q: %v", config, err)
		}
	}
}

func TestSchemaWithoutPlugins(t *testing.T) {
	compiled := CompileSchema(t, plugin.Registered().Bare())
	if err := compiled.Validate(AsJSON(t, "[host]\nname = 'x'")); err != nil {
		t.Error(err)
	}
}

func TestSchemaIsTheSameEachTime(t *testing.T) {
	first, err := Schema(fakePlugins())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Schema(fakePlugins())
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("two schemas differ: %v", err)
	}
	for _, want := range []string{`"$schema": "https://json-schema.org/draft/2020-12/schema"`, `"default": "30s"`, `"description": "The broker's port."`} {
		if !strings.Contains(string(first), want) {
			t.Errorf("the schema has no %s", want)
		}
	}
}
