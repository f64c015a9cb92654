package configs

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

// testEnv is the environment of all tests.
func testEnv(name string) (string, bool) {
	value, ok := map[string]string{
		"PORT": "5673", "WRONG_PORT": "hunter2", "ON": "true", "EMPTY": "", "LEVEL": "loud", "PASSWORD": "hunter2", "TOPIC": "brokr:x",
	}[name]
	return value, ok
}

// TestProblems reads every testdata/*.txtar: a configuration and all that must be said of it.
func TestProblems(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range archive.Files {
				files[f.Name] = string(f.Data)
			}
			config, warnings, err := Parse("pentrough.toml", []byte(files["pentrough.toml"]), Options{Plugins: fakePlugins(), LookupEnv: testEnv})
			if (err == nil) != (config != nil) {
				t.Errorf("a configuration and an error: %v, %v", config, err)
			}
			got := map[string]string{"pentrough.toml": files["pentrough.toml"]}
			if err != nil {
				problems, _ := errors.AsType[Problems](err)
				got["problems"] = problems.Listing() + "\n"
			}
			if len(warnings) > 0 {
				got["warnings"] = Problems(warnings).Listing() + "\n"
			}
			if *update {
				archive.Files = archive.Files[:0]
				for _, name := range []string{"pentrough.toml", "problems", "warnings"} {
					if text, ok := got[name]; ok {
						archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(text)})
					}
				}
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(files, got); diff != "" {
				t.Error(diff)
			}
			for _, text := range []string{got["problems"], got["warnings"]} {
				if strings.Contains(text, "hunter2") {
					t.Error("a secret is printed")
				}
			}
		})
	}
}

// parse reads a configuration that must be right.
func parse(t *testing.T, text string) *Config {
	t.Helper()
	config, _, err := Parse("pentrough.toml", []byte(text), Options{Plugins: fakePlugins(), LookupEnv: testEnv})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestParse(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/complete.txtar")
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, string(archive.Files[0].Data))
	want := &Config{
		Host: Host{
			Name: "gateway-1", Admin: "127.0.0.1:8222", ShutdownTimeout: 30 * time.Second,
			Log: Log{Level: slog.LevelDebug, Format: "json"},
		},
		Store: Store{Type: "memory"},
		Router: router.Config{
			Name: "gateway-1", ShutdownTimeout: 30 * time.Second, Memory: defaultMemory(),
			Transports: []router.Transport{
				{Name: "broker", Type: "amqp", Config: &fakeAMQP{URL: "amqp://guest:guest@127.0.0.1/", Prefetch: 1000}},
				{Name: "devices", Type: "tcp", Config: &fakeTCP{Listen: ":8123", Framing: &fakeLine{Max: 4096}, IdleTimeout: 5 * time.Minute}},
				{Name: "other", Type: "tcp", Config: &fakeTCP{Listen: "127.0.0.1:8124", Framing: &fakeLine{Max: 80}, IdleTimeout: 5 * time.Minute}, Framing: "short"},
				{Name: "web", Type: "http", Config: &fakeHTTP{Listen: "127.0.0.1:8080"}},
			},
			Pipelines: []router.Pipeline{
				{
					Name: "commands", From: "broker:commands", To: "broker:results", Key: "payload.address",
					Middleware: []router.Middleware{
						{Name: "poison", Type: "poison", Config: &fakePoison{To: "broker:commands.poison"}},
						{Name: "retry", Type: "retry", Config: &fakeRetry{MaxRetries: 5}},
					},
					Handler: router.Handler{Type: "deliver", Config: &fakeDeliver{Devices: "devices"}},
					Lanes:   router.Lanes{Stall: 10 * time.Second, AckDeadline: router.DefaultLanes.AckDeadline},
					Batch:   router.Batch{Size: 10, Interval: time.Millisecond},
				},
				{
					Name: "events", From: "devices:events", To: "broker:status", DropErrors: true,
					Handler: router.Handler{Type: "passthrough", Config: &fakePassthrough{}},
					Lanes:   router.DefaultLanes, Batch: router.DefaultBatch,
				},
			},
		},
	}
	got.Router.Redact = nil // functions can't be compared
	if diff := cmp.Diff(want, got, sameLimits); diff != "" {
		t.Error(diff)
	}
}

// defaultMemory are the limits that the documentation states.
func defaultMemory() transports.Memory {
	return transports.Memory{
		Bodies: transports.NewBudget(64 << 20), InFlight: transports.NewBudget(128 << 20),
		Waiting: transports.NewBudget(64 << 20), Held: transports.NewBudget(128 << 20),
	}
}

var sameLimits = cmp.Comparer(func(a, b *transports.Budget) bool { return a.Limit() == b.Limit() })

func TestMemory(t *testing.T) {
	memory := parse(t, "[host]\nmemory = { bodies = 0, held = 5 }").Router.Memory
	want := defaultMemory()
	want.Bodies, want.Held = transports.NewBudget(0), transports.NewBudget(5)
	if diff := cmp.Diff(want, memory, sameLimits); diff != "" {
		t.Error(diff)
	}
}

func TestParseDefaults(t *testing.T) {
	got := parse(t, "")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Host:   Host{Name: name, Admin: "127.0.0.1:8222", ShutdownTimeout: 30 * time.Second, Log: Log{Level: slog.LevelInfo, Format: "text"}},
		Store:  Store{Type: "memory"},
		Router: router.Config{Name: name, ShutdownTimeout: 30 * time.Second, Memory: defaultMemory()},
	}
	got.Router.Redact = nil
	if diff := cmp.Diff(want, got, sameLimits); diff != "" {
		t.Error(diff)
	}
	if admin := parse(t, "[host]\nadmin = ''").Host.Admin; admin != "" {
		t.Errorf("an admin listener that was turned off is at %q", admin)
	}
}

func TestDropErrors(t *testing.T) {
	for settings, want := range map[string]bool{
		"from = 'http:/a'":                                              true,
		"from = 'http:/a'\non_error = 'drop'":                           true,
		"from = 'http:/a'\nmiddleware = 'poison'\non_error = 'poison'":  false,
		"from = 'amqp:a'\nmiddleware = 'poison'":                        false,
		"from = 'amqp:a'\nmiddleware = ['poison']\non_error = 'poison'": false,
		"from = 'amqp:a'\non_error = 'drop'":                            true,
		"from = 'amqp:a'\nmiddleware = 'poison'\non_error = 'drop'":     true,
	} {
		config := parse(t, "transport.amqp = {}\ntransport.http = {}\nmiddleware.poison.to = 'amqp:p'\n[pipeline.a]\n"+settings)
		if got := config.Router.Pipelines[0].DropErrors; got != want {
			t.Errorf("%q: DropErrors is %v", settings, got)
		}
	}
}

// TestUses: a table that two pipelines name is a configuration, not a shared thing.
func TestUses(t *testing.T) {
	config := parse(t, "transport.http = {}\nmiddleware.retry.max_retries = 7\n[pipeline.a]\nfrom = 'http:/a'\nmiddleware = 'retry'\n[pipeline.b]\nfrom = 'http:/b'\nmiddleware = ['retry']")
	a, b := config.Router.Pipelines[0].Middleware[0], config.Router.Pipelines[1].Middleware[0]
	if a.Config == b.Config || a.Config.(*fakeRetry).MaxRetries != 7 || b.Config.(*fakeRetry).MaxRetries != 7 {
		t.Errorf("got %+v and %+v", a, b)
	}
}

func TestSubstitutedTypes(t *testing.T) {
	config := parse(t, "[transport.amqp]\nport = '${PORT}'\ntopic.x = { arguments = { n = '${PORT}', s = 'a${PORT}' }, declare = '${ON}' }")
	amqp := config.Router.Transports[0].Config.(*fakeAMQP)
	want := map[string]fakeAMQPTopic{"x": {Arguments: map[string]any{"n": int64(5673), "s": "a5673"}, Declare: true}}
	if diff := cmp.Diff(want, amqp.Topics); diff != "" || amqp.Port != 5673 {
		t.Errorf("port %d, topics %s", amqp.Port, diff)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(path, []byte("[hots]"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(path, Options{Plugins: fakePlugins()})
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) != 1 || problems[0].File != path || problems[0].Position != (Position{1, 2}) || problems[0].Key != "hots" {
		t.Errorf("got %#v", err)
	}
	if _, _, err := Load(path+".missing", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestParseBounds(t *testing.T) {
	for name, data := range map[string]string{
		"too large":    strings.Repeat("#", maxFile+1),
		"too deep":     "a = " + strings.Repeat("[", 100_000),
		"not UTF-8":    "a = '\xff'",
		"UTF-16":       "\xff\xfea\x00",
		"parser panic": "a = 0x_",
	} {
		_, _, err := Parse("x", []byte(data), Options{Plugins: fakePlugins()})
		if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsInDumps(t *testing.T) {
	config := parse(t, "[transport.amqp]\nurl = 'amqp://me:hunter2@127.0.0.1/'\n[transport.http]\ntoken = '${PASSWORD}'")
	asJSON, err := json.Marshal(config.Router.Transports)
	if err != nil {
		t.Fatal(err)
	}
	for _, dump := range []string{
		string(asJSON), fmt.Sprintf("%+v", config.Router.Transports[0].Config), fmt.Sprintf("%#v", config.Router.Transports[1].Config),
		fmt.Sprintf("%+v %#v", *config, *config),
	} {
		if strings.Contains(dump, "hunter2") {
			t.Errorf("a secret is printed: %s", dump)
		}
	}
}

// FuzzParse: whatever the file, there is either a configuration or problems with places inside it,
// and no secret among them.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(archive.Files[0].Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "${file:") {
			// What other files of this machine hold is not the test's business.
			return
		}
		config, _, err := Parse("x", []byte(text), Options{Plugins: fakePlugins(), LookupEnv: func(string) (string, bool) { return "hunter2", true }})
		if (config == nil) != (err != nil) {
			t.Fatalf("%q: %v and %v", text, config, err)
		}
		if err == nil {
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 {
			t.Fatalf("%q: %v", text, err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" {
				t.Errorf("%q: no place: %#v", text, p)
			}
		}
		if !strings.Contains(text, "hunter2") && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the value of a variable is printed: %v", text, err)
		}
	})
}
