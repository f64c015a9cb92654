package fixed

import (
	"errors"
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

var examples = [][]byte{[]byte("open"), []byte("\r\n\x00\xff")}

func TestConformance(t *testing.T) { codectest.Run(t, build(t, Config{Size: 4}), examples...) }

func FuzzFraming(f *testing.F) { codectest.Fuzz(f, build(f, Config{Size: 4}), examples...) }

func TestOtherSizes(t *testing.T) {
	f := build(t, Config{Size: 4})
	for _, payload := range []string{"", "abc", "abcde"} {
		if _, err := f.Append(nil, []byte(payload)); !errors.Is(err, codec.ErrPayload) {
			t.Errorf("Append(%q): %v, want an error of kind codec.ErrPayload", payload, err)
		}
	}
	if _, err := (&Config{}).New(); err == nil {
		t.Error("a size of 0 was taken")
	}
}
