// Package codectest is the conformance suite of framings. Every codec passes it:
//
//	func TestFraming(t *testing.T) {
//		f, err := (&mycodec.Config{Max: 64}).New()
//		...
//		codectest.Run(t, f, []byte("hello"), []byte("42"))
//	}
//
// Give it a small limit, so that the limit can be reached quickly.
package codectest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports/codec"
)

// Run checks a framing whose stream shows where each payload ends. The examples are payloads that
// it can frame; there must be at least one.
func Run(t *testing.T, framing codec.Framing, examples ...[]byte) {
	t.Helper()
	run(t, suite{Framing: framing, bounded: true, examples: examples})
}

// RunUnbounded checks a framing whose stream doesn't show where payloads end. Split may return
// other pieces than Append got; only the bytes must be the same.
func RunUnbounded(t *testing.T, framing codec.Framing, examples ...[]byte) {
	t.Helper()
	run(t, suite{Framing: framing, examples: examples})
}

// Fuzz checks a framing with random streams. It must not panic, stall, read or write outside its
// data, or depend on how the bytes are cut into reads. A payload that Append accepts must come
// back from Split unchanged. The examples are those of [Run].
func Fuzz(f *testing.F, framing codec.Framing, examples ...[]byte) {
	f.Helper()
	fuzz(f, suite{Framing: framing, bounded: true, examples: examples})
}

// FuzzUnbounded is [Fuzz] for framings of [RunUnbounded].
func FuzzUnbounded(f *testing.F, framing codec.Framing, examples ...[]byte) {
	f.Helper()
	fuzz(f, suite{Framing: framing, examples: examples})
}

// largest is the largest limit of a framing under test. With a larger one the suite would be slow.
const largest = 1 << 16

type suite struct {
	codec.Framing
	bounded  bool
	examples [][]byte
}

func run(t *testing.T, s suite) {
	t.Helper()
	if len(s.examples) == 0 {
		t.Fatal("codectest needs at least one example")
	}
	if n := s.Max(); n < 1 || n > largest {
		t.Fatalf("Max() is %d; the suite needs a framing with a limit from 1 to %d", n, largest)
	}
	for _, check := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"round trip", s.roundTrip},
		{"every cut", s.everyCut},
		{"several frames in one read", s.severalFrames},
		{"nothing stripped", s.nothingStripped},
		{"limit", s.limit},
		{"memory", s.memory},
		{"concurrent use", s.concurrentUse},
		{"any payloads in any pieces", s.property},
	} {
		t.Run(check.name, check.f)
	}
}

func fuzz(f *testing.F, s suite) {
	var all []byte
	for i, example := range s.examples {
		frame, err := s.Append(nil, example)
		if err != nil {
			f.Fatalf("Append(%q): %v", example, err)
		}
		f.Add(frame, uint8(i))
		all = append(all, frame...)
		f.Add(all, uint8(3))
		f.Add(example, uint8(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		whole, wholeErr := s.read(data)
		cut, cutErr := s.read(slices.Collect(slices.Chunk(data, int(piece)+1))...)
		if err := s.same(cut, whole); err != nil {
			t.Fatalf("read in pieces of %d: %v", int(piece)+1, err)
		}
		if (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("read at once: %v; read in pieces of %d: %v", wholeErr, int(piece)+1, cutErr)
		}
		for _, err := range []error{wholeErr, cutErr} {
			if err != nil && !errors.Is(err, codec.ErrFrame) {
				t.Fatal(err)
			}
		}
		frame, err := s.append(data)
		if err != nil {
			if !errors.Is(err, codec.ErrPayload) {
				t.Fatal(err)
			}
			return
		}
		back, err := s.read(frame)
		if err == nil {
			err = s.same(back, [][]byte{data})
		}
		if err != nil {
			t.Fatalf("%q was accepted as a payload: %v", data, err)
		}
	})
}

// append frames payload, and checks that Append treats its destination as it must.
func (s suite) append(payload []byte) ([]byte, error) {
	const before = "what was there"
	original := bytes.Clone(payload)
	dst := append(make([]byte, 0, len(before)+1), before...)
	out, err := s.Append(dst, payload)
	switch {
	case !bytes.Equal(payload, original):
		return nil, fmt.Errorf("appending %q changed the payload to %q", original, payload)
	case string(dst) != before:
		return nil, fmt.Errorf("appending %q changed what was in dst to %q", original, dst)
	case err != nil && !errors.Is(err, codec.ErrPayload):
		return nil, fmt.Errorf("appending %q: an error that isn't of kind codec.ErrPayload: %w", original, err)
	case err != nil && string(out) != before:
		return nil, fmt.Errorf("appending %q was refused, but returned dst as %q", original, out)
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(out, []byte(before)):
		return nil, fmt.Errorf("appending %q to %q returned %q", original, before, out)
	}
	return out[len(before):], nil
}

func (s suite) mustAppend(t *testing.T, payload []byte) []byte {
	t.Helper()
	frame, err := s.append(payload)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// read passes the pieces of a stream to Split as a connection does, with a buffer that never grows
// beyond Max. It returns copies of the payloads. An error of kind ErrFrame means that the stream
// is invalid; any other error means that the framing is wrong.
func (s suite) read(pieces ...[]byte) ([][]byte, error) {
	var payloads [][]byte
	var buffer []byte
	seen := 0
	for _, piece := range pieces {
		for len(piece) > 0 {
			n := min(len(piece), s.Max()-len(buffer))
			buffer, piece = append(buffer, piece[:n]...), piece[n:]
			for len(buffer) > 0 {
				advance, payload, err := s.split(buffer, seen)
				if err != nil {
					return payloads, err
				}
				if advance == 0 {
					seen = len(buffer)
					break
				}
				seen = 0
				if payload != nil {
					payloads = append(payloads, bytes.Clone(payload))
				}
				buffer = buffer[advance:]
			}
			if len(buffer) == s.Max() {
				return payloads, fmt.Errorf("with Max() = %d bytes, Split returned neither a frame nor an error for %q", s.Max(), buffer)
			}
			buffer = bytes.Clone(buffer)
		}
	}
	return payloads, nil
}

// split calls Split and checks its results. It calls Split with seen = 0, too, which must give the
// same results.
func (s suite) split(data []byte, seen int) (int, []byte, error) {
	original, again := bytes.Clone(data), bytes.Clone(data)
	advance, payload, err := s.Split(data, seen)
	result, result0 := describe(advance, payload, err), describe(s.Split(again, 0))
	switch {
	case result != result0:
		return 0, nil, fmt.Errorf("splitting %q with seen = %d gave %s, and with seen = 0 %s", original, seen, result, result0)
	case advance <= len(data) && !bytes.Equal(data[max(0, advance):], original[max(0, advance):]):
		return 0, nil, fmt.Errorf("splitting %q returned advance %d and changed the data to %q", original, advance, data)
	case err != nil && !errors.Is(err, codec.ErrFrame):
		return 0, nil, fmt.Errorf("splitting %q: an error that isn't of kind codec.ErrFrame: %w", original, err)
	case err != nil:
		return 0, nil, err
	case advance < 0 || advance > len(data):
		return 0, nil, fmt.Errorf("splitting %d bytes advanced by %d", len(data), advance)
	case advance == 0 && payload != nil:
		return 0, nil, fmt.Errorf("splitting %q returned the payload %q and advance 0", original, payload)
	case !isSliceOf(data[:advance], payload):
		return 0, nil, fmt.Errorf("splitting %q returned a payload that isn't a part of it", original)
	}
	return advance, payload, nil
}

// describe returns the results of Split as text.
func describe(advance int, payload []byte, err error) string {
	return fmt.Sprintf("advance %d, payload %q (nil: %v), error %v", advance, payload, payload == nil, err)
}

// isSliceOf reports whether part is a slice of whole.
func isSliceOf(whole, part []byte) bool {
	if len(part) == 0 {
		return true
	}
	for i := range whole {
		if &whole[i] == &part[0] {
			return i+len(part) <= len(whole)
		}
	}
	return false
}

// same compares payloads, or only their bytes if the stream doesn't show where payloads end.
func (s suite) same(got, want [][]byte) error {
	equal := slices.EqualFunc(got, want, bytes.Equal)
	if !s.bounded {
		equal = bytes.Equal(bytes.Join(got, nil), bytes.Join(want, nil))
	}
	if !equal {
		return fmt.Errorf("got the payloads %q, want %q", got, want)
	}
	return nil
}

func (s suite) expect(t *testing.T, want [][]byte, pieces ...[]byte) {
	t.Helper()
	got, err := s.read(pieces...)
	if err == nil {
		err = s.same(got, want)
	}
	if err != nil {
		t.Fatalf("reading %q: %v", pieces, err)
	}
}

func (s suite) roundTrip(t *testing.T) {
	for _, example := range s.examples {
		s.expect(t, [][]byte{example}, s.mustAppend(t, example))
	}
}

func (s suite) everyCut(t *testing.T) {
	for _, example := range s.examples {
		frame := s.mustAppend(t, example)
		for i := 1; i < len(frame); i++ {
			s.expect(t, [][]byte{example}, frame[:i], frame[i:])
			if got, err := s.read(frame[:i]); s.bounded && (err != nil || len(got) != 0) {
				t.Fatalf("the first %d bytes of %q already gave %q, %v", i, frame, got, err)
			}
		}
		s.expect(t, [][]byte{example}, slices.Collect(slices.Chunk(frame, 1))...)
	}
}

func (s suite) severalFrames(t *testing.T) {
	var stream []byte
	var want [][]byte
	for range 3 {
		for _, example := range s.examples {
			stream = append(stream, s.mustAppend(t, example)...)
			want = append(want, example)
		}
	}
	s.expect(t, want, stream)
	advance, payload, err := s.split(bytes.Clone(stream), 0)
	if err != nil || advance == 0 || payload == nil {
		t.Fatalf("splitting %q: advance %d, payload %q, %v", stream, advance, payload, err)
	}
}

// nothingStripped appends payloads that a framing might trim, escape or cut. Each must be refused
// or come back unchanged.
func (s suite) nothingStripped(t *testing.T) {
	tempting := []string{"", " ", "\t", "\r", "\n", "\r\n", "\x00", "\\", "\\n", "\x1b", "\x7f", "\xff", "\ufeff", "\u2028", "%", "+", "#", "\"", "{}"}
	for _, extra := range tempting {
		for _, example := range append([][]byte{nil}, s.examples...) {
			for _, payload := range [][]byte{
				slices.Concat([]byte(extra), example), slices.Concat(example, []byte(extra)), slices.Concat(example, []byte(extra), example),
			} {
				frame, err := s.append(payload)
				if err == nil {
					s.expect(t, [][]byte{payload}, frame)
				} else if !errors.Is(err, codec.ErrPayload) {
					t.Fatal(err)
				}
			}
		}
	}
}

func (s suite) limit(t *testing.T) {
	for _, b := range []byte{'a', 0, 0xff, '\r', '\n'} {
		endless := bytes.Repeat([]byte{b}, 2*s.Max()+1)
		if _, err := s.read(endless); err != nil && !errors.Is(err, codec.ErrFrame) {
			t.Fatalf("an endless stream of %q: %v", b, err)
		}
		if _, err := s.append(endless); !errors.Is(err, codec.ErrPayload) {
			t.Fatalf("appending a payload of %d bytes, with Max() = %d: %v; want an error of kind codec.ErrPayload", len(endless), s.Max(), err)
		}
	}
	for _, example := range s.examples {
		if frame := s.mustAppend(t, example); len(frame) > s.Max() {
			t.Fatalf("the frame of %q has %d bytes, Max() is %d", example, len(frame), s.Max())
		}
	}
}

// memory checks that a frame and its payload share no memory, and that Split distinguishes an
// empty frame from no frame.
func (s suite) memory(t *testing.T) {
	for _, example := range s.examples {
		payload := bytes.Clone(example)
		frame, err := s.Append(nil, payload)
		if err != nil {
			t.Fatal(err)
		}
		for i := range payload {
			payload[i] ^= 0xff
		}
		s.expect(t, [][]byte{example}, frame)
	}
	frame, err := s.append([]byte{})
	if err != nil {
		return
	}
	if _, payload, err := s.split(bytes.Clone(frame), 0); err != nil || payload == nil || len(payload) != 0 {
		t.Fatalf("the frame %q of an empty payload gave %#v, %v; want an empty slice that isn't nil", frame, payload, err)
	}
}

func (s suite) concurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, example := range s.examples {
				frame, err := s.append(example)
				if err == nil {
					var got [][]byte
					if got, err = s.read(frame); err == nil {
						err = s.same(got, [][]byte{example})
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func (s suite) property(t *testing.T) {
	payload := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, min(64, s.Max()+1)), rapid.SampledFrom(s.examples))
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want [][]byte
		for _, p := range rapid.SliceOfN(payload, 1, 8).Draw(t, "payloads") {
			frame, err := s.append(p)
			if err != nil {
				if !errors.Is(err, codec.ErrPayload) {
					t.Fatal(err)
				}
				continue
			}
			stream, want = append(stream, frame...), append(want, p)
		}
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		got, err := s.read(pieces...)
		if err == nil {
			err = s.same(got, want)
		}
		if err != nil {
			t.Fatalf("reading %q: %v", pieces, err)
		}
	})
}
