// Package poison is the middleware that puts messages which can't be handled aside, as they came, with the cause beside them.
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
		Summary: "Puts messages that can't be handled into a topic of their own.",
		Description: "Publishes a message whose handling ended in a *permanent* or *retryable* error to the topic `to`, waits until it is confirmed, and only " +
			"then lets the message be acked. Its body, id and headers are as they came, but for the trace context of a host that traces; beside them stand `poison.cause`, `poison.kind` " +
			"(permanent or retryable), `poison.pipeline`, `poison.from` (the topic that it came from), `poison.handler` (the handler's type), `poison.time`, " +
			"`poison.attempts` (more than 1 if `retry` tried it again), and, if it came through a broker, `poison.exchange`, `poison.routing_key` and " +
			"`poison.expiration`. *Unavailable* errors pass: an outage poisons nothing.\n\n" +
			"The handler `store` keeps such messages as rows, which `pentrough poison` shows and replays.",
		Place:    middleware.PlacePoison,
		Swallows: true,
		Config:   func() middleware.Config { return &Config{} },
	})
}

// prefix stands before the metadata keys that poison adds.
const prefix = "poison."

// maxCause bounds poison.cause: all headers of a message have to fit into one frame of the broker.
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

// publish puts the message aside. It ends with the run, not with the deadlines that middleware set.
func (p *poison) publish(ctx context.Context, msg *message.Message, body message.Payload, cause error) error {
	out := handlers.Forward(msg)
	out.Payload = body
	for key := range out.Metadata { // of an earlier time, if the message was taken from a poison queue
		if strings.HasPrefix(key, prefix) || strings.HasPrefix(key, transports.HeaderPrefix+prefix) {
			delete(out.Metadata, key)
		}
	}
	set := func(key, value string) {
		if value != "" {
			out.Metadata[prefix+key] = value
		}
	}
	set("cause", clip(cause.Error()))
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

// clip makes a header of an error's text.
func clip(s string) string {
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
