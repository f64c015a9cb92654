package scenario

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/recording"
)

// This file runs tests with a recording. A TCP connection may cut what a device sends anywhere, so
// the test feeds the same bytes in several ways and compares the outcomes.

// maxReplay is the largest recording of a test, in bytes. A test needs it in memory.
const maxReplay = 16 << 20

// part is what one side sent at one time, counted from the beginning of the recording.
type part struct {
	line     int // of the recording
	at       time.Duration
	fromHost bool
	bytes    []byte
}

// taken is a recording that a test has read.
type taken struct {
	recording.Connection
	parts []part
	// ended is why the session ended; it is empty if the recording ended before. at is when the
	// recording ended.
	ended string
	at    time.Duration
}

// ways are the ways in which a test replays a recording.
var ways = []struct {
	name string
	cut  func([]part) []part
}{
	{"as recorded", func(parts []part) []part { return parts }},
	{"byte by byte", bytewise},
	{"joined", joined},
}

// bytewise cuts what the device sent into single bytes.
func bytewise(parts []part) []part {
	var all []part
	for _, p := range parts {
		if p.fromHost {
			all = append(all, p)
			continue
		}
		for one := range slices.Chunk(p.bytes, 1) {
			p.bytes = one
			all = append(all, p)
		}
	}
	return all
}

// joined joins the parts that the device sent in a row. The joined bytes arrive at the time of the
// last part.
func joined(parts []part) []part {
	var all []part
	for _, p := range parts {
		if last := len(all) - 1; last >= 0 && !p.fromHost && !all[last].fromHost {
			p.bytes = slices.Concat(all[last].bytes, p.bytes)
			all = all[:last]
		}
		all = append(all, p)
	}
	return all
}

// readRecording reads the recording of a test.
func readRecording(name string) (*taken, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxReplay {
		return nil, fmt.Errorf("%s has %d bytes; allowed: up to %d; leave out lines at its end", name, info.Size(), maxReplay)
	}
	r, err := recording.NewReader(io.LimitReader(f, maxReplay))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := &taken{Connection: r.Connection}
	for {
		l, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			t.ended, t.at = r.Ended(), r.Last().Sub(r.Began)
			return t, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t.parts = append(t.parts, part{line: r.LineNumber(), at: l.Time.Sub(r.Began), fromHost: l.From == recording.FromHost, bytes: l.Bytes})
	}
}

// runReplay runs a test with a recording in all ways.
func runReplay(t *configs.Test, s Setup) Result {
	began := time.Now()
	rec, err := readRecording(t.Replay)
	if err != nil {
		return Result{Test: t, Took: time.Since(began), Failure: failAt(t, 0, "reading the recording: "+err.Error())}
	}
	var all Result
	var first []string
	for i, way := range ways {
		w := newWorld(t, s)
		w.player = &player{taken: rec, parts: way.cut(rec.parts)}
		r := w.runIn()
		data := w.player.published()
		if r.Failure == nil && i == 0 {
			first = data
		} else if r.Failure == nil && !slices.Equal(first, data) {
			r.Failure = failAt(t, 0, "the data differ from those of the recording "+ways[0].name+"\n"+differentData(first, data))
		}
		r.Took = time.Since(began)
		if all = r; r.Failure != nil {
			all.Failure.Message = "replayed " + way.name + ": " + r.Failure.Message
			break
		}
	}
	return all
}

// differentData describes the first difference between two lists of data.
func differentData(first, now []string) string {
	at := 0
	for at < min(len(first), len(now)) && first[at] == now[at] {
		at++
	}
	show := func(list []string) string {
		if at < len(list) {
			return list[at]
		}
		return "none"
	}
	return strings.Join([]string{
		fmt.Sprintf("message %d", at+1),
		fmt.Sprintf("%s: %s", ways[0].name, show(first)),
		"now: " + show(now),
	}, "\n")
}
