package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// watermillLog passes Watermill's log lines on.
type watermillLog struct{ log *slog.Logger }

// Watermill returns a logger for Watermill's parts. It logs Watermill's errors as errors. It logs
// its Info lines, which report each step of a router's life, as debug lines. It drops its Debug
// and Trace lines, which report each message.
func Watermill(log *slog.Logger) watermill.LoggerAdapter { return watermillLog{log} }

func (l watermillLog) Error(msg string, err error, fields watermill.LogFields) {
	l.write(slog.LevelError, msg, append(attrs(fields), slog.Any("err", err)))
}

func (l watermillLog) Info(msg string, fields watermill.LogFields) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.write(slog.LevelDebug, msg, attrs(fields))
	}
}

func (watermillLog) Debug(string, watermill.LogFields) {}

func (watermillLog) Trace(string, watermill.LogFields) {}

func (l watermillLog) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return watermillLog{slog.New(l.log.Handler().WithAttrs(attrs(fields)))}
}

// write passes a record to the handler. The methods of slog.Logger aren't used, since they are for
// constant messages.
func (l watermillLog) write(level slog.Level, msg string, attrs []slog.Attr) {
	ctx, h := context.Background(), l.log.Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, msg, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r) // there is no log for errors of the log
}

// attrs returns the fields in a fixed order.
func attrs(fields watermill.LogFields) []slog.Attr {
	all := make([]slog.Attr, 0, len(fields)+1)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, slog.Any(key, fields[key]))
	}
	return all
}
