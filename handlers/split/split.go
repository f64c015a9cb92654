// Package split is the handler that produces one message for each element of a list in a message.
// In the code, "the whole" is the message that the handler takes, and its "parts" are the messages
// that the handler produces.
package split

import (
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// The metadata that a part has in addition to the whole's.
const (
	wholeKey = "split.id"
	indexKey = "split.index"
	countKey = "split.count"
)

type splitter struct {
	env   *expression.Environment
	items *expression.Program
	most  int
}

// Handle produces a message for each element.
func (s *splitter) Handle(msg *message.Message) ([]*message.Message, error) {
	elements, err := s.items.List(s.env.Message(msg), s.most)
	if err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	id := msg.Metadata[transports.MessageID]
	if id == "" {
		id = msg.UUID
	}
	count := strconv.Itoa(len(elements))
	parts := make([]*message.Message, len(elements))
	for i, e := range elements {
		part := handlers.Forward(msg)
		index := strconv.Itoa(i + 1)
		part.UUID, part.Payload = partID(id, index), e.Data
		part.Metadata[transports.MessageID] = part.UUID
		// The part is taken from the decompressed payload.
		delete(part.Metadata, transports.ContentEncoding)
		part.Metadata[wholeKey], part.Metadata[indexKey], part.Metadata[countKey] = id, index, count
		if e.JSON {
			part.Metadata[transports.ContentType] = "application/json"
		} else {
			// The content type of the whole may be wrong for a string in it.
			delete(part.Metadata, transports.ContentType)
		}
		parts[i] = part
	}
	return parts, nil
}

// partID returns the id of a part. An id that is too long for an AMQP property is replaced by a
// UUID.
func partID(whole, index string) string {
	if id := whole + "/" + index; len(id) <= device.MaxName {
		return id
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(whole+"\x00"+index)).String()
}
