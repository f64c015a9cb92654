package line

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

var examples = [][]byte{[]byte("open"), []byte(""), []byte(" two words "), []byte("grüße"), []byte(strings.Repeat("x", 32))}

func TestConformance(t *testing.T) {
	for _, terminator := range []string{"crlf", "lf"} {
		t.Run(terminator, func(t *testing.T) {
			codectest.Run(t, build(t, Config{Max: 32, Terminator: terminator}), examples...)
		})
	}
}

func FuzzFraming(f *testing.F) {
	codectest.Fuzz(f, build(f, Config{Max: 32, Terminator: "crlf"}), examples...)
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		terminator, payload, want string
		refused                   bool
	}{
		{"crlf", "cmd", "cmd\r\n", false},
		{"lf", "cmd", "cmd\n", false},
		{"crlf", "", "\r\n", false},
		{"crlf", "a\nb", "", true},
		{"crlf", "a\r", "", true},
		{"lf", "a\x00b", "", true},
		{"lf", "12345678", "12345678\n", false},
		{"lf", "123456789", "", true},
	} {
		got, err := build(t, Config{Max: 8, Terminator: tt.terminator}).Append(nil, []byte(tt.payload))
		if string(got) != tt.want || errors.Is(err, codec.ErrPayload) != tt.refused {
			t.Errorf("%s: Append(%q) = %q, %v; want %q, refused %v", tt.terminator, tt.payload, got, err, tt.want, tt.refused)
		}
	}
}

func TestSplit(t *testing.T) {
	f := build(t, Config{Max: 4, Terminator: "crlf"})
	for _, tt := range []struct {
		data    string
		advance int
		payload string
		broken  bool
	}{
		{"ab\r\ncd", 4, "ab", false},
		{"ab\ncd", 3, "ab", false},
		{"\n", 1, "", false},
		{"a\rb\n", 4, "a\rb", false},
		{"a\r\r\n", 4, "a\r", false},
		{"abcd\r\n", 6, "abcd", false},
		{"abcd\r", 0, "", false},
		{"abcde", 0, "", true},
		{"abcde\n", 0, "", true},
		{"abcd\r\r\n", 0, "", true},
	} {
		advance, payload, err := f.Split([]byte(tt.data), 0)
		if advance != tt.advance || string(payload) != tt.payload || errors.Is(err, codec.ErrFrame) != tt.broken {
			t.Errorf("Split(%q) = %d, %q, %v; want %d, %q, broken %v", tt.data, advance, payload, err, tt.advance, tt.payload, tt.broken)
		}
	}
}

// A line without an end costs linear time, because bytes that were seen aren't searched again.
func TestSeenBytesAreNotSearched(t *testing.T) {
	f := build(t, Config{Max: 32, Terminator: "crlf"})
	if advance, _, err := f.Split([]byte("\nxxx"), 4); advance != 0 || err != nil {
		t.Errorf("Split advanced by %d, %v; want 0", advance, err)
	}
	if advance, line, err := f.Split([]byte("\nxxx\r\n"), 4); advance != 6 || len(line) != 4 || err != nil {
		t.Errorf("Split advanced by %d to the line %q, %v; want 6", advance, line, err)
	}
}

func TestRegistered(t *testing.T) {
	c, ok := codec.Named("line").(*Config)
	if !ok || *c != defaults {
		t.Fatalf("codec.Named(line) = %+v, want the defaults %+v", c, defaults)
	}
	if _, err := (&Config{Max: 8, Terminator: "cr"}).New(); err == nil {
		t.Fatal("an unknown terminator was taken")
	}
}
