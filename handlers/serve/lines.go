package serve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// reader takes the host's lines apart.
type reader struct {
	r    *bufio.Reader
	most int
	// long is room for lines that are longer than r's buffer.
	long []byte
}

const (
	// buffered is what is read at a time.
	buffered = 64 << 10
	// mostKept is how much room for long lines and for what is written is kept for the next.
	mostKept = 1 << 20
)

func newReader(r io.Reader) *reader {
	return &reader{r: bufio.NewReaderSize(r, buffered), most: startMaxLine}
}

// next returns the next line of a known kind. The end of the lines, also in the middle of one, is io.EOF: nobody is there any more.
func (r *reader) next() (line, error) {
	for {
		text, err := r.text()
		if err != nil {
			return line{}, err
		}
		if len(bytes.Trim(text, " \t\r")) == 0 {
			continue
		}
		if l, err := parse(text); err != nil || l.kind != "" {
			return l, err
		}
	}
}

// text returns the next line without its end; it is valid until the next call.
func (r *reader) text() ([]byte, error) {
	if cap(r.long) > mostKept {
		r.long = nil
	}
	r.long = r.long[:0]
	for {
		part, err := r.r.ReadSlice('\n')
		switch {
		case err == nil && len(r.long) == 0:
			r.long = r.long[:0]
			if part = part[:len(part)-1]; len(part) > r.most {
				return nil, fmt.Errorf("a line of more than %d bytes", r.most)
			}
			return part, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, io.EOF
		}
		r.long = append(r.long, part...)
		if len(r.long) > r.most+1 {
			return nil, fmt.Errorf("a line of more than %d bytes", r.most)
		}
		if err == nil {
			return r.long[:len(r.long)-1], nil
		}
	}
}

// writer writes lines of several goroutines; those that come while others are written go out together.
type writer struct {
	w io.Writer

	mu      sync.Mutex
	room    sync.Cond
	waiting []byte
	spare   []byte
	writing bool
	err     error
}

func newWriter(w io.Writer) *writer {
	out := &writer{w: w}
	out.room.L = &out.mu
	return out
}

// put hands over whole lines. It returns before they are written if somebody writes already, unless too much waits. The error is that of any write until then.
func (w *writer) put(lines []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing && len(w.waiting) > mostKept && w.err == nil {
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
	for len(w.waiting) > 0 && w.err == nil {
		batch := w.waiting
		w.waiting, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, err := w.w.Write(batch)
		w.mu.Lock()
		w.err = err
		if cap(batch) <= mostKept {
			w.spare = batch
		}
		w.room.Broadcast()
	}
	w.writing = false
	w.room.Broadcast()
	return w.err
}

// flush returns when all that was put is written.
func (w *writer) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.room.Wait()
	}
	return w.err
}

// line puts a value as JSON.
func (w *writer) line(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return w.put(b.Bytes())
}
