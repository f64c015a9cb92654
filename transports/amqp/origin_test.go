package amqp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// from returns a message that an earlier delivery brought through an exchange with a routing key.
func from(t testing.TB, exchange, key, id string) *message.Message {
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	t.Cleanup(cancel)
	msg := outgoing("body of " + id)
	msg.UUID = id
	msg.Metadata[transports.MessageID] = id
	msg.Metadata[SourceExchange], msg.Metadata[SourceRoutingKey] = exchange, key
	msg.SetContext(ctx)
	return msg
}

func TestAMessageReturnsToWhereItCameFrom(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	p := dial(t, url)
	p.queue("q", nil)
	r := start(t, config(url))
	out := r.origin()

	msg := from(t, "", "q", "id-1")
	msg.Metadata["header.n"] = "5"
	msg.Metadata[transports.CorrelationID] = "c"
	msg.SetContext(transports.WithHeaders(msg.Context(), transports.KeptHeaders(`[["n","int16","5"]]`)))
	if err := out.Publish("", msg); err != nil {
		t.Fatal(err)
	}
	d := p.get("q")
	if d.MessageId != "id-1" || string(d.Body) != "body of id-1" || d.CorrelationId != "c" || d.Headers["n"] != int16(5) || d.RoutingKey != "q" {
		t.Errorf("returned %+v", d)
	}

	// A message that can't arrive returns an error, and the next one is sent.
	for _, c := range []struct {
		exchange, key string
		want          error
		word          string
	}{
		{"", "nobody", transports.ErrUnroutable, "NO_ROUTE"},
		{"gone", "q", transports.ErrUnroutable, "NOT_FOUND"},
		{strings.Repeat("x", 256), "q", transports.ErrUnsendable, "255"},
	} {
		err := out.Publish("", from(t, c.exchange, c.key, "id-2"))
		if !errors.Is(err, c.want) || errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("to %q by %q: %v", c.exchange, c.key, err)
		}
		if err := out.Publish("", from(t, "", "q", "id-3")); err != nil {
			t.Fatal(err)
		}
		if d := p.get("q"); d.MessageId != "id-3" {
			t.Errorf("got %s", d.MessageId)
		}
	}

	// A refusal by one queue is no certain outcome: another queue may have stored the message.
	p.queue("full", amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	p.put("full", "x")
	r.until("the full queue refuses", func() bool {
		return errors.Is(out.Publish("", from(t, "", "full", "id-4")), transports.ErrUndecided)
	})
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Publish("", from(t, "", "q", "id-5")); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestReturningWaitsForABrokerNoLongerThanItsContext(t *testing.T) {
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, config("", func(c *Config) { c.URL, c.Host, c.Port = "", "127.0.0.1", port }))
	r.until("the refusal of the connection is known", func() bool {
		msg := from(t, "", "q", "id")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		msg.SetContext(ctx)
		err := r.origin().Publish("", msg)
		if err == nil || errors.Is(err, transports.ErrUndecided) {
			t.Fatalf("without a broker: %v", err)
		}
		return strings.Contains(err.Error(), "connection refused")
	})
}

// A message that was sent and not confirmed may have arrived. The next one is sent in any case.
func TestWithoutAConfirmItIsUndecidedWhetherAMessageReturned(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	p := dial(t, url)
	p.queue("q", nil)
	proxy, through := testenv.Through(t, url)
	r := start(t, config(through))
	out := r.origin()
	publish := func(id string) {
		t.Helper()
		if err := out.Publish("", from(t, "", "q", id)); err != nil {
			t.Fatal(err)
		}
	}
	publish("id-1")

	proxy.Stall()
	msg := from(t, "", "q", "id-2")
	ctx, cancel := context.WithTimeout(msg.Context(), quiet)
	defer cancel()
	msg.SetContext(ctx)
	if err := out.Publish("", msg); !errors.Is(err, transports.ErrUndecided) {
		t.Errorf("a broker that says nothing: %v", err)
	}
	proxy.Up()
	publish("id-3")

	// If the connection is lost before a message is sent, the message is sent on the next
	// connection.
	err := error(nil)
	for range 10 {
		if err != nil {
			break
		}
		publish("id-4")
		proxy.Stall()
		lost := make(chan error, 1)
		msg = from(t, "", "q", "id-5")
		go func() { lost <- out.Publish("", msg) }()
		ch := out.(*origin).current().ch
		r.until("the message is sent", func() bool { return ch.GetNextPublishSeqNo() > 2 })
		proxy.Cut()
		proxy.Up()
		err = await.Receive(t, "the end of a publish", lost)
		_ = out.Close()
		out = r.origin()
	}
	if !errors.Is(err, transports.ErrUndecided) {
		t.Errorf("a connection that was lost: %v", err)
	}
	publish("id-6")
}

// current returns the confirm window in use.
func (o *origin) current() *confirmWindow {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.confirmWindow
}
