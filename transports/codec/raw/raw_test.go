package raw

import (
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

var examples = [][]byte{[]byte("open"), []byte("\r\n\x00\xff"), []byte("12345678")}

func TestConformance(t *testing.T) { codectest.RunUnbounded(t, build(t, Config{Max: 8}), examples...) }

func FuzzFraming(f *testing.F) { codectest.FuzzUnbounded(f, build(f, Config{Max: 8}), examples...) }

func TestSplit(t *testing.T) {
	f := build(t, Config{Max: 4})
	for _, tt := range []struct{ data, want string }{{"", ""}, {"ab", "ab"}, {"abcd", "abcd"}, {"abcde", "abcd"}} {
		advance, payload, err := f.Split([]byte(tt.data), 0)
		if advance != len(tt.want) || string(payload) != tt.want || err != nil {
			t.Errorf("Split(%q) = %d, %q, %v; want %q", tt.data, advance, payload, err, tt.want)
		}
	}
	if _, err := (&Config{}).New(); err == nil {
		t.Error("a max of 0 was taken")
	}
}
