package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// errNoWay means that a message can't go back to where it came from.
var errNoWay = errors.New("it can't go back to where it came from")

// outlets are the ways by which messages are replayed. Their transports have connections of their own, and are started when they are needed.
type outlets struct {
	config router.Config
	host   string
	to     transports.TopicRef
	opened map[string]*outlet // by transport
}

// outletReady is how long a broker has to take messages.
const outletReady = 5 * time.Second

// outlet is one of them.
type outlet struct {
	transport transports.Transport
	publisher message.Publisher
	name      string
	// topic is empty for messages that go back to where they came from.
	topic string
}

func newOutlets(w *poisonWork) *outlets {
	return &outlets{config: w.router, host: w.Name, to: transports.TopicRef(w.to), opened: map[string]*outlet{}}
}

// of returns the way of a row, when its broker takes messages.
func (o *outlets) of(ctx context.Context, row deadletters.Row) (*outlet, error) {
	ref := o.to
	if ref == "" {
		ref = row.From
	}
	name, topic, err := ref.Split()
	switch {
	case err != nil && o.to != "":
		return nil, advise(fmt.Errorf("--to: %w", err), "for example --to broker:commands")
	case err != nil:
		return nil, fmt.Errorf("%w: nobody said where that was", errNoWay)
	case o.to == "" && row.Exchange == "" && row.RoutingKey == "":
		return nil, fmt.Errorf("%w: %s takes messages only from those who bring them", errNoWay, ref)
	}
	out := o.opened[name]
	if out == nil {
		if out, err = o.open(ctx, name, topic); err != nil {
			return nil, err
		}
		o.opened[name] = out
	}
	if err := out.ready(ctx, topic); err != nil {
		return nil, err
	}
	return out, nil
}

// open starts a transport of the configuration, if messages can go out through it.
func (o *outlets) open(ctx context.Context, name, topic string) (*outlet, error) {
	config, err := brokerOf(o.config.Transports, name, topic)
	switch {
	case err != nil && o.to != "":
		return nil, advise(err, "name a topic of a broker: --to transport:topic")
	case err == nil && o.to == "":
		_, err = config.Topic("", transports.Return)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoWay, err)
	}
	t, err := config.New(transports.Env{
		Name: name, Host: o.host, Now: time.Now, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("building transport %s: %w", name, err)
	}
	out := &outlet{transport: t, name: name}
	if o.to != "" {
		out.topic = topic
		if out.publisher, err = t.Publisher(transports.Producer{Pipeline: "poison", Topic: topic}); err != nil {
			return nil, fmt.Errorf("publishing to %s: %w", o.to, err)
		}
	} else if out.publisher, err = t.Publisher(transports.Producer{Pipeline: "poison", Use: transports.Return}); err != nil {
		return nil, fmt.Errorf("returning messages to %s: %w", name, err)
	}
	if err := t.Start(ctx); err != nil {
		return nil, fmt.Errorf("starting transport %s: %w", name, err)
	}
	return out, nil
}

// advised says of an error with a way what to do next.
func (o *outlets) advised(err error) error {
	var known *advisedError
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, errNoWay):
		return advise(err, "name a topic of a broker: --to transport:topic")
	case errors.Is(err, transports.ErrUnroutable):
		return advise(err, "start the host once so that it declares its queue, or name another topic: --to transport:topic")
	case errors.Is(err, transports.ErrUnsendable):
		return advise(err, "it can only be dropped: pentrough poison drop")
	default:
		return err
	}
}

// close ends all connections.
func (o *outlets) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takes)
	defer cancel()
	var errs []error
	for _, out := range o.opened {
		errs = append(errs, out.publisher.Close(), out.transport.Close(ctx))
	}
	return errors.Join(errs...)
}

// ready waits until the broker takes messages for a topic, so that no row is claimed in vain.
func (o *outlet) ready(ctx context.Context, topic string) error {
	a, ok := o.transport.(transports.Acceptor)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, outletReady)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.Accepts(topic)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return advise(fmt.Errorf("transport %s: %w", o.name, err), "check that the broker runs and takes messages; see [transport.%s]", o.name)
		}
	}
}

// send sends a row's message and waits until it has arrived.
func (o *outlet) send(ctx context.Context, c *deadletters.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, replayTakes)
	defer cancel()
	msg := replayed(ctx, &c.Row)
	if o.topic == "" {
		msg.Metadata[transports.SourcePrefix+"exchange"] = c.Exchange
		msg.Metadata[transports.SourcePrefix+"routing_key"] = c.RoutingKey
	}
	return o.publisher.Publish(o.topic, msg)
}

// certain says whether a message that could not be sent has not arrived.
func (o *outlet) certain(err error) bool {
	if o.topic == "" {
		return !errors.Is(err, transports.ErrUndecided)
	}
	return errors.Is(err, transports.ErrUnroutable) || errors.Is(err, transports.ErrUnsendable)
}

// place is where a message went, for people.
func (o *outlet) place(r *deadletters.Row) string {
	if o.topic != "" {
		return o.name + ":" + printable.Text(o.topic)
	}
	return fmt.Sprintf("exchange %s of %s with routing key %s", strconv.Quote(r.Exchange), o.name, strconv.Quote(r.RoutingKey))
}
