package length

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

var examples = [][]byte{[]byte("open"), []byte(""), []byte("\r\n\x00\xff"), []byte(strings.Repeat("x", 200))}

func TestConformance(t *testing.T) {
	for name, c := range map[string]Config{
		"1 byte":                          {Size: 1, Endian: "big", Max: 4096},
		"1 byte, includes header":         {Size: 1, Endian: "big", Max: 4096, IncludesHeader: true},
		"2 bytes":                         {Size: 2, Endian: "big", Max: 300},
		"2 bytes, little":                 {Size: 2, Endian: "little", Max: 300},
		"4 bytes, little, include header": {Size: 4, Endian: "little", Max: 300, IncludesHeader: true},
		"8 bytes":                         {Size: 8, Endian: "big", Max: 300},
		"8 bytes, includes header":        {Size: 8, Endian: "big", Max: 300, IncludesHeader: true},
	} {
		t.Run(name, func(t *testing.T) { codectest.Run(t, build(t, c), examples...) })
	}
}

func FuzzFraming(f *testing.F) {
	codectest.Fuzz(f, build(f, Config{Size: 2, Endian: "big", IncludesHeader: true, Max: 256}), examples...)
}

func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{Size: 1, Endian: "big", Max: 9}, "\x02hi"},
		{Config{Size: 2, Endian: "big", Max: 9}, "\x00\x02hi"},
		{Config{Size: 2, Endian: "little", Max: 9, IncludesHeader: true}, "\x04\x00hi"},
		{Config{Size: 4, Endian: "big", Max: 9}, "\x00\x00\x00\x02hi"},
		{Config{Size: 8, Endian: "little", Max: 9}, "\x02\x00\x00\x00\x00\x00\x00\x00hi"},
	} {
		got, err := build(t, tt.config).Append(nil, []byte("hi"))
		if err != nil || string(got) != tt.want {
			t.Errorf("%+v: Append(hi) = %q, %v; want %q", tt.config, got, err, tt.want)
		}
	}
}

func TestBrokenLengths(t *testing.T) {
	for _, tt := range []struct {
		config Config
		data   string
	}{
		{Config{Size: 2, Endian: "big", Max: 9}, "\x00\x0a"},
		{Config{Size: 2, Endian: "big", Max: 9, IncludesHeader: true}, "\x00\x01"},
		{Config{Size: 8, Endian: "big", Max: 9}, "\xff\xff\xff\xff\xff\xff\xff\xff"},
		{Config{Size: 8, Endian: "big", Max: 9, IncludesHeader: true}, "\x00\x00\x00\x00\x00\x00\x00\x07"},
	} {
		if advance, payload, err := build(t, tt.config).Split([]byte(tt.data), 0); !errors.Is(err, codec.ErrFrame) {
			t.Errorf("%+v: Split(%q) = %d, %q, %v; want an error at once", tt.config, tt.data, advance, payload, err)
		}
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{Size: 3, Endian: "middle", Max: 1}).Validate()
	for _, want := range []string{"size: 3 must be 1, 2, 4 or 8", `endian: "middle"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %q in it", err, want)
		}
	}
	c := defaults
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
