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

// Reader splits a stream into lines. It isn't safe for concurrent use.
type Reader struct {
	r *bufio.Reader
	// MaxLine is the longest line that ReadLine accepts, in bytes without the line feed. It may be
	// changed between two calls.
	MaxLine int
	// long has the current line if it is longer than r's buffer.
	long []byte
}

const (
	// buffered is the size of the reader's buffer in bytes.
	buffered = 64 << 10
	// MaxKept is the greatest capacity of a buffer that is kept for the next lines, in bytes.
	MaxKept = 1 << 20
)

// NewReader returns a reader of lines with at most maxLine bytes.
func NewReader(r io.Reader, maxLine int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, buffered), MaxLine: maxLine}
}

// IsBlank returns whether a line has only white space. The protocol ignores such lines.
func IsBlank(line []byte) bool { return len(bytes.Trim(line, " \t\r")) == 0 }

// ReadLine returns the next line without its line feed. The line is valid until the next call. At
// the end of the stream ReadLine returns io.EOF, even if the last line has no line feed.
func (r *Reader) ReadLine() ([]byte, error) {
	if cap(r.long) > MaxKept {
		r.long = nil
	}
	r.long = r.long[:0]
	for {
		part, err := r.r.ReadSlice('\n')
		switch {
		case err == nil && len(r.long) == 0:
			r.long = r.long[:0]
			if part = part[:len(part)-1]; len(part) > r.MaxLine {
				return nil, fmt.Errorf("a line of more than %d bytes", r.MaxLine)
			}
			return part, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, io.EOF
		}
		r.long = append(r.long, part...)
		if len(r.long) > r.MaxLine+1 {
			return nil, fmt.Errorf("a line of more than %d bytes", r.MaxLine)
		}
		if err == nil {
			return r.long[:len(r.long)-1], nil
		}
	}
}

// Writer writes lines from several goroutines. One goroutine writes at a time: the first that
// calls WriteLines. The others only add their lines to a buffer, and the writing goroutine writes
// them together in its next round.
//
// The invariants, all guarded by mu:
//
//   - writing is set while one goroutine writes. Only that goroutine empties waiting.
//   - An error is final: after it, nothing is written.
type Writer struct {
	w io.Writer

	mu      sync.Mutex
	changed sync.Cond // signals that waiting, writing or err has changed
	waiting []byte    // lines that the writing goroutine hasn't taken
	spare   []byte    // an empty buffer for the next lines
	writing bool
	err     error // the first error of w
}

// NewWriter returns a writer of lines to w.
func NewWriter(w io.Writer) *Writer {
	out := &Writer{w: w}
	out.changed.L = &out.mu
	return out
}

// WriteLines writes whole lines. If another goroutine is writing, WriteLines leaves the lines to
// it and returns. It waits only if more than MaxKept bytes wait already. It returns the first
// error that any write has had so far.
func (w *Writer) WriteLines(lines []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing && len(w.waiting) > MaxKept && w.err == nil {
		w.changed.Wait()
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
	runtime.Gosched() // let other goroutines add their lines to the same write
	w.mu.Lock()
	for len(w.waiting) > 0 && w.err == nil {
		batch := w.waiting
		w.waiting, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, err := w.w.Write(batch)
		w.mu.Lock()
		w.err = err
		if cap(batch) <= MaxKept {
			w.spare = batch
		}
		w.changed.Broadcast()
	}
	w.writing = false
	w.changed.Broadcast()
	return w.err
}

// Flush waits until all lines are written, and returns the first error of any write.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.changed.Wait()
	}
	return w.err
}

// WriteJSON writes a value as one line of JSON.
func (w *Writer) WriteJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return w.WriteLines(b.Bytes())
}
