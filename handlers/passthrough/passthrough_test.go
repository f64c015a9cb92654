package passthrough

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

func example() *message.Message {
	msg := message.NewMessage("id", []byte("\x00\xff any bytes"))
	msg.Metadata = message.Metadata{
		transports.MessageID: "id", transports.Device: "d", transports.CorrelationID: "c", transports.Type: "event", "header.Own": "kept",
		transports.Redelivered: "true", transports.Expiration: "5000", "source.exchange": "e", "source.routing_key": "r", "header.x-death": "[]", "header.x-delay": "5",
	}
	return msg
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(&Config{}) }, example())
}

func TestAllButTheBrokersOwnIsKept(t *testing.T) {
	in := example()
	out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(&Config{}), in)
	if err != nil || len(out) != 1 || out[0].UUID != "id" || string(out[0].Payload) != string(in.Payload) {
		t.Fatalf("%v, %v", out, err)
	}
	want := message.Metadata{
		transports.MessageID: "id", transports.Device: "d", transports.CorrelationID: "c", transports.Type: "event", "header.Own": "kept", "header.x-delay": "5",
	}
	if diff := cmp.Diff(want, out[0].Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestOrderIsThatOfTheDevice(t *testing.T) {
	d, err := handlertest.Describe(handlertest.NewHost(t).Build(&Config{}), example())
	if err != nil || d.Key != "d" || d.ID != "id" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestGzipIsKept(t *testing.T) {
	for _, encoding := range []string{"gzip", "br"} {
		msg := handlertest.Gzip(t, handlers.NewMessage([]byte("{}")))
		msg.Metadata[transports.ContentEncoding] = encoding
		out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(&Config{}), msg)
		if err != nil || len(out) != 1 || string(out[0].Payload) != string(msg.Payload) || out[0].Metadata[transports.ContentEncoding] != encoding {
			t.Errorf("%s: %v, %v", encoding, out, err)
		}
	}
}
