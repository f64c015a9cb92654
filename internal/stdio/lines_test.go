package stdio

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestReaderJoinsPieces(t *testing.T) {
	long := strings.Repeat("x", 3*buffered)
	text := "\n \r\n" + `{"type":"ping","id":1}` + "\n" + `{"type":"cancel","id":2,"x":"` + long + `"}` + "\n" + `{"type":"other"}` + "\n" + `{"type":"drain"}` + "\n" + `{"type":"ping"`
	r := NewReader(iotest.HalfReader(iotest.DataErrReader(strings.NewReader(text))), 4*buffered)
	var got []string
	for {
		line, err := r.ReadLine()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		if !IsBlank(line) {
			got = append(got, string(line))
		}
	}
	want := strings.Split(strings.TrimPrefix(text, "\n \r\n"), "\n")
	if diff := cmp.Diff(want[:len(want)-1], got); diff != "" {
		t.Error(diff)
	}
	r = NewReader(strings.NewReader("12345\n123456\n"), 5)
	if line, err := r.ReadLine(); string(line) != "12345" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	if line, err := r.ReadLine(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", line, err)
	}
}

// failing accepts a number of writes and then fails.
type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errors.New("the reader has closed")
	}
	return len(p), nil
}

func TestWriterErrorIsFinal(t *testing.T) {
	w := NewWriter(&failing{1})
	if err := w.WriteLines([]byte("a\n")); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := w.WriteLines([]byte("b\n")); err == nil {
			t.Error("a line was written after an error")
		}
	}
	if err := w.Flush(); err == nil {
		t.Error("it was flushed")
	}
}
