package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill"
)

// watermillLog passes on what Watermill says.
type watermillLog struct{ log *slog.Logger }

// Watermill returns the logger for Watermill's parts: their errors are errors, their Info, which tells of every step of a
// router's life, is debug, and their Debug and Trace, which tell of every message, are dropped.
func Watermill(log *slog.Logger) watermill.LoggerAdapter { return watermillLog{log} }

func (l watermillLog) Error(msg string, err error, fields watermill.LogFields) {
	l.log.LogAttrs(context.Background(), slog.LevelError, msg, append(attrs(fields), slog.Any("err", err))...)
}

func (l watermillLog) Info(msg string, fields watermill.LogFields) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.LogAttrs(context.Background(), slog.LevelDebug, msg, attrs(fields)...)
	}
}

func (watermillLog) Debug(string, watermill.LogFields) {}

func (watermillLog) Trace(string, watermill.LogFields) {}

func (l watermillLog) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return watermillLog{slog.New(l.log.Handler().WithAttrs(attrs(fields)))}
}

// attrs returns the fields in a fixed order.
func attrs(fields watermill.LogFields) []slog.Attr {
	all := make([]slog.Attr, 0, len(fields)+1)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, slog.Any(key, fields[key]))
	}
	return all
}
