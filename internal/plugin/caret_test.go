package plugin

import (
	"errors"
	"strings"
	"testing"
)

func TestCaret(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int
		want   string
	}{
		{"a + b", 4, "\n    a + b\n        ^"},
		{"a +", 3, "\n    a +\n       ^"},
		{"é + b", 3, "\n    é + b\n      ^"},
		{"one\n\ttwo\r\nthree", 5, "\n     two\n     ^"},
		{"漢字e\u0301 + b", 12, "\n    漢字e\u0301 + b\n            ^"},
		{"", 0, ""},
		{"a\n\nb", 2, ""},
		{strings.Repeat("a", 100) + "x" + strings.Repeat("b", 100), 100, "\n    ..." + strings.Repeat("a", 60) + "x" + strings.Repeat("b", 39) + "...\n    " + strings.Repeat(" ", 63) + "^"},
	} {
		if got := Caret(c.text, c.offset); got != c.want {
			t.Errorf("%.20q at %d: %q, want %q", c.text, c.offset, got, c.want)
		}
	}
	if err, ok := errors.AsType[*FieldError](InvalidAt("f", "ab", 99, "wrong")); !ok || err.Offset != 2 || err.Error() != "f: wrong\n    ab\n      ^" {
		t.Errorf("%+v", err)
	}
}
