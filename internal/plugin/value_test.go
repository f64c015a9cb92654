package plugin_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/plugin"
)

func TestPlainSubstitutions(t *testing.T) {
	for text, want := range map[string]any{
		"7": int64(7), "-7": int64(-7), "1.5": 1.5, "1e3": 1000.0, "true": true, "100000000000000000000": 1e20, "-0": int64(0),
		"89860045061950080012": "89860045061950080012", "3.14159265358979323846": "3.14159265358979323846", "1e-999": "1e-999",
		"0123": "0123", "+7": "+7", "inf": "inf", "0x10": "0x10", "1_000": "1_000", " 7": " 7", "": "", "null": "null", `"7"`: `"7"`, "1e999": "1e999",
	} {
		in := map[string]any{"a": []any{plugin.Substituted{Text: text, Whole: true}}, "b": plugin.Substituted{Text: text}}
		if diff := cmp.Diff(map[string]any{"a": []any{want}, "b": text}, plugin.Plain(in)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
