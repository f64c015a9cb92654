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

// errNoWay means that a message can't be sent back to where it came from.
var errNoWay = errors.New("the message can't be sent back to where it came from")

// outlets has the transports through which messages are replayed. They have connections of their
// own. Each is started when the first message needs it.
type outlets struct {
	config router.Config
	host   string
	to     transports.TopicRef
	opened map[string]*outlet // by transport
}

// outletReady is how long a broker may take until it accepts messages.
const outletReady = 5 * time.Second

// outlet is a started transport with its publisher.
type outlet struct {
	transport transports.Transport
	publisher message.Publisher
	name      string
	// topic is empty if messages are sent back to where they came from.
	topic string
}

func newOutlets(w *poisonWork) *outlets {
	return &outlets{config: w.router, host: w.Name, to: transports.TopicRef(w.to), opened: map[string]*outlet{}}
}

// outletFor returns the outlet for a row. It waits until the broker accepts messages.
func (o *outlets) outletFor(ctx context.Context, row deadletters.Row) (*outlet, error) {
	ref := o.to
	if ref == "" {
		ref = row.From
	}
	name, topic, err := ref.Split()
	switch {
	case err != nil && o.to != "":
		return nil, advise(fmt.Errorf("--to: %w", err), "for example --to broker:commands")
	case err != nil:
		return nil, fmt.Errorf("%w: the row doesn't name a topic", errNoWay)
	case o.to == "" && row.Exchange == "" && row.RoutingKey == "":
		return nil, fmt.Errorf("%w: a host can't publish to %s", errNoWay, ref)
	}
	out := o.opened[name]
	if out == nil {
		if out, err = o.open(ctx, name, topic); err != nil {
			return nil, err
		}
		o.opened[name] = out
	}
	if err := out.awaitReady(ctx, topic); err != nil {
		return nil, err
	}
	return out, nil
}

// open starts a transport of the configuration and creates its publisher.
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

// adviseError adds to an error of an outlet what to do next.
func (o *outlets) adviseError(err error) error {
	var known *advisedError
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, errNoWay):
		return advise(err, "name a topic of a broker: --to transport:topic")
	case errors.Is(err, transports.ErrUnroutable):
		return advise(err, "start the host once so that it declares its queue, or name another topic: --to transport:topic")
	case errors.Is(err, transports.ErrUnsendable):
		return advise(err, "the message can't be sent; drop it with: pentrough poison drop")
	default:
		return err
	}
}

// close ends all connections.
func (o *outlets) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	var errs []error
	for _, out := range o.opened {
		errs = append(errs, out.publisher.Close(), out.transport.Close(ctx))
	}
	return errors.Join(errs...)
}

// awaitReady waits until the broker accepts messages for a topic. Otherwise a row would be claimed
// although its message can't be sent.
func (o *outlet) awaitReady(ctx context.Context, topic string) error {
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
			return advise(fmt.Errorf("transport %s: %w", o.name, err), "check that the broker runs and accepts messages; see [transport.%s]", o.name)
		}
	}
}

// send sends a row's message and waits until the broker has confirmed it.
func (o *outlet) send(ctx context.Context, c *deadletters.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	msg := replayMessage(ctx, &c.Row)
	if o.topic == "" {
		msg.Metadata[transports.SourcePrefix+"exchange"] = c.Exchange
		msg.Metadata[transports.SourcePrefix+"routing_key"] = c.RoutingKey
	}
	return o.publisher.Publish(o.topic, msg)
}

// isNotSent reports whether err, an error of send, shows that the broker didn't store the message.
func (o *outlet) isNotSent(err error) bool {
	if o.topic == "" {
		return !errors.Is(err, transports.ErrUndecided)
	}
	return errors.Is(err, transports.ErrUnroutable) || errors.Is(err, transports.ErrUnsendable)
}

// describeTarget says for people where a message was sent.
func (o *outlet) describeTarget(r *deadletters.Row) string {
	if o.topic != "" {
		return o.name + ":" + printable.Text(o.topic)
	}
	return fmt.Sprintf("exchange %s of %s with routing key %s", strconv.Quote(r.Exchange), o.name, strconv.Quote(r.RoutingKey))
}
