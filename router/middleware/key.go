package middleware

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
)

// Key says where the key of a message is: "payload.FIELD" of a JSON payload, where further dots
// lead into nested objects, or "metadata.KEY". The zero value means the key of the message's lane.
type Key string

const (
	keyPayload  = "payload"
	keyMetadata = "metadata"
)

// Validate returns an error if k isn't a valid key.
func (k Key) Validate() error {
	where, name := k.split()
	switch {
	case k == "":
		return nil
	case name == "", where != keyPayload && where != keyMetadata, where == keyPayload && strings.Contains("."+name+".", ".."):
		return errors.New(`allowed are "payload.FIELD" (dots lead into nested objects) and "metadata.KEY"`)
	}
	return nil
}

// Of returns the key of a message: a string, number or bool as text. The key of missing metadata
// is "".
func (k Key) Of(msg *message.Message) (string, error) {
	if k == "" {
		return handlers.Described(msg.Context()).Key, nil
	}
	where, name := k.split()
	if where == keyMetadata {
		return msg.Metadata[name], nil
	}
	body, err := transports.Body(msg)
	if err != nil {
		return "", fmt.Errorf("reading key field %s: %w", name, err)
	}
	value, found, err := jsontext.Find(body, strings.Split(name, "."))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading key field %s: %w", name, err)
	case found <= strings.Count(name, "."):
		return "", fmt.Errorf("key field %s is missing", name)
	}
	switch value.Kind {
	case '{', '[':
		return "", fmt.Errorf("key field %s isn't a string or number", name)
	case '"':
		text, err := value.Text()
		return string(text), err
	case 'n':
		return "", nil
	default:
		return string(value.Raw), nil
	}
}

func (k Key) split() (where, name string) {
	where, name, _ = strings.Cut(string(k), ".")
	return where, name
}
