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
	// logRate and logBurst bound what plugins write to the host's log, in lines a second.
	logRate, logBurst = 100, 200
)

// reporter passes on what processes say to people, within bounds.
type reporter struct {
	to    *slog.Logger
	limit *rate.Limiter

	mu      sync.Mutex
	dropped int
}

func newReporter(log *slog.Logger) *reporter {
	return &reporter{to: log, limit: rate.NewLimiter(logRate, logBurst)}
}

// allow says whether one more line may go out, and tells of those that couldn't.
func (r *reporter) allow() bool {
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
		r.to.Warn("the plugin writes more than is logged", "dropped", dropped)
	}
	return true
}

// log passes on a log line of the protocol.
func (r *reporter) log(text []byte) {
	var l logLine
	if err := jsontext.Unmarshal(text, &l); err != nil {
		l = logLine{Level: "warn", Text: fmt.Sprintf("a log line that can't be read: %v: %s", err, quoted(text))}
	}
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(strings.ToUpper(l.Level))) // what isn't known is info
	if !r.to.Enabled(context.Background(), level) || !r.allow() {
		return
	}
	var attrs []any
	if len(l.Fields) > 0 {
		attrs = append(attrs, slog.Group("plugin", fields(l.Fields)...))
	}
	r.to.Log(context.Background(), level, cut(l.Text, mostSaid), attrs...)
}

// fields are those of a log line, within bounds.
func fields(said map[string]any) []any {
	var all []any
	for i, key := range slices.Sorted(maps.Keys(said)) {
		if i == mostFields {
			return append(all, slog.Int("left_out", len(said)-mostFields))
		}
		value := said[key]
		switch v := value.(type) {
		case string:
			value = cut(v, mostValue)
		case map[string]any, []any:
			text, _ := json.Marshal(v) // it was JSON
			value = cut(string(text), mostValue)
		}
		all = append(all, slog.Any(cut(key, mostName), value))
	}
	return all
}

// read passes on standard error, line by line, until it ends, or shortly after the process did.
func (r *reporter) read(f *os.File, ended <-chan struct{}) {
	stop := context.AfterFunc(contextOf(ended), func() { _ = f.SetReadDeadline(time.Now().Add(leftover)) })
	defer stop()
	defer f.Close()
	in := bufio.NewReaderSize(f, mostSaid)
	for {
		part, err := in.ReadSlice('\n')
		text := bytes.TrimRight(part, "\r\n")
		if len(text) > 0 && r.allow() {
			r.to.Info("the plugin wrote to standard error", "text", cut(strings.ToValidUTF8(string(text), "\ufffd"), mostSaid))
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is too long
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func contextOf(ended <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-ended; cancel() }()
	return ctx
}

// cut is the beginning of a text, of so many bytes.
func cut(text string, most int) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// leastLevel is the least level that a logger cares for, in the protocol's words.
func leastLevel(log *slog.Logger) string {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return strings.ToLower(l.String())
		}
	}
	return "error"
}

// hostVersion is what the host calls its version.
func hostVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// say writes a line of the host.
func (c *child) say(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.stdin.line(append(text, '\n'))
	return nil
}
