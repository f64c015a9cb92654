package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

func TestKindOf(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		want handlers.Kind
	}{
		{cause, handlers.KindRetryable},
		{nil, handlers.KindRetryable},
		{handlers.Permanent(cause), handlers.KindPermanent},
		{handlers.Drop(cause), handlers.KindDrop},
		{handlers.Unavailable(cause), handlers.KindUnavailable},
		{fmt.Errorf("asking: %w", handlers.Unavailable(cause)), handlers.KindUnavailable},
		{handlers.Permanent(fmt.Errorf("asking: %w", handlers.Unavailable(cause))), handlers.KindPermanent},
		{errors.Join(cause, handlers.Drop(cause)), handlers.KindDrop},
	} {
		if got := handlers.KindOf(c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
		if c.err != nil && !errors.Is(c.err, cause) {
			t.Errorf("%v lost its cause", c.err)
		}
	}
	for _, mark := range []func(error) error{handlers.Permanent, handlers.Drop, handlers.Unavailable} {
		if mark(nil) != nil {
			t.Error("a marked nil isn't nil")
		}
	}
}

func TestRetryAfterKeepsTheKind(t *testing.T) {
	cause := errors.New("busy")
	for _, c := range []struct {
		err  error
		want time.Duration
		kind handlers.Kind
	}{
		{cause, 0, handlers.KindRetryable},
		{handlers.RetryAfter(cause, time.Second), time.Second, handlers.KindRetryable},
		{handlers.RetryAfter(handlers.Unavailable(cause), time.Second), time.Second, handlers.KindUnavailable},
		{handlers.Permanent(fmt.Errorf("asking: %w", handlers.RetryAfter(cause, time.Second))), time.Second, handlers.KindPermanent},
		{handlers.RetryAfter(handlers.RetryAfter(cause, time.Second), time.Minute), time.Minute, handlers.KindRetryable},
		{handlers.RetryAfter(cause, -time.Second), 0, handlers.KindRetryable},
	} {
		if got := handlers.RetryAfterOf(c.err); got != c.want || handlers.KindOf(c.err) != c.kind || !errors.Is(c.err, cause) {
			t.Errorf("%v asks for %v and is %v, want %v and %v", c.err, got, handlers.KindOf(c.err), c.want, c.kind)
		}
	}
	if err := handlers.RetryAfter(nil, time.Second); err != nil {
		t.Errorf("no error became %v", err)
	}
}

func TestDestinationLivesOnTheContext(t *testing.T) {
	msg := handlers.NewMessage([]byte("x"))
	if got := handlers.Destination(msg); got != "" {
		t.Errorf("a new message goes to %q", got)
	}
	handlers.SetDestination(msg, "broker:elsewhere")
	if got := handlers.Destination(msg.CopyWithContext()); got != "broker:elsewhere" {
		t.Errorf("the copy with context goes to %q", got)
	}
	if got := handlers.Destination(msg.Copy()); got != "" {
		t.Errorf("the copy without context goes to %q", got)
	}
	if len(msg.Metadata) != 1 || msg.Metadata[transports.MessageID] != msg.UUID {
		t.Errorf("metadata %v, want nothing but the id", msg.Metadata)
	}
}

func TestForwardKeepsAllButWhatBelongsToTheDelivery(t *testing.T) {
	type key struct{}
	in := message.NewMessage("u", []byte("x"))
	in.Metadata = message.Metadata{
		transports.MessageID: "m", transports.CorrelationID: "c", "header.a": "1", "header.X-Custom": "2",
		transports.Redelivered: "true", "source.exchange": "e", "source.routing_key": "r", transports.Expiration: "5",
		"header.x-death": "[]", "header.x-delivery-count": "3", "header.x-last-death-queue": "q", "header.x-stream-offset": "7",
		"header.x-request-id": "r", "header.x-b3-traceid": "t", "header.x-delay": "5", "header.x-deaths": "own",
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "beside"))
	cancel()
	in.SetContext(ctx)
	out := handlers.Forward(in)
	want := message.Metadata{transports.MessageID: "m", transports.CorrelationID: "c", "header.a": "1", "header.X-Custom": "2",
		"header.x-request-id": "r", "header.x-b3-traceid": "t", "header.x-delay": "5", "header.x-deaths": "own"}
	if !maps.Equal(out.Metadata, want) {
		t.Errorf("metadata %v, want %v", out.Metadata, want)
	}
	if out.UUID != "u" || string(out.Payload) != "x" || len(in.Metadata) != 16 {
		t.Errorf("forwarded %v %q from %v", out.UUID, out.Payload, in.Metadata)
	}
	if out.Context().Err() != nil || out.Context().Value(key{}) != "beside" {
		t.Error("the context isn't that of the input without its cancellation")
	}
}

// scope counts what is asked of it.
type scope struct {
	base      context.Context
	enqueued  int
	confirmed func(context.Context) error
}

func (s *scope) Description() handlers.Description         { return handlers.Description{Key: "k", ID: "i"} }
func (s *scope) Base() context.Context                     { return s.base }
func (s *scope) Enqueued()                                 { s.enqueued++ }
func (s *scope) Swallowed(error)                           {}
func (s *scope) OnConfirmed(f func(context.Context) error) { s.confirmed = f }
func (s *scope) Refuse(*message.Message, handlers.Reason) ([]*message.Message, error) {
	return nil, handlers.Drop(errors.New("refused"))
}

func TestScopeIsReachedThroughTheContext(t *testing.T) {
	base, cancel := context.WithCancel(context.Background())
	s := &scope{base: base}
	ctx, timeout := context.WithTimeout(handlers.WithScope(base, s), time.Nanosecond)
	defer timeout()
	<-ctx.Done()
	handlers.Enqueued(ctx)
	handlers.OnConfirmed(ctx, func(context.Context) error { return nil })
	if s.enqueued != 1 || s.confirmed == nil || handlers.Described(ctx).ID != "i" {
		t.Errorf("the scope wasn't reached: %+v", s)
	}
	if handlers.Cancelled(ctx) {
		t.Error("a middleware's deadline counts as cancelled")
	}
	cancel()
	if !handlers.Cancelled(ctx) {
		t.Error("the end of the router's own context doesn't count as cancelled")
	}
	msg := message.NewMessage("u", nil)
	msg.SetContext(ctx)
	if _, err := handlers.Refuse(msg, handlers.ReasonIDReused); handlers.KindOf(err) != handlers.KindDrop {
		t.Errorf("refused with %v", err)
	}
}

func TestWithoutAScopeNothingBreaks(t *testing.T) {
	ctx := context.Background()
	handlers.Enqueued(ctx)
	handlers.OnConfirmed(ctx, func(context.Context) error { t.Error("called"); return nil })
	if handlers.Cancelled(ctx) || handlers.Described(ctx) != (handlers.Description{}) {
		t.Error("there is a scope where none was put")
	}
	msg := message.NewMessage("u", nil)
	if _, err := handlers.Refuse(msg, handlers.ReasonIDReused); handlers.KindOf(err) != handlers.KindPermanent || err.Error() != "id reused" {
		t.Errorf("refused with %v", err)
	}
}
