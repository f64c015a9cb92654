package stdio

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// Reader takes lines apart.
type Reader struct {
	r *bufio.Reader
	// Most is how long a line may be, without its end.
	Most int
	// long is room for lines that are longer than r's buffer.
	long []byte
}

const (
	// buffered is what is read at a time.
	buffered = 64 << 10
	// MostKept is how much room for long lines and for what is written is kept for the next.
	MostKept = 1 << 20
)

// NewReader returns a reader of lines that have at most so many bytes.
func NewReader(r io.Reader, most int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, buffered), Most: most}
}

// Blank says whether a line is white space alone, which means nothing.
func Blank(line []byte) bool { return len(bytes.Trim(line, " \t\r")) == 0 }

// Text returns the next line without its end; it is valid until the next call. The end of the lines, also in the middle of one, is io.EOF.
func (r *Reader) Text() ([]byte, error) {
	if cap(r.long) > MostKept {
		r.long = nil
	}
	r.long = r.long[:0]
	for {
		part, err := r.r.ReadSlice('\n')
		switch {
		case err == nil && len(r.long) == 0:
			r.long = r.long[:0]
			if part = part[:len(part)-1]; len(part) > r.Most {
				return nil, fmt.Errorf("a line of more than %d bytes", r.Most)
			}
			return part, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, io.EOF
		}
		r.long = append(r.long, part...)
		if len(r.long) > r.Most+1 {
			return nil, fmt.Errorf("a line of more than %d bytes", r.Most)
		}
		if err == nil {
			return r.long[:len(r.long)-1], nil
		}
	}
}

// Writer writes lines of several goroutines; those that come while others are written go out together.
type Writer struct {
	w io.Writer

	mu      sync.Mutex
	room    sync.Cond
	waiting []byte
	spare   []byte
	writing bool
	err     error
}

// NewWriter returns a writer to w.
func NewWriter(w io.Writer) *Writer {
	out := &Writer{w: w}
	out.room.L = &out.mu
	return out
}

// Put hands over whole lines. It returns before they are written if somebody writes already, unless too much waits. The error is that of any write until then.
func (w *Writer) Put(lines []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing && len(w.waiting) > MostKept && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.waiting = append(w.waiting, lines...)
	if w.writing {
		return nil
	}
	w.writing = true
	w.mu.Unlock()
	runtime.Gosched() // others may have lines, too
	w.mu.Lock()
	for len(w.waiting) > 0 && w.err == nil {
		batch := w.waiting
		w.waiting, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, err := w.w.Write(batch)
		w.mu.Lock()
		w.err = err
		if cap(batch) <= MostKept {
			w.spare = batch
		}
		w.room.Broadcast()
	}
	w.writing = false
	w.room.Broadcast()
	return w.err
}

// Flush returns when all that was put is written.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.room.Wait()
	}
	return w.err
}

// Line puts a value as JSON.
func (w *Writer) Line(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return w.Put(b.Bytes())
}
