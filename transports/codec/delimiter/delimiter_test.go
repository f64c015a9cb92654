package delimiter

import (
	"errors"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/codec/codectest"
)

func build(tb testing.TB, c Config) codec.Framing {
	tb.Helper()
	f, err := c.New()
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

var examples = [][]byte{[]byte("open"), []byte(""), []byte("b\r\n\x00"), []byte(strings.Repeat("x", 32))}

func TestConformance(t *testing.T) {
	for _, d := range []string{"#", `\x03`, "aab", "aa", `\r\n`} {
		t.Run(d, func(t *testing.T) {
			var fit [][]byte
			for _, example := range examples {
				if d != `\r\n` || !strings.Contains(string(example), "\r\n") {
					fit = append(fit, example)
				}
			}
			codectest.Run(t, build(t, Config{Delimiter: d, Max: 32}), fit...)
		})
	}
}

func FuzzFraming(f *testing.F) {
	codectest.Fuzz(f, build(f, Config{Delimiter: "aab", Max: 32}), examples...)
}

func TestDelimiterOverlap(t *testing.T) {
	f := build(t, Config{Delimiter: "aa", Max: 8})
	if out, err := f.Append(nil, []byte("xa")); !errors.Is(err, codec.ErrPayload) {
		t.Fatalf(`"xa" before "aa" was framed as %q, %v: a reader would find "x"`, out, err)
	}
}

func TestEscapes(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"#", "#", ""},
		{`\x7e\xFF`, "~\xff", ""},
		{`\r\n\t\0\\`, "\r\n\t\x00\\", ""},
		{"\r\n", "\r\n", ""},
		{"é", "é", ""},
		{"", "", "at least one byte"},
		{`\x7`, "", "two hexadecimal digits"},
		{`\xzz`, "", "two hexadecimal digits"},
		{`\x+1`, "", "two hexadecimal digits"},
		{`\q`, "", `\q is not an escape`},
		{`a\`, "", `write \\`},
	} {
		got, err := unescape(tt.in)
		if string(got) != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("unescape(%q) = %q, %v; want %q, %q", tt.in, got, err, tt.want, tt.err)
		}
		c := Config{Delimiter: tt.in, Max: 8}
		if (c.Validate() != nil) != (tt.err != "") {
			t.Errorf("Validate with the delimiter %q: %v", tt.in, c.Validate())
		}
	}
}
