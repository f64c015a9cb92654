package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/internal/jsontext"
)

const (
	// logRate is the greatest number of lines that a plugin may write to the host's log in a
	// second, and logBurst the number that it may write at once.
	logRate, logBurst = 100, 200
)

// reporter writes what the processes log to the host's log, within these limits.
type reporter struct {
	to    *slog.Logger
	limit *rate.Limiter

	mu      sync.Mutex
	dropped int // lines over the limit since the last line that was logged
}

func newReporter(log *slog.Logger) *reporter {
	return &reporter{to: log, limit: rate.NewLimiter(logRate, logBurst)}
}

// allowLine returns whether one more line may be logged. If lines were dropped before it, it logs
// their number.
func (r *reporter) allowLine() bool {
	if !r.limit.Allow() {
		r.mu.Lock()
		r.dropped++
		r.mu.Unlock()
		return false
	}
	r.mu.Lock()
	dropped := r.dropped
	r.dropped = 0
	r.mu.Unlock()
	if dropped > 0 {
		r.to.Warn("the plugin wrote more lines than the host logs", "dropped", dropped)
	}
	return true
}

// forwardLine logs a `log` line of the protocol.
func (r *reporter) forwardLine(text []byte) {
	var l logLine
	if err := jsontext.Unmarshal(text, &l); err != nil {
		l = logLine{Level: "warn", Text: fmt.Sprintf("reading a log line: %v: %s", err, quoteStart(text))}
	}
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(strings.ToUpper(l.Level))) // an unknown level is info
	if !r.to.Enabled(context.Background(), level) || !r.allowLine() {
		return
	}
	var attrs []any
	if len(l.Fields) > 0 {
		attrs = append(attrs, slog.Group("plugin", boundedFields(l.Fields)...))
	}
	r.to.Log(context.Background(), level, truncate(l.Text, maxText), attrs...)
}

// boundedFields returns the first maxFields fields of a log line, with long values cut.
func boundedFields(values map[string]any) []any {
	var all []any
	for i, key := range slices.Sorted(maps.Keys(values)) {
		if i == maxFields {
			return append(all, slog.Int("left_out", len(values)-maxFields))
		}
		value := values[key]
		switch v := value.(type) {
		case string:
			value = truncate(v, maxValue)
		case map[string]any, []any:
			text, _ := json.Marshal(v) // can't fail: it was decoded from JSON
			value = truncate(string(text), maxValue)
		}
		all = append(all, slog.Any(truncate(key, maxName), value))
	}
	return all
}

// forwardStderr logs standard error line by line. It returns when standard error ends, or
// leftoverTime after ended is closed.
func (r *reporter) forwardStderr(f *os.File, ended <-chan struct{}) {
	stop := context.AfterFunc(contextOf(ended), func() { _ = f.SetReadDeadline(time.Now().Add(leftoverTime)) })
	defer stop()
	defer f.Close()
	in := bufio.NewReaderSize(f, maxText)
	for {
		part, err := in.ReadSlice('\n')
		text := bytes.TrimRight(part, "\r\n")
		if len(text) > 0 && r.allowLine() {
			r.to.Info("the plugin wrote to standard error", "text", truncate(strings.ToValidUTF8(string(text), "\ufffd"), maxText))
		}
		for errors.Is(err, bufio.ErrBufferFull) { // skip the rest of a line that is too long
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// contextOf returns a context that ends when the channel is closed.
func contextOf(ended <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-ended; cancel() }()
	return ctx
}

// truncate returns a text. If the text has more than most bytes, truncate cuts the rest off and
// adds an ellipsis.
func truncate(text string, most int) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// lowestLevel returns the lowest level that the logger writes, as the protocol names it.
func lowestLevel(log *slog.Logger) string {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return strings.ToLower(l.String())
		}
	}
	return "error"
}

// hostVersion returns the host's version from its build information.
func hostVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// sendJSON writes a value as a line to the process.
func (c *child) sendJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.stdin.writeLine(append(text, '\n'))
	return nil
}
