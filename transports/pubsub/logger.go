package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// logger is the logger of one part of a Pub/Sub. Watermill's info messages, and errors caused by a
// cancelled context, are logged at level debug. After shut, the logger drops everything. Otherwise
// a goroutine of the part that runs on after Close would log that its connection is lost.
type logger struct {
	watermill.LoggerAdapter
	*gate
}

// gate is what a logger shares with the loggers that its With returns.
type gate struct {
	mu     sync.RWMutex
	closed bool
}

func newLogger(l *slog.Logger) logger {
	levels := map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug}
	return logger{watermill.NewSlogLoggerWithLevelMapping(l, levels), &gate{}}
}

// shut returns when no message is being logged, and from then on none is.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// pass calls log unless the gate is shut.
func (g *gate) pass(log func()) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.closed {
		log()
	}
}

// Error implements watermill.LoggerAdapter.
func (l logger) Error(text string, err error, fields watermill.LogFields) {
	if errors.Is(err, context.Canceled) {
		l.Debug(text, fields.Add(watermill.LogFields{"err": err}))
		return
	}
	l.pass(func() { l.LoggerAdapter.Error(text, err, fields) })
}

// Info implements watermill.LoggerAdapter.
func (l logger) Info(text string, fields watermill.LogFields) {
	l.pass(func() { l.LoggerAdapter.Info(text, fields) })
}

// Debug implements watermill.LoggerAdapter.
func (l logger) Debug(text string, fields watermill.LogFields) {
	l.pass(func() { l.LoggerAdapter.Debug(text, fields) })
}

// Trace implements watermill.LoggerAdapter.
func (l logger) Trace(text string, fields watermill.LogFields) {
	l.pass(func() { l.LoggerAdapter.Trace(text, fields) })
}

// With implements watermill.LoggerAdapter.
func (l logger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return logger{l.LoggerAdapter.With(fields), l.gate}
}

// quietSubscriber shuts its logger before it closes.
type quietSubscriber struct {
	message.Subscriber
	log logger
}

// Close implements message.Subscriber.
func (s quietSubscriber) Close() error {
	s.log.shut()
	return s.Subscriber.Close()
}

// quietPublisher shuts its logger before it closes.
type quietPublisher struct {
	message.Publisher
	log logger
}

// Close implements message.Publisher.
func (p quietPublisher) Close() error {
	p.log.shut()
	return p.Publisher.Close()
}
