// Package telemetry creates the host's logger, its metrics registry, and the logger for Watermill.
// It has no state.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/pentrough/pentrough/internal/printable"
)

// Config is how the host logs.
type Config struct {
	Level slog.Level
	// Format is text or json; empty is text.
	Format string
}

// NewLogger returns a logger that writes to out and escapes characters that aren't printable. If
// out is the stream of systemd's journal, the lines have no time, since the journal adds one.
func NewLogger(out io.Writer, c Config) (*slog.Logger, error) {
	return newLogger(printable.NewWriter(out), c, isJournal(printable.Below(out)))
}

func newLogger(out io.Writer, c Config, stamped bool) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: c.Level}
	if stamped {
		options.ReplaceAttr = withoutTime
	}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: c.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if stamped {
				a = withoutTime(groups, a)
			}
			return asText(a)
		}})), nil
	default:
		return nil, fmt.Errorf("log format %q isn't known; text and json are", c.Format)
	}
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// asText turns durations, addresses and other values with a String method into text. Without it, a
// duration would be a number of nanoseconds in JSON, and some addresses would be objects and
// others strings.
func asText(a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case *slog.Source, error:
		case slog.Level:
			if a.Key != slog.LevelKey {
				a.Value = slog.StringValue(v.String())
			}
		case fmt.Stringer:
			a.Value = slog.StringValue(fmt.Sprint(v)) // also of a nil pointer
		}
	}
	return a
}
