package configs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/transports"
)

// testsSection is the list of [[test]] tables.
const testsSection = "test"

// testsTable is the content of a file of tests.
type testsTable struct {
	Tests []Test `toml:"test" doc:"Tests of the configuration, for pentrough test. A host ignores them."`
}

// TestFile is a file with [[test]] tables that belongs to a configuration.
type TestFile struct {
	Name string
	Data []byte
}

// ReadTests reads files of tests for [Options].
func ReadTests(paths []string) ([]TestFile, error) {
	var files []TestFile
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading tests: %w", err)
		}
		files = append(files, TestFile{Name: path, Data: data})
	}
	return files, nil
}

// tests decodes the [[test]] tables of a file and checks them against the configuration. It
// ignores the other tables.
func (b *builder) tests(name string, at *positions, tree map[string]any, f *file, refs []plugin.Ref) []Test {
	list, ok := tree[testsSection]
	if !ok {
		return nil
	}
	var table testsTable
	b.decoder.Table("", map[string]any{testsSection: list}, &table)
	c := &testChecker{builder: b, file: f, topics: map[string]bool{}}
	for _, ref := range refs {
		if ref.To == "topic" {
			c.topics[ref.Value] = true
		}
	}
	names := map[string]bool{}
	for i := range table.Tests {
		t := &table.Tests[i]
		path := plugin.Index(testsSection, i)
		t.Place = placeOf(name, at, path)
		if t.Name != "" && names[t.Name] {
			b.fail(plugin.Join(path, "name"), "another test already has the name "+strconv.Quote(t.Name), "", "")
		}
		names[t.Name] = true
		c.replay(path, t, element(list, i)["steps"])
		for j := range t.Steps {
			step := &t.Steps[j]
			place := plugin.Index(plugin.Join(path, "steps"), j)
			step.Place = placeOf(name, at, place)
			given(step, element(element(list, i)["steps"], j))
			c.step(place, step)
		}
	}
	return table.Tests
}

// replay checks the settings of a test with a recording. steps is the value of the key steps.
func (c *testChecker) replay(path string, t *Test, steps any) {
	list, isList := steps.([]any)
	switch {
	case t.Replay != "":
		if len(c.holders()) == 0 {
			c.fail(plugin.Join(path, "replay"), "no transport of the configuration has devices", "", "")
		}
	case t.IgnoreHost:
		c.fail(plugin.Join(path, "ignore_host"), "only a test with replay can have this key", "", "")
	case steps == nil || isList && len(list) == 0:
		c.fail(plugin.Join(path, "steps"), "missing: the steps of the test, or the recording of replay", "", "")
	}
}

// holders returns the names of the transports with devices.
func (c *testChecker) holders() []string {
	var holders []string
	for _, name := range slices.Sorted(maps.Keys(c.file.transports)) {
		if c.file.transports[name].devices {
			holders = append(holders, name)
		}
	}
	return holders
}

func placeOf(name string, at *positions, path string) Place {
	return Place{File: name, Position: at.find(path)}
}

// element returns the table at an index of a list, or nil if the element isn't a table.
func element(list any, i int) map[string]any {
	switch list := list.(type) {
	case []map[string]any:
		return list[i]
	case []any:
		m, _ := list[i].(map[string]any)
		return m
	}
	return nil
}

// given records whether the file has the keys payload and answers. Their values may be empty, so
// the decoded step doesn't show whether they are given.
func given(step *TestStep, raw map[string]any) {
	has := func(table, key string) bool {
		m, _ := raw[table].(map[string]any)
		_, ok := m[key]
		return ok
	}
	if step.Input != nil {
		step.Input.HasPayload = has("input", "payload")
	}
	if step.Device != nil {
		step.Device.HasAnswers = has("device", "answers")
	}
}

// testChecker checks tests against their configuration.
type testChecker struct {
	*builder
	file *file
	// topics has all topics that the configuration names.
	topics map[string]bool
}

func (c *testChecker) step(path string, s *TestStep) {
	for _, complaint := range s.check() {
		at := path
		if complaint.key != "" {
			at += "." + complaint.key
		}
		c.fail(at, complaint.message, "", "")
	}
	if in := s.Input; in != nil {
		c.input(plugin.Join(path, "input"), in)
	}
	if d := s.Device; d != nil {
		c.device(plugin.Join(path, "device"), d)
	}
	if e := s.Expect; e != nil && e.Topic != "" && !c.topics[e.Topic] && !c.isEvents(e.Topic) {
		c.unknown(path+".expect.topic", fmt.Sprintf("nothing in the configuration consumes or publishes to %q", e.Topic), e.Topic, slices.Sorted(maps.Keys(c.topics)))
	}
}

func (c *testChecker) unknown(path, what, name string, known []string) {
	c.fail(path, what, plugin.Names(known), spelling.Nearest(name, known))
}

// isEvents reports whether a transport with devices publishes to a topic by itself.
func (c *testChecker) isEvents(ref string) bool {
	name, topic, err := transports.TopicRef(ref).Split()
	if err != nil || !c.file.transports[name].devices {
		return false
	}
	_, err = c.file.transports[name].config.Topic(topic, transports.Consume)
	return err == nil
}

func (c *testChecker) input(path string, in *TestInput) {
	var names, sources []string
	for _, p := range c.file.pipelines {
		names, sources = append(names, p.name), append(sources, string(p.table.From))
	}
	if in.Pipeline != "" {
		i := slices.Index(names, in.Pipeline)
		if i < 0 {
			c.unknown(plugin.Join(path, "pipeline"), fmt.Sprintf("there is no pipeline %q", in.Pipeline), in.Pipeline, names)
			return
		}
		c.takes(plugin.Join(path, "pipeline"), sources[i])
	}
	if in.Topic != "" {
		if !slices.Contains(sources, in.Topic) {
			slices.Sort(sources)
			c.unknown(plugin.Join(path, "topic"), fmt.Sprintf("no pipeline consumes %q", in.Topic), in.Topic, slices.Compact(sources))
			return
		}
		c.takes(plugin.Join(path, "topic"), in.Topic)
	}
}

// takes refuses inputs to topics whose messages come from other steps of a test.
func (c *testChecker) takes(path, ref string) {
	name, topic, err := transports.TopicRef(ref).Split()
	if err != nil {
		return
	}
	t, ok := c.file.transports[name]
	if !ok {
		return
	}
	if t.devices {
		c.fail(path, fmt.Sprintf("the messages of %q come from devices", ref), `device = { name = "...", says = ["..."] }`, "")
		return
	}
	if t.selfContained {
		if _, err := t.config.Topic(topic, transports.Produce); err != nil {
			c.fail(path, fmt.Sprintf("the transport creates the messages of %q itself", ref), `wait = "..."`, "")
		}
	}
}

func (c *testChecker) device(path string, d *TestDevice) {
	holders := c.holders()
	switch {
	case d.Transport == "" && len(holders) == 1:
		d.Transport = holders[0]
	case d.Transport == "" && len(holders) == 0:
		c.fail(path, "no transport of the configuration has devices", "", "")
	case d.Transport == "":
		c.fail(plugin.Join(path, "transport"), "missing: the transport of the device, because several have devices", plugin.Names(holders), "")
	case !slices.Contains(holders, d.Transport):
		c.unknown(plugin.Join(path, "transport"), fmt.Sprintf("no transport with devices is named %q", d.Transport), d.Transport, holders)
	}
}
