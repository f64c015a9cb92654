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

// MaxBody is how many bytes a compressed payload may have once it is decompressed.
const MaxBody = 16 << 20

// The errors of a payload that [Body] doesn't open. The same message always gets the same one.
var (
	ErrEncoding = errors.New("allowed: gzip, identity")
	ErrTooLarge = fmt.Errorf("it has more than %d bytes", MaxBody)

	errCutOff  = errors.New("a gzip member is cut off")
	errNotGzip = errors.New("content_encoding says gzip and the payload isn't gzip")
)

// Body returns the payload for a reader of its content, decompressed if its content_encoding is
// gzip. It doesn't change the message. A caller that only sends a message on leaves the payload
// and its content_encoding as they are.
func Body(msg *message.Message) ([]byte, error) {
	switch encoding := msg.Metadata[ContentEncoding]; strings.ToLower(encoding) {
	case "", "identity", "utf-8", "utf8", "us-ascii", "ascii": // clients of AMQP, such as Celery, name the charset
		return msg.Payload, nil
	case "gzip", "x-gzip": // RFC 9110 has them mean the same
	default:
		return nil, fmt.Errorf("content_encoding is %.100q: %w", encoding, ErrEncoding)
	}
	body, err := gunzip(msg.Payload)
	if err != nil {
		return nil, fmt.Errorf("opening the gzip payload: %w", err)
	}
	return body, nil
}

func gunzip(payload []byte) ([]byte, error) {
	var body []byte
	r, err := gzip.NewReader(bytes.NewReader(payload))
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(r, MaxBody+1))
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCutOff
	case r == nil && errors.Is(err, gzip.ErrHeader):
		return nil, errNotGzip
	case err != nil:
		return nil, err
	case len(body) > MaxBody:
		return nil, ErrTooLarge
	}
	return body, nil
}
