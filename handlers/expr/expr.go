// Package expr is the handler that filters and changes messages with expressions.
package expr

import (
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
	"github.com/pentrough/pentrough/transports"
)

// setting is a key of the metadata with the expression for its value.
type setting struct {
	key   string
	value *expression.Program
}

type mapper struct {
	env *expression.Environment
	// when is nil if all messages are sent on. payload is nil if the payload isn't changed.
	when, payload *expression.Program
	strict        bool
	metadata      []setting
	remove        []string
}

var errUnwanted = errors.New("when is false")

// Handle returns the changed message, or an error if it isn't sent on.
func (m *mapper) Handle(msg *message.Message) ([]*message.Message, error) {
	in := m.env.Message(msg)
	if m.when != nil {
		wanted, err := m.when.Bool(in)
		switch {
		case err != nil:
			return nil, fmt.Errorf("when: %w", err)
		case !wanted && m.strict:
			return nil, handlers.Permanent(errUnwanted)
		case !wanted:
			return nil, handlers.Drop(errUnwanted)
		}
	}
	out := handlers.Forward(msg)
	for _, key := range m.remove {
		delete(out.Metadata, key)
	}
	if m.payload != nil {
		data, isJSON, err := m.payload.Body(in)
		if err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		out.Payload = data
		// The encoding was that of the old payload.
		delete(out.Metadata, transports.ContentEncoding)
		if isJSON {
			out.Metadata[transports.ContentType] = "application/json"
		}
	}
	for _, s := range m.metadata {
		if err := s.apply(in, out); err != nil {
			return nil, fmt.Errorf("metadata %s: %w", s.key, err)
		}
	}
	return []*message.Message{out}, nil
}

// apply sets the key in the metadata of out, or removes it if the value is nil.
func (s setting) apply(in *expression.Input, out *message.Message) error {
	text, ok, err := s.value.Text(in)
	if err != nil {
		return err
	}
	if s.key == transports.MessageID {
		if text == "" {
			return handlers.Permanent(errors.New("a message needs an id"))
		}
		out.UUID = text
	}
	if !ok {
		delete(out.Metadata, s.key)
		return nil
	}
	out.Metadata[s.key] = text
	return nil
}
