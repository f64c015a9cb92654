package router

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// newDescribe returns the function that describes a pipeline's messages. If the handler can
// describe messages, the function calls the handler. Otherwise it uses the metadata. The setting
// key of the pipeline overrides the key.
func newDescribe(h handlers.Handler, key string) (func(*message.Message) (handlers.Description, error), error) {
	var d handlers.Describer = byMetadata{}
	if own, ok := h.(handlers.Describer); ok {
		d = own
	}
	describe := d.Describe
	if key == "" {
		return describe, nil
	}
	k := middleware.Key(key)
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("key %q: %w", key, err)
	}
	return func(msg *message.Message) (handlers.Description, error) {
		d, err := describe(msg)
		if err != nil {
			return d, err
		}
		d.Key, err = k.Of(msg)
		return d, err
	}, nil
}

// byMetadata describes messages by their metadata, for handlers that don't describe messages.
type byMetadata struct{}

func (byMetadata) Describe(msg *message.Message) (handlers.Description, error) {
	return handlers.Description{Key: msg.Metadata[transports.Device], ID: msg.Metadata[transports.MessageID]}, nil
}
