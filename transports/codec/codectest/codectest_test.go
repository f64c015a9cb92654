package codectest

import (
	"bytes"
	"strings"
	"testing"
)

// planted is a framing by the byte 'z', with a mistake.
type planted func(data []byte, seen int) (int, []byte, error)

func (planted) Append(dst, payload []byte) ([]byte, error) {
	return append(append(dst, payload...), 'z'), nil
}
func (planted) Max() int { return 64 }

func (p planted) Split(data []byte, seen int) (int, []byte, error) { return p(data, seen) }

func TestMistakesOfSplitAreSeen(t *testing.T) {
	split := func(data []byte) (int, []byte, error) {
		if i := bytes.IndexByte(data, 'z'); i >= 0 {
			return i + 1, data[:i], nil
		}
		return 0, nil, nil
	}
	for _, tt := range []struct {
		name  string
		split planted
		want  string
	}{
		{"none", func(data []byte, _ int) (int, []byte, error) { return split(data) }, ""},
		{"removes escapes in place", func(data []byte, _ int) (int, []byte, error) {
			advance, payload, err := split(data)
			if advance > 0 {
				data[advance-1] = 'y'
			}
			return advance, payload, err
		}, ""},
		{"forgets what it has seen", func(data []byte, seen int) (int, []byte, error) {
			if advance, _, err := split(data[min(seen+1, len(data)):]); advance == 0 || err != nil {
				return 0, nil, err
			}
			return split(data)
		}, "with seen = 2 gave advance 0"},
		{"changes a frame that isn't whole", func(data []byte, _ int) (int, []byte, error) {
			advance, payload, err := split(data)
			if advance == 0 {
				data[0] = 'y'
			}
			return advance, payload, err
		}, "changed the data"},
		{"changes the next frame", func(data []byte, _ int) (int, []byte, error) {
			advance, payload, err := split(data)
			if advance > 0 && advance < len(data) {
				data[advance] = 'y'
			}
			return advance, payload, err
		}, "changed the data"},
		{"returns a copy", func(data []byte, _ int) (int, []byte, error) {
			advance, payload, err := split(data)
			return advance, bytes.Clone(payload), err
		}, "isn't a part of it"},
	} {
		s := suite{Framing: tt.split, bounded: true}
		_, err := s.read([]byte("ab"), []byte("zabzab"), []byte("z"))
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}
