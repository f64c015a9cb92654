package main

import (
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports/codec"
)

func TestPagesAreCurrent(t *testing.T) {
	folder := filepath.Join("..", "..", "docs", "plugins")
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		written[e.Name()] = string(text)
	}
	if diff := cmp.Diff(written, pageTexts()); diff != "" {
		t.Errorf("docs/plugins is not current; run make docs (-is +should be):\n%s", diff)
	}
}

func TestWritePagesReplacesWhatIsThere(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "handler-gone.md"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writePages(folder); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got[e.Name()] = true
	}
	want := map[string]bool{}
	for name := range maps.Keys(pageTexts()) {
		want[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A setting without a sentence can't be understood from its page or from an error.
func TestEverySettingIsDescribed(t *testing.T) {
	var check func(t *testing.T, at string, fields []plugin.Field)
	check = func(t *testing.T, at string, fields []plugin.Field) {
		for _, f := range fields {
			if f.Doc == "" {
				t.Errorf("%s.%s has no doc tag", at, f.Key)
			}
			inner := f.Type
			for inner.Elem != nil {
				inner = *inner.Elem
			}
			check(t, at+"."+f.Key, inner.Fields)
		}
	}
	for _, p := range pages() {
		t.Run(p.Kind+"/"+p.Name, func(t *testing.T) {
			if p.Description == "" {
				t.Error("the plugin has no description")
			}
			check(t, p.Name, p.Fields)
		})
	}
}

// The examples on the page of packet are complete. Each must frame what a device sends.
func TestExamplesOfPacket(t *testing.T) {
	frames := [][]string{
		{"78780d01012345678901234500018cdd0d0a"},
		{"5245476474752d3137", "70696e67", "110306ae415652434049ad", "0a8102b053"},
	}
	page, _ := plugin.Registered().Page("codec", "packet")
	examples := strings.Split(page.Description, "```toml\n")[1:]
	if len(examples) != len(frames) {
		t.Fatalf("the page has %d examples, and there are frames for %d", len(examples), len(frames))
	}
	for i, example := range examples {
		text, _, _ := strings.Cut(example, "```")
		var tree struct {
			Framing map[string]any
			Codec   map[string]map[string]any
		}
		if _, err := toml.Decode(text, &tree); err != nil {
			t.Fatal(err)
		}
		table := tree.Framing
		for _, named := range tree.Codec {
			table = named
		}
		d := plugin.Decoder{Set: plugin.Registered()}
		instance, _ := d.Plugin("codec", "framing", table)
		if len(d.Problems) > 0 {
			t.Fatal(d.Problems)
		}
		framing, err := instance.Config.(codec.Config).New()
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range frames[i] {
			data, err := hex.DecodeString(frame)
			if err != nil {
				t.Fatal(err)
			}
			if advance, payload, err := framing.Split(data, 0); advance != len(data) || payload == nil || err != nil {
				t.Errorf("%s: advance %d, payload %x, %v", frame, advance, payload, err)
			}
		}
	}
}

// The error for a setting of one kind of frames names its place.
func TestProblemsOfPacketHavePlaces(t *testing.T) {
	d := plugin.Decoder{Set: plugin.Registered()}
	d.Plugin("codec", "transport.devices.framing", map[string]any{"type": "packet", "kinds": []any{
		map[string]any{"starts": "a", "size": int64(4)},
		map[string]any{"starts": `\q`, "only": "in", "length": map[string]any{"expr": "u8(0) + x"}, "check": map[string]any{"type": "xor", "size": int64(9)}},
		map[string]any{"only": "in", "ends": "z", "escape": map[string]any{`\x7e`: "abc"}},
	}})
	var got []string
	for _, p := range d.Problems {
		got = append(got, p.Path)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"transport.devices.framing.kinds[1].check.size",
		"transport.devices.framing.kinds[1].length.expr",
		"transport.devices.framing.kinds[1].starts",
		`transport.devices.framing.kinds[2].escape.\x7e`,
	}, got); diff != "" {
		t.Error(diff)
	}
}
