package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// maxLine is the longest line of a recording, in bytes. The host writes shorter ones.
const maxLine = 1 << 20

// Reader reads a recording. It has only one line in memory.
type Reader struct {
	// Connection is what the first line says.
	Connection Connection
	// Began is the time of the first line.
	Began time.Time

	lines *bufio.Scanner
	line  int
	last  time.Time
	ended string
}

// NewReader returns a reader that has read the first line. Its errors and those of Next name the
// line.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{lines: bufio.NewScanner(in)}
	r.lines.Buffer(nil, maxLine)
	l, err := r.read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the recording is empty")
	case err != nil:
		return nil, err
	case l.Connection == nil || l.Device == "":
		return nil, r.fail("the first line of a recording names its device")
	}
	r.Connection, r.Began = *l.Connection, l.Time
	return r, nil
}

// Next returns the next line with bytes. At the end of the recording it returns io.EOF.
func (r *Reader) Next() (Line, error) {
	for {
		if r.ended != "" {
			if r.lines.Scan() {
				r.line++
				return Line{}, r.fail("the connection has ended (%s), but the recording goes on", r.ended)
			}
			return Line{}, r.end()
		}
		l, err := r.read()
		switch {
		case err != nil:
			return Line{}, err
		case l.Connection != nil:
			return Line{}, r.fail("a recording is of one connection, and another one begins here")
		case l.Error != "":
			return Line{}, r.fail("the recording isn't complete: %s; remove this line to use the lines before it", l.Error)
		case l.Ended != "":
			r.ended = l.Ended
		case l.From != FromDevice && l.From != FromHost:
			return Line{}, r.fail("from is %q; allowed: %q, %q", l.From, FromDevice, FromHost)
		case len(l.Bytes) == 0:
			return Line{}, r.fail("bytes is missing")
		default:
			return l, nil
		}
	}
}

// LineNumber returns the number of the line that was read last, from 1.
func (r *Reader) LineNumber() int { return r.line }

// Ended returns why the session ended, or "" if the recording ended earlier. Call it after Next
// has returned io.EOF.
func (r *Reader) Ended() string { return r.ended }

// Last returns the time of the line that was read last.
func (r *Reader) Last() time.Time { return r.last }

// read reads one line.
func (r *Reader) read() (Line, error) {
	if !r.lines.Scan() {
		return Line{}, r.end()
	}
	r.line++
	var l Line
	if err := jsontext.Unmarshal(r.lines.Bytes(), &l); err != nil {
		return Line{}, r.fail("not a line of a recording: %w", err)
	}
	switch {
	case l.Time.IsZero() && l.Error == "":
		return Line{}, r.fail("time is missing")
	case l.Error == "" && l.Time.Before(r.last):
		return Line{}, r.fail("the time goes back, from %s to %s", r.last.Format(time.RFC3339Nano), l.Time.Format(time.RFC3339Nano))
	}
	r.last = l.Time
	return l, nil
}

// end returns why there is no further line: io.EOF or an error.
func (r *Reader) end() error {
	err := r.lines.Err()
	switch {
	case err == nil:
		return io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		r.line++
		return r.fail("a line is longer than %d bytes", maxLine)
	default:
		return fmt.Errorf("reading the recording: %w", err)
	}
}

func (r *Reader) fail(format string, args ...any) error {
	return fmt.Errorf("line %d: %w", r.line, fmt.Errorf(format, args...))
}

// Append appends a line to dst.
func (l Line) Append(dst []byte) ([]byte, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return dst, fmt.Errorf("encoding a line of a recording: %w", err)
	}
	return append(append(dst, text...), '\n'), nil
}
