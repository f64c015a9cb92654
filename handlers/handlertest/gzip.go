package handlertest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// Gzip returns a copy of msg with a compressed payload and the content_encoding gzip.
func Gzip(t testing.TB, msg *message.Message) *message.Message {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(msg.Payload)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	zipped := msg.Copy()
	zipped.Payload = out.Bytes()
	zipped.Metadata[transports.ContentEncoding] = "gzip"
	return zipped
}
