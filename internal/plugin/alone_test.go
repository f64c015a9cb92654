package plugin

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type door struct {
	Bolts int    `toml:"bolts" doc:"How many." min:"1"`
	Wood  string `toml:"wood" doc:"Of what." enum:"oak,pine"`
	Frame inner  `toml:"frame" doc:"Its frame."`
}

func (*door) Shape() {}
func (d *door) Validate() error {
	if d.Frame.Word == "bad" {
		return errors.Join(Invalid("frame.word", "is bad"), errors.New("the door is no good"))
	}
	return nil
}

func TestAlone(t *testing.T) {
	set := testSet()
	set.Register("shape", Info{Name: "door", Summary: "Doors.", New: func() any { return &door{Bolts: 2, Wood: "oak"} }})
	for _, c := range []struct {
		m    map[string]any
		want []Problem
	}{
		{map[string]any{"bolts": int64(3)}, nil},
		{map[string]any{"bolt": int64(3), "wood": "tin", "frame": map[string]any{"on": int64(1)}}, []Problem{
			{Path: "bolt", Message: `unknown key; allowed: bolts, wood, frame; did you mean "bolts"?`},
			{Path: "wood", Message: `"tin" is not known; allowed: oak, pine`},
			{Path: "frame.on", Message: "an integer can't stand here; allowed: true or false; did you mean true?"},
		}},
		{map[string]any{"frame": map[string]any{"word": "bad"}}, []Problem{{Path: "frame.word", Message: "is bad"}, {Message: "the door is no good"}}},
	} {
		d := Decoder{Set: set}
		config := d.Alone("shape", "door", c.m).(*door)
		if diff := cmp.Diff(c.want, d.Problems); diff != "" {
			t.Error(diff)
		}
		if config.Wood != "oak" {
			t.Errorf("the defaults are lost: %+v", config)
		}
	}
}

func TestStandaloneSchema(t *testing.T) {
	set := testSet()
	set.Register("shape", Info{Name: "door", Summary: "Doors.", New: func() any { return &door{Bolts: 2, Wood: "oak"} }})
	s := Schema{Set: set, Defs: Object{}}
	text, err := json.Marshal(s.Standalone("shape", "door"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"bolts":{"default":2,"description":"How many.","minimum":1,"type":"integer"}`, `"enum":["oak","pine"]`, `"additionalProperties":false`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(string(text), "anyOf") {
		t.Errorf("there is a choice where nothing is left to be substituted: %s", text)
	}
}
