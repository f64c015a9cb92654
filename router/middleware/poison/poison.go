// Package poison is the middleware that publishes messages that couldn't be handled to a topic of
// their own, unchanged, with the cause in their metadata.
package poison

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:    "poison",
		Summary: "Publishes messages that couldn't be handled to a topic of their own.",
		Description: "If a message ends with a *permanent* or *retryable* error, `poison` publishes it to the topic `to`. The host acks the message only after that is " +
			"confirmed. The body, the id and the headers stay unchanged, except that a host with tracing sets its own trace context. `poison` adds these metadata:\n\n" +
			"| metadata | |\n|---|---|\n" +
			"| `poison.cause` | the error |\n" +
			"| `poison.kind` | its kind: permanent or retryable |\n" +
			"| `poison.pipeline` | the pipeline |\n" +
			"| `poison.from` | the topic that the message came from |\n" +
			"| `poison.handler` | the type of the handler |\n" +
			"| `poison.time` | when the message failed |\n" +
			"| `poison.attempts` | how often it was tried: more than 1 if `retry` retried it |\n" +
			"| `poison.exchange`, `poison.routing_key`, `poison.expiration` | those of the message, if it came through a broker |\n\n" +
			"*Unavailable* errors pass through, so that an outage sends no messages to `to`.\n\n" +
			"The handler `store` stores such messages as rows, which `pentrough poison` lists and replays.",
		Place:    middleware.PlacePoison,
		Swallows: true,
		Config:   func() middleware.Config { return &Config{} },
	})
}

// prefix begins the metadata keys that poison adds.
const prefix = "poison."

// maxCause is the most bytes of poison.cause. All headers of a message must fit into one AMQP
// frame.
const maxCause = 2048

// Config is the configuration of poison.
type Config struct {
	To middleware.TopicRef `toml:"to" doc:"The topic for messages that can't be handled." example:"\"broker:commands.poison\"" required:"true"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	if c.To == "" {
		return middleware.Invalid("to", "is missing; it names the topic for messages that can't be handled, such as \"broker:commands.poison\"")
	}
	return nil
}

// New builds the middleware.
func (c *Config) New(env middleware.Env) (middleware.Middleware, error) {
	pub, err := env.Publisher(c.To)
	if err != nil {
		return nil, err
	}
	return &poison{to: string(c.To), publisher: pub, env: env}, nil
}

type poison struct {
	to        string
	publisher message.Publisher
	env       middleware.Env
}

func (p *poison) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		ctx, body := msg.Context(), msg.Payload
		out, err := next(msg)
		if err == nil || handlers.Cancelled(ctx) {
			return out, err
		}
		if k := handlers.KindOf(err); k != handlers.KindPermanent && k != handlers.KindRetryable {
			return out, err
		}
		if failed := p.publish(ctx, msg, body, err); failed != nil {
			return nil, handlers.Unavailable(fmt.Errorf("publishing to %s a message that failed (%w): %w", p.to, err, failed))
		}
		log := transports.Traced(p.env.Logger, msg.Metadata)
		if id := handlers.Described(ctx).ID; id != "" {
			log = log.With("id", id)
		}
		log.Warn("message poisoned", "uuid", msg.UUID, "to", p.to, "err", err)
		middleware.Swallowed(ctx, err)
		return nil, nil
	}
}

// publish publishes the failed message with its cause. It ends with the run. Deadlines that other
// middleware set don't end it.
func (p *poison) publish(ctx context.Context, msg *message.Message, body message.Payload, cause error) error {
	out := handlers.Forward(msg)
	out.Payload = body
	// A message that was a dead letter before still has the metadata of that time.
	for key := range out.Metadata {
		if strings.HasPrefix(key, prefix) || strings.HasPrefix(key, transports.HeaderPrefix+prefix) {
			delete(out.Metadata, key)
		}
	}
	set := func(key, value string) {
		if value != "" {
			out.Metadata[prefix+key] = value
		}
	}
	set("cause", clipCause(cause.Error()))
	set("kind", handlers.KindOf(cause).String())
	set("pipeline", p.env.Pipeline)
	set("from", string(p.env.From))
	set("handler", p.env.Handler)
	set("time", p.env.Now().UTC().Format(time.RFC3339Nano))
	for key, value := range msg.Metadata {
		if name, ok := strings.CutPrefix(key, transports.SourcePrefix); ok {
			set(name, value)
		}
	}
	set("expiration", msg.Metadata[transports.Expiration])
	attempts := 1
	var counted interface{ Attempts() int }
	if errors.As(cause, &counted) {
		attempts = counted.Attempts()
	}
	set("attempts", strconv.Itoa(attempts))
	base := ctx
	if s := handlers.ScopeFrom(ctx); s != nil {
		base = s.Base()
	}
	detached, cancel := context.WithCancelCause(out.Context())
	defer cancel(nil)
	defer context.AfterFunc(base, func() { cancel(context.Cause(base)) })()
	out.SetContext(detached)
	return p.publisher.Publish(p.to, out)
}

// clipCause shortens the text of an error for a header.
func clipCause(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= maxCause {
		return s
	}
	n := maxCause
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
