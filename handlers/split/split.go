// Package split is the handler that makes of one message many: one for each element of a list.
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

// What a part has beside the whole's metadata.
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
		delete(part.Metadata, transports.ContentEncoding) // the whole's; a part was taken out of what was opened
		part.Metadata[wholeKey], part.Metadata[indexKey], part.Metadata[countKey] = id, index, count
		if e.JSON {
			part.Metadata[transports.ContentType] = "application/json"
		} else {
			// What was said of the whole may be wrong of a string in it.
			delete(part.Metadata, transports.ContentType)
		}
		parts[i] = part
	}
	return parts, nil
}

// partID is the id of a part. What doesn't fit into an AMQP property becomes a UUID.
func partID(whole, index string) string {
	if id := whole + "/" + index; len(id) <= device.MaxName {
		return id
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(whole+"\x00"+index)).String()
}
