package serve

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
)

// newLogger writes lines of type "log" to w, each with one Write.
func newLogger(w writerFunc, level slog.Level) *slog.Logger {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: renameKeys})
	return slog.New(h.WithAttrs([]slog.Attr{slog.String("type", "log")}).WithGroup("fields"))
}

type writerFunc func(line []byte) error

func (w writerFunc) Write(p []byte) (int, error) { return len(p), w(p) }

// renameKeys replaces slog's own keys by those of the protocol.
func renameKeys(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.Attr{}
	case slog.MessageKey:
		a.Key = "text"
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			a.Value = slog.StringValue(levelName(level))
		}
	}
	return a
}

// levelName returns the protocol's name for a level. If the level has no name, it returns the name
// of the next lower level that has one.
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	case l >= slog.LevelInfo:
		return "info"
	default:
		return "debug"
	}
}

// logLine sends a line of the logger to the host. A line that is too long for the host is replaced
// by a shorter one.
func (s *session) logLine(line []byte) error {
	if len(line)-1 <= s.host.MaxLine {
		return s.out.WriteLines(line)
	}
	var l struct {
		Level string `json:"level"`
		Text  string `json:"text"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	text := strings.ToValidUTF8(l.Text[:min(len(l.Text), shortened)], "")
	return s.out.WriteJSON(cutLog{"log", l.Level, fmt.Sprintf("%s... (a log line of %d bytes)", text, len(line))})
}

// shortened is the most bytes of the text in a shortened line.
const shortened = 1000

type cutLog struct {
	Type  string `json:"type"`
	Level string `json:"level"`
	Text  string `json:"text"`
}
