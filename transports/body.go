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

// MaxBody is the most bytes that a compressed payload may have after decompression.
const MaxBody = 16 << 20

// The errors of [Body] for a payload that it can't decompress. The same message always gets the
// same error.
var (
	ErrEncoding = errors.New("allowed are gzip and identity")
	ErrTooLarge = fmt.Errorf("it has more than %d bytes", MaxBody)

	errCutOff  = errors.New("a gzip member is cut off")
	errNotGzip = errors.New("content_encoding is gzip, but the payload isn't")
)

// Body returns the payload for a reader of its content. If content_encoding is gzip, it
// decompresses the payload. It doesn't change the message. A caller that only passes a message on
// uses the payload as it is.
func Body(msg *message.Message) ([]byte, error) {
	switch encoding := msg.Metadata[ContentEncoding]; strings.ToLower(encoding) {
	case "", "identity", "utf-8", "utf8", "us-ascii", "ascii": // Celery puts the charset here
		return msg.Payload, nil
	case "gzip", "x-gzip": // the same by RFC 9110
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
