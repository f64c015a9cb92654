package transports

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
)

// MaxBody is how many bytes a compressed payload may have when it is opened.
const MaxBody = 16 << 20

// The errors of a payload that [Body] doesn't open. The same message always gets the same one.
var (
	ErrEncoding = errors.New("allowed: gzip, identity")
	ErrTooLarge = fmt.Errorf("opened, the payload has more than %d bytes", MaxBody)
)

// Body returns the payload for a reader of its content: as its content_encoding says, opened if that is
// gzip. It is the one place that does so. A caller that only sends a message on leaves the payload and its
// content_encoding as they are. The message isn't changed; without an encoding Body returns its payload.
func Body(msg *message.Message) ([]byte, error) {
	switch encoding := msg.Metadata[ContentEncoding]; strings.ToLower(encoding) {
	case "", "identity", "utf-8", "utf8", "us-ascii", "ascii": // clients of AMQP, such as Celery, name the charset
		return msg.Payload, nil
	case "gzip", "x-gzip": // RFC 9110 has them mean the same
	default:
		return nil, fmt.Errorf("content_encoding is %.100q: %w", encoding, ErrEncoding)
	}
	r, err := gzip.NewReader(bytes.NewReader(msg.Payload))
	if err != nil {
		return nil, fmt.Errorf("opening the gzip payload: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r, MaxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("opening the gzip payload: %w", err)
	case len(body) > MaxBody:
		return nil, fmt.Errorf("opening the gzip payload: %w", ErrTooLarge)
	}
	return body, nil
}
