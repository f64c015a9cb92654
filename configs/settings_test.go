package configs

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]any
		err  string
	}{
		{"limit = 5\nwait = \"5s\"\n[high]\nt = 1.5\n", map[string]any{"limit": int64(5), "wait": "5s", "high": map[string]any{"t": 1.5}}, ""},
		{" {\"limit\": 5, \"$x\": null}\n", map[string]any{"limit": json.Number("5"), "$x": nil}, ""},
		{"", map[string]any{}, ""},
		{"limit = 5\nlimit 6", nil, "line 2, column 7: "},
		{"{} {}", nil, "byte 4: '{'; expected: the end"},
		{"{\"limit\"}", nil, "byte 9: '}'; expected: "},
	} {
		got, err := Settings([]byte(c.text))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v", c.text, err)
		}
		if diff := cmp.Diff(c.want, got); err == nil && diff != "" {
			t.Errorf("%q: %s", c.text, diff)
		}
	}
}
