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

// A frame without an end costs linear time, because bytes that were seen aren't searched again.
func TestSeenBytesAreNotSearched(t *testing.T) {
	f := build(t, Config{Delimiter: "##", Max: 32})
	for _, tt := range []struct {
		data          string
		seen, advance int
	}{
		{"##xxxxxx", 8, 0},
		{"##xxxxx#", 8, 0},
		{"##xxxxx##", 8, 9},
		{"##xxxxxx##", 8, 10},
	} {
		if advance, _, err := f.Split([]byte(tt.data), tt.seen); advance != tt.advance || err != nil {
			t.Errorf("Split(%q, %d) advanced by %d, %v; want %d", tt.data, tt.seen, advance, err, tt.advance)
		}
	}
}

func TestValidate(t *testing.T) {
	for delimiter, valid := range map[string]bool{`\x7e\r\n`: true, "": false, `\x7`: false, `\q`: false, `a\`: false} {
		c := Config{Delimiter: delimiter, Max: 8}
		if err := c.Validate(); (err == nil) != valid {
			t.Errorf("Validate with the delimiter %q: %v", delimiter, err)
		}
		if _, err := c.New(); (err == nil) != valid {
			t.Errorf("New with the delimiter %q: %v", delimiter, err)
		}
	}
}
