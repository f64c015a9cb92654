package packet

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/checksum"
)

// The generators have few bytes, so that starts, ends, escapes and payloads often overlap.
var (
	someText  = rapid.StringMatching(`[ab\x01\x02]{0,2}`)
	someBytes = rapid.SliceOfN(rapid.SampledFrom([]byte("ab\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0912")), 0, 12)
)

func maybe[T any](t *rapid.T, label string, g *rapid.Generator[T]) *T {
	if rapid.Bool().Draw(t, "no "+label) {
		return nil
	}
	v := g.Draw(t, label)
	return &v
}

func drawKind(t *rapid.T) Kind {
	k := Kind{
		Only: rapid.SampledFrom([]string{"", "", "in", "out"}).Draw(t, "only"), Starts: someText.Draw(t, "starts"), Ends: someText.Draw(t, "ends"),
	}
	switch rapid.IntRange(0, 4).Draw(t, "size of frames") {
	case 0:
		k.Size = new(rapid.IntRange(1, 8).Draw(t, "size"))
	case 1:
		k.Length = &Length{
			At: maybe(t, "at", rapid.IntRange(0, 4)), Size: new(rapid.IntRange(1, 2).Draw(t, "length")), Add: rapid.IntRange(-3, 8).Draw(t, "add"),
			Little: rapid.Bool().Draw(t, "little"), Mask: maybe(t, "mask", rapid.IntRange(1, 0x1ff)), ASCII: rapid.Bool().Draw(t, "ascii"),
		}
		if k.Length.ASCII {
			k.Length.Little, k.Length.Mask = false, nil
		}
	case 2:
		k.Length = &Length{Expr: rapid.SampledFrom([]string{"u8(0)", "u8(2) + 3", "u8(0) > 1 ? 4 : u8(1)", "u16(1) % 9"}).Draw(t, "expr")}
	case 3:
		k.Escape = map[string]string{"a": `\x02\x01`, `\x02`: `\x02\x02`}
	}
	if rapid.Bool().Draw(t, "check") {
		k.Check = &Check{
			Type: rapid.SampledFrom(slices.Sorted(maps.Keys(checksum.Named))).Draw(t, "type"), From: maybe(t, "from", rapid.IntRange(0, 3)),
			Little: rapid.Bool().Draw(t, "little check"), Wrong: rapid.SampledFrom([]string{"close", "drop", "accept"}).Draw(t, "wrong"),
		}
	}
	return k
}

var validConfig = rapid.Custom(func(t *rapid.T) Config {
	return Config{Max: 24, Resync: rapid.Bool().Draw(t, "resync"), Kinds: rapid.SliceOfN(rapid.Custom(drawKind), 1, 3).Draw(t, "kinds")}
}).Filter(func(c Config) bool { return c.Validate() == nil })

// With every valid configuration, a reader gets the payload that was framed. The frames and errors
// are the same however the stream is cut.
func TestAnyConfiguration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := build(t, validConfig.Draw(t, "configuration"))
		twoWay := len(f.out) > 0
		for _, k := range f.out {
			twoWay = twoWay && k.in
		}
		var stream []byte
		var want []string
		for _, payload := range rapid.SliceOfN(someBytes, 1, 8).Draw(t, "payloads") {
			whole, err := f.Append(nil, payload)
			if err != nil {
				continue
			}
			stream, want = append(stream, whole...), append(want, hex.EncodeToString(payload))
		}
		got, err := readPieces(t, f, stream)
		if twoWay {
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Fatalf("%v %s", err, diff)
			}
		}
		stream = append(stream, someBytes.Draw(t, "garbage")...)
		whole, wholeErr := read(t, f, bytes.Clone(stream))
		got, err = readPieces(t, f, stream)
		var payloads []string
		for _, fr := range whole {
			payloads = append(payloads, fr.payload)
		}
		if diff := cmp.Diff(payloads, got); diff != "" || (err == nil) != (wholeErr == nil) {
			t.Fatalf("in pieces: %v, not %v %s", err, wholeErr, diff)
		}
	})
}

// readPieces reads a stream in pieces of any size and returns the payloads.
func readPieces(t *rapid.T, f *framing, stream []byte) (payloads []string, err error) {
	var pieces [][]byte
	for rest := bytes.Clone(stream); len(rest) > 0; {
		n := rapid.IntRange(1, min(len(rest), f.max)).Draw(t, "piece")
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	frames, err := read(t, f, pieces...)
	for _, fr := range frames {
		payloads = append(payloads, fr.payload)
	}
	return payloads, err
}
