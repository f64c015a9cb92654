// Package middlewaretest tests middleware without a host. [Run] checks a middleware against its
// duties. A [Host] provides fakes of everything that a real host provides. [RunLedger] checks a
// ledger against its contract. The runs of messages come from package handlertest.
package middlewaretest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/router/middleware"
)

// Host provides fakes to a middleware. It is safe for concurrent use.
type Host struct {
	// Ledger is the ledger in Env.
	Ledger *Ledger

	t testing.TB

	mu        sync.Mutex
	publish   func(ref middleware.TopicRef, msg *message.Message) error
	published map[middleware.TopicRef][]*message.Message
}

// NewHost returns a host with an empty ledger.
func NewHost(t testing.TB) *Host {
	return &Host{
		t: t, Ledger: NewLedger(), published: map[middleware.TopicRef][]*message.Message{},
		publish: func(middleware.TopicRef, *message.Message) error { return nil },
	}
}

// Env returns the environment of the middleware "test" in the pipeline "test", from "source:topic"
// to the handler "handler".
func (h *Host) Env() middleware.Env {
	return middleware.Env{
		Pipeline: "test", Name: "test", From: "source:topic", Handler: "handler", Logger: handlertest.Logger(h.t), Now: func() time.Time { return handlertest.Start },
		Registerer: prometheus.NewRegistry(), Ledger: h.Ledger, Presence: func() time.Duration { return time.Since(handlertest.Start) },
		Publisher: func(ref middleware.TopicRef) (message.Publisher, error) { return publisher{h, ref}, nil },
	}
}

// Build builds a middleware in the host's Env.
func (h *Host) Build(c middleware.Config) middleware.Middleware {
	h.t.Helper()
	m, err := c.New(h.Env())
	if err != nil {
		h.t.Fatalf("building the middleware: %v", err)
	}
	return m
}

// Publish makes f decide about each message that is published. The host keeps a message for which
// f returns nil.
func (h *Host) Publish(f func(ref middleware.TopicRef, msg *message.Message) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publish = f
}

// Published returns the messages that were published to a topic.
func (h *Host) Published(ref middleware.TopicRef) []*message.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*message.Message(nil), h.published[ref]...)
}

// publisher behaves as a real one: it doesn't publish a message whose context has ended.
type publisher struct {
	host *Host
	ref  middleware.TopicRef
}

func (p publisher) Publish(_ string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		if err := context.Cause(msg.Context()); err != nil {
			return err
		}
		p.host.mu.Lock()
		f := p.host.publish
		p.host.mu.Unlock()
		if err := f(p.ref, msg); err != nil {
			return err
		}
		p.host.mu.Lock()
		p.host.published[p.ref] = append(p.host.published[p.ref], msg)
		p.host.mu.Unlock()
	}
	return nil
}

func (p publisher) Close() error { return nil }

// Message returns a message in a run that ends with ctx, described by its id and key.
func Message(ctx context.Context, id, key, body string) (*message.Message, *handlertest.Scope) {
	return MessageFor(ctx, id, key, body, nil)
}

// MessageFor is Message with a handler. If the message is refused, the run calls the handler's
// Refuse.
func MessageFor(ctx context.Context, id, key, body string, h handlers.Handler) (*message.Message, *handlertest.Scope) {
	msg := message.NewMessage(id, []byte(body))
	s := handlertest.NewScope(ctx, handlers.Description{Key: key, ID: id}, h)
	msg.SetContext(s.Base())
	return msg, s
}
