package configs

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const tested = `transport.broker = { type = "amqp" }
transport.devices = { type = "tcp" }

[pipeline.a]
from = "broker:in"
to = "broker:out"
on_error = "drop"

[[test]]
name = "of the file"
clock = "real"
steps = [{ wait = "1s" }]
`

const beside = `
[[test]]
name = "beside it"

[[test.steps]]
input = { topic = "broker:in", payload = "${PAYLOAD:-}" }

[[test.steps]]
device.name = "10.0.0.7"
device.answers = {}

[[test.steps]]
  [test.steps.expect]
  topic = "broker:out"
`

func parseBeside(t *testing.T, text string) (*Config, error) {
	t.Helper()
	config, _, err := Parse("pentrough.toml", []byte(tested), Options{
		Plugins: fakePlugins(), LookupEnv: testEnv, Tests: []TestFile{{Name: "beside.toml", Data: []byte(text)}},
	})
	return config, err
}

func TestTestsBeside(t *testing.T) {
	config, err := parseBeside(t, beside)
	if err != nil {
		t.Fatal(err)
	}
	want := []Test{
		{
			Name: "of the file", Clock: RealClock, Place: Place{"pentrough.toml", Position{9, 3}},
			Steps: []TestStep{{Wait: time.Second, Place: Place{"pentrough.toml", Position{12, 10}}}},
		},
		{
			Name: "beside it", Place: Place{"beside.toml", Position{2, 3}},
			Steps: []TestStep{
				{Input: &TestInput{Topic: "broker:in", Encoding: "text", HasPayload: true}, Place: Place{"beside.toml", Position{5, 8}}},
				{
					Device: &TestDevice{Name: "10.0.0.7", Transport: "devices", Answers: map[string]string{}, Encoding: "text", HasAnswers: true},
					Place:  Place{"beside.toml", Position{8, 8}},
				},
				{Expect: &TestExpect{Topic: "broker:out", Encoding: "text", Count: 1}, Place: Place{"beside.toml", Position{12, 8}}},
			},
		},
	}
	if diff := cmp.Diff(want, config.Tests); diff != "" {
		t.Error(diff)
	}
}

func TestTestsBesideAreCheckedAgainstTheConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		"[host]\nname = 'x'":               "beside.toml:1:2: host: a file of tests can't have this key; allowed: [[test]]",
		"[[test]]\nname = 1":               "beside.toml:1:3: test[0].steps: missing: the steps of the test, or the recording of replay",
		"[[test]]\nname = 'a'\nsteps = []": "beside.toml:3:1: test[0].steps: missing: the steps of the test, or the recording of replay",
		"[[test]]\nname = 'a'\nignore_host = true\nsteps = [{wait='1s'}]": "beside.toml:3:1: test[0].ignore_host: only a test with replay can have this key",
		"[[test":   "beside.toml:1:6: test: not TOML: expected '.' or ']' to end table name, but got the end of the file",
		"test = 1": "beside.toml:1:1: test: an integer can't stand here; allowed: a list",
		"[[test]]\nname='a'\nsteps=[{expect={topic='broker:x'}}]": `beside.toml:3:17: test[0].steps[0].expect.topic: nothing in the configuration consumes or publishes to "broker:x"`,
	} {
		_, err := parseBeside(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}
