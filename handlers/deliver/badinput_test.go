package deliver

import (
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// poison replaces the state of a result in tests of messages without one.
const poison device.State = "poison"

var badInput = []struct {
	name, body string
	state      device.State
	id         string // of the result; "" is a new one
	detail     string // a part of the result's detail or the error
}{
	{"empty body", "", poison, "", "byte 1: the end"},
	{"malformed JSON", `{"id":"i","device":"d","cmd":"open"`, poison, "", "not a JSON object"},
	{"two objects", `{"id":"i","device":"d","cmd":"x"}{}`, poison, "", "expected: the end"},
	{"an array", `[{"id":"i","device":"d","cmd":"x"}]`, poison, "", "not a JSON object"},
	{"a string", `"open"`, poison, "", "not a JSON object"},
	{"null", `null`, poison, "", "not a JSON object"},
	{"binary", "\x00\x01\xfe\xff", poison, "", "not a JSON object"},
	{"a raw NUL in a string", "{\"id\":\"i\",\"device\":\"d\",\"cmd\":\"a\x00b\"}", poison, "", "control character"},
	{"deep nesting", strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000), poison, "", "nested too deep"},

	{"no cmd", `{"id":"i","device":"d"}`, device.StateRejected, "i", "cmd: missing"},
	{"no device", `{"id":"i","cmd":"x"}`, device.StateRejected, "i", "device: missing"},
	{"nothing", `{}`, device.StateRejected, "m", "device: missing"},
	{"cmd of a wrong type", `{"id":"i","device":"d","cmd":["open"]}`, device.StateRejected, "i", "cmd: must be a string"},
	{"device of a wrong type", `{"id":"i","device":10,"cmd":"x"}`, device.StateRejected, "i", "device: must be a string"},
	{"id of a wrong type", `{"id":1,"device":"d","cmd":"x"}`, device.StateRejected, "m", "id: must be a string"},
	{"invalid UTF-8", "{\"id\":\"i\",\"device\":\"d\",\"cmd\":\"\xff\"}", device.StateRejected, "i", "cmd: is not UTF-8"},
	{"duplicate keys", `{"id":"i","device":"d","cmd":"a","cmd":"b"}`, device.StateRejected, "i", "cmd: given twice"},
	{"duplicate ids", `{"id":"i","id":"j","device":"d","cmd":"a"}`, device.StateRejected, "m", "id: given twice"},
	{"an unknown field", `{"id":"i","device":"d","cmd":"a","expire":"1s"}`, device.StateRejected, "i", `"expire": unknown field`},
	{"a group that has no name", `{"id":"i","device":"d","cmd":"a","group":{"all":true}}`, device.StateRejected, "i", "group: must be a string"},
	{"several devices", `{"id":"i","devices":["d"],"cmd":"a"}`, device.StateRejected, "i", "devices: belongs to a command for a group"},
	{"CR in a line", `{"id":"i","device":"d","cmd":"a\rb"}`, device.StateRejected, "i", `cmd: payload cannot be a frame: byte 1 is '\r'`},
	{"LF in a line", `{"id":"i","device":"d","cmd":"a\nb"}`, device.StateRejected, "i", `cmd: payload cannot be a frame: byte 1 is '\n'`},
	{"NUL in a line", `{"id":"i","device":"d","cmd":"a\u0000b"}`, device.StateRejected, "i", `cmd: payload cannot be a frame: byte 1 is '\x00'`},
	{"NUL in hex", `{"id":"i","device":"d","cmd":"00","encoding":"hex"}`, device.StateRejected, "i", "cmd: payload cannot be a frame"},
	{"over the frame", `{"id":"i","device":"d","cmd":"` + strings.Repeat("x", 4097) + `"}`, device.StateRejected, "i", "cmd: payload cannot be a frame: 4097 bytes"},
	{"oversize", `{"id":"i","device":"d","cmd":"` + strings.Repeat("x", 2<<20) + `"}`, device.StateRejected, "i", "bytes long, allowed are"},
	{"no such device name", `{"id":"i","device":"?","cmd":"x"}`, device.StateRejected, "i", "device: not a device of this transport"},
	{"absent device", `{"id":"i","device":"away","cmd":"x"}`, device.StateOffline, "i", "no session"},
	{"no id", `{"device":"d","cmd":"x"}`, device.StateSent, "m", ""},
}

func TestBadInput(t *testing.T) {
	for _, c := range badInput {
		t.Run(c.name, func(t *testing.T) {
			h, d := newHost(t)
			handler := h.Build(&Config{Devices: "devices"})
			out, err := handlertest.Handle(t.Context(), handler, newMessage("m", c.body))
			switch c.state {
			case poison:
				if handlers.KindOf(err) != handlers.KindPermanent || !errors.Is(err, device.ErrMalformed) || !strings.Contains(err.Error(), c.detail) || out != nil {
					t.Errorf("%v, %v", out, err)
				}
			default:
				r := only(t, out, err)
				if r.State != c.state || r.ID != c.id || !strings.Contains(r.Detail, c.detail) {
					t.Errorf("%+v", r)
				}
			}
			if n := len(d.Frames()); n != 0 && (c.state == poison || c.state == device.StateRejected) {
				t.Errorf("%d frames were enqueued", n)
			}
			// The next valid message works.
			out, err = handlertest.Handle(t.Context(), handler, newMessage("good", `{"device":"d","cmd":"x"}`))
			if r := only(t, out, err); r.State != device.StateSent {
				t.Errorf("the next message: %+v", r)
			}
		})
	}
}

func TestBadInputWithoutAnID(t *testing.T) {
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	for _, c := range []struct{ body, messageID, detail string }{
		{`{}`, "", "device: missing"},
		{`{"id":1,"device":"d","cmd":"x"}`, "", `id: must be a string; given as id: "1"`},
		{`{"id":"i","id":"j","device":"d","cmd":"x"}`, "", `id: given twice; given as id: "i", "j"`},
		{`{"id":"` + strings.Repeat("i", 300) + `","device":"d","cmd":"x"}`, "", `allowed are 255; given as id: "` + strings.Repeat("i", 64) + `"...`},
		{`{"id":"a\u0007","device":"d","cmd":"x"}`, "", `has a control character; given as id: "a\a"`},
		{`{"device":"d","cmd":"x"}`, "m\x01", `message_id: has a control character; given as id: "m\x01"`},
		{`{"id":"i","device":"d","cmd":1}`, "", ""}, // has one
	} {
		out, err := handlertest.Handle(t.Context(), handler, newMessage(c.messageID, c.body))
		r := only(t, out, err)
		if c.detail == "" {
			if r.ID != "i" || strings.Contains(r.Detail, "given as id") {
				t.Errorf("%s: %+v", c.body, r)
			}
			continue
		}
		if r.State != device.StateRejected || uuid.Validate(r.ID) != nil || !strings.HasSuffix(r.Detail, c.detail) {
			t.Errorf("%s: %+v", c.body, r)
		}
	}
}

// A message that a host published can come back through a binding for all keys. It must have no
// result, because that would come back, too, for ever.
func TestWhatIsNoCommand(t *testing.T) {
	h, d := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	sent, err := handlertest.Handle(t.Context(), handler, newMessage("m", `{"device":"d","cmd":"x"}`))
	only(t, sent, err)
	event := message.NewMessage("e", []byte(`{"event_id":"e","type":"connected","device":"d","online":true}`))
	event.Metadata[transports.Type] = device.TypeEvent
	for _, msg := range []*message.Message{sent[0], event} {
		if out, err := handlertest.Handle(t.Context(), handler, msg); handlers.KindOf(err) != handlers.KindDrop || len(out) != 0 {
			t.Errorf("%s: %v, %v", msg.Payload, out, err)
		}
		if out, err := handler.(handlers.Refuser).Refuse(t.Context(), msg, handlers.ReasonStalled); handlers.KindOf(err) != handlers.KindDrop || len(out) != 0 {
			t.Errorf("%s refused: %v, %v", msg.Payload, out, err)
		}
	}
	// A valid command is accepted with any message type.
	odd := newMessage("o", `{"device":"d","cmd":"y"}`)
	odd.Metadata[transports.Type] = device.TypeEvent
	out, err := handlertest.Handle(t.Context(), handler, odd)
	if r := only(t, out, err); r.State != device.StateSent || len(d.Frames()) != 2 {
		t.Errorf("%+v, frames %v", r, d.Frames())
	}
}

func FuzzDeliver(f *testing.F) {
	for _, c := range badInput {
		if len(c.body) < 10_000 {
			f.Add("m", []byte(c.body))
		}
	}
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		h, d := newHost(t)
		handler := h.Build(&Config{Devices: "devices"})
		out, err := handlertest.Handle(t.Context(), handler, newMessage(id, string(body)))
		if err != nil {
			if handlers.KindOf(err) != handlers.KindPermanent || len(out) != 0 || len(d.Frames()) != 0 {
				t.Fatalf("%v, %v, frames %v", out, err, d.Frames())
			}
			return
		}
		r := only(t, out, nil)
		if r.ID == "" || (r.State == device.StateRejected) != (r.Detail != "" && len(d.Frames()) == 0 && r.State != device.StateExpired) {
			t.Fatalf("%+v, frames %v", r, d.Frames())
		}
	})
}

func TestGzip(t *testing.T) {
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	msg := newMessage("m", `{"device":"10.0.0.7","cmd":"open"}`)
	if d, err := handlertest.Describe(handler, handlertest.Gzip(t, msg)); err != nil || d.Key == "" || d.ID != "m" {
		t.Errorf("%+v, %v", d, err)
	}
	msg.Metadata[transports.ContentEncoding] = "gzip" // which it isn't
	if _, err := handlertest.Handle(t.Context(), handler, msg); handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), "opening the gzip payload") {
		t.Error(err)
	}
}
