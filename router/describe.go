package router

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// describer returns what describes a pipeline's messages: the handler, or their metadata; a key setting overrides the key.
func describer(h handlers.Handler, key string) (func(*message.Message) (handlers.Description, error), error) {
	var d handlers.Describer = byMetadata{}
	if own, ok := h.(handlers.Describer); ok {
		d = own
	}
	describe := d.Describe
	if key == "" {
		return describe, nil
	}
	where, name, _ := strings.Cut(key, ".")
	if name == "" || where != "payload" && where != "metadata" {
		return nil, fmt.Errorf(`key %q: allowed are "payload.FIELD" (dots lead into nested objects) and "metadata.KEY"`, key)
	}
	path := strings.Split(name, ".")
	return func(msg *message.Message) (handlers.Description, error) {
		d, err := describe(msg)
		if err != nil {
			return d, err
		}
		if where == "metadata" {
			d.Key = msg.Metadata[name]
			return d, nil
		}
		d.Key, err = payloadField(msg.Payload, path)
		return d, err
	}, nil
}

// byMetadata describes the messages of a handler that doesn't.
type byMetadata struct{}

func (byMetadata) Describe(msg *message.Message) (handlers.Description, error) {
	return handlers.Description{Key: msg.Metadata[transports.Device], ID: msg.Metadata[transports.MessageID]}, nil
}

// payloadField returns a string, number or bool of a JSON object as text.
func payloadField(payload []byte, path []string) (string, error) {
	raw := json.RawMessage(payload)
	for _, name := range path {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return "", fmt.Errorf("reading key field %s: %w", strings.Join(path, "."), err)
		}
		field, ok := object[name]
		if !ok {
			return "", fmt.Errorf("key field %s is missing", strings.Join(path, "."))
		}
		raw = field
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	if len(raw) > 0 && (raw[0] == '{' || raw[0] == '[') {
		return "", fmt.Errorf("key field %s is not a string or number", strings.Join(path, "."))
	}
	return string(raw), nil
}
