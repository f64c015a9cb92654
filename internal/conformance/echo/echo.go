// Package echo is the handler "echo". Served as a process, it is the echo plugin of
// docs/process-protocol.md, to which all checks apply.
package echo

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:    "echo",
		Summary: "Answers each message with the same message, or as its metadata say.",
		Config:  func() handlers.Config { return &Config{} },
	})
}

// Config is the configuration of echo.
type Config struct {
	Limit int `toml:"limit" doc:"A number without an effect." min:"0"`
}

// New builds the handler.
func (*Config) New(env handlers.Env) (handlers.Handler, error) { return &echo{env.Logger}, nil }

type echo struct{ log *slog.Logger }

// Handle answers msg.
func (e *echo) Handle(msg *message.Message) ([]*message.Message, error) {
	option := func(key string) string { return msg.Metadata["echo."+key] }
	if option("wait") == "cancel" {
		<-msg.Context().Done()
	}
	if level := option("log"); level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
			return nil, handlers.Permanent(err)
		}
		e.log.Log(msg.Context(), l, string(msg.Payload), "id", msg.UUID)
	}
	if text := option("print"); text != "" {
		fmt.Println(text)
	}
	if kind := option("error"); kind != "" {
		return nil, e.failure(kind, option("retry_after_ms"), string(msg.Payload))
	}
	payload := msg.Payload
	if size := option("size"); size != "" {
		n, err := strconv.Atoi(size)
		if err != nil {
			return nil, handlers.Permanent(err)
		}
		payload = bytes.Repeat([]byte("x"), n)
	}
	copies := 1
	if n := option("copies"); n != "" {
		var err error
		if copies, err = strconv.Atoi(n); err != nil {
			return nil, handlers.Permanent(err)
		}
	}
	var out []*message.Message
	for range copies {
		m := message.NewMessage("", payload)
		m.Metadata = maps.Clone(msg.Metadata)
		if to := option("to"); to != "" {
			handlers.SetDestination(m, handlers.TopicRef(to))
		}
		out = append(out, m)
	}
	return out, nil
}

func (e *echo) failure(kind, after, text string) error {
	err := errors.New(text)
	switch kind {
	case "permanent":
		err = handlers.Permanent(err)
	case "drop":
		err = handlers.Drop(err)
	case "unavailable":
		err = handlers.Unavailable(err)
	}
	ms, _ := strconv.Atoi(after) // a missing number becomes 0: no pause
	return handlers.RetryAfter(err, time.Duration(ms)*time.Millisecond)
}
