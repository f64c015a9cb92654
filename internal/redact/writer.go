package redact

import "io"

// Writer removes the secrets of a set from a text and writes the rest. It doesn't find a secret
// that is divided between two calls of Write.
type Writer struct {
	to  io.Writer
	set *Set
}

// NewWriter returns a Writer that writes to to.
func NewWriter(to io.Writer, set *Set) *Writer { return &Writer{to, set} }

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) {
	if _, err := io.WriteString(w.to, w.set.Text(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Unwrap returns the writer that the Writer writes to.
func (w *Writer) Unwrap() io.Writer { return w.to }

// SetOf returns the set of a Writer. For other writers it returns a new set.
func SetOf(w io.Writer) *Set {
	if w, ok := w.(*Writer); ok && w.set != nil {
		return w.set
	}
	return new(Set)
}
