package command

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func newMessage(id, body string) *message.Message {
	msg := message.NewMessage("request", []byte(body))
	if id != "" {
		msg.Metadata[transports.MessageID] = id
	}
	return msg
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(&Config{}) },
		newMessage("", `{"address":"10.0.0.7","cmd":"open"}`),
		newMessage("m", `{"device":"d","cmd":"6f","encoding":"hex","ttl":5}`),
	)
}

func TestCompleted(t *testing.T) {
	for _, c := range []struct{ name, id, body, want string }{
		{"the message's id", "m", `{"address":"10.0.0.7","cmd":"open"}`, `{"id":"m","device":"10.0.0.7","cmd":"open"}`},
		{"its own id", "m", `{"cmd":"open","device":"d","id":"i","reply":false}`, `{"id":"i","device":"d","cmd":"open","reply":false}`},
		{"a question", "m", `{"timeout":3,"reply":true,"cmd":"open","device":"d","supersede":"lock"}`, `{"id":"m","device":"d","cmd":"open","supersede":"lock","reply":true,"timeout":"3s"}`},
		{"a ttl", "m", `{"cmd":"\u006fpen","device":"d","ttl":90}`, `{"id":"m","device":"d","cmd":"open","ttl":"1m30s"}`},
		{
			"expires_at", "m", `{"cmd":"6F","encoding":"hex","device":"d","expires_at":"2026-05-01T12:00:00.5+02:00"}`,
			`{"id":"m","device":"d","cmd":"6f","encoding":"hex","expires_at":"2026-05-01T12:00:00.5+02:00"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handlertest.NewHost(t)
			handler := h.Build(&Config{})
			first, err := handlertest.Handle(t.Context(), handler, newMessage(c.id, c.body))
			if err != nil || len(first) != 1 {
				t.Fatalf("%v, %v", first, err)
			}
			if diff := cmp.Diff(c.want, string(first[0].Payload)); diff != "" {
				t.Error(diff)
			}
			sent, err := device.ParseCommand(first[0].Payload, "")
			if err != nil {
				t.Fatal(err)
			}
			want := message.Metadata{
				transports.MessageID: sent.ID, transports.Type: "command", transports.ContentType: "application/json", transports.Device: sent.Device,
				transports.Timestamp: handlertest.Start.Format(time.RFC3339Nano),
			}
			if diff := cmp.Diff(want, first[0].Metadata); diff != "" {
				t.Error(diff)
			}
			// Repeated later, it is the same command.
			h.Advance(time.Minute)
			again, err := handlertest.Handle(t.Context(), handler, newMessage(c.id, c.body))
			if err != nil || string(again[0].Payload) != string(first[0].Payload) || again[0].UUID != first[0].UUID {
				t.Errorf("again: %v, %v", again, err)
			}
		})
	}
}

func TestANewID(t *testing.T) {
	handler := handlertest.NewHost(t).Build(&Config{})
	out, err := handlertest.Handle(t.Context(), handler, newMessage("", `{"address":"10.0.0.7","cmd":"open"}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := device.ParseCommand(out[0].Payload, "")
	if err != nil || uuid.Validate(c.ID) != nil || out[0].UUID != c.ID || out[0].Metadata[transports.MessageID] != c.ID {
		t.Errorf("%+v, %v, message %s", c, err, out[0].UUID)
	}
}

func TestDescription(t *testing.T) {
	handler := handlertest.NewHost(t).Build(&Config{})
	d, err := handlertest.Describe(handler, newMessage("m", `{"address":"10.0.0.7","cmd":"open"}`))
	if err != nil || d.Key != "10.0.0.7" || d.ID != "m" {
		t.Errorf("%+v, %v", d, err)
	}
	for body, key := range map[string]string{"{}": "", `{"device":"d"}`: "d", `{"id":1,"device":"d"}`: "d"} {
		if d, err := handlertest.Describe(handler, newMessage("m", body)); err != nil || d.Key != key || d.ID != "m" {
			t.Errorf("%q described as %+v, %v", body, d, err)
		}
	}
	for _, body := range []string{"", "open"} {
		if d, err := handlertest.Describe(handler, newMessage("m", body)); err == nil {
			t.Errorf("%q described as %+v", body, d)
		}
	}
}

func TestBadCommands(t *testing.T) {
	handler := handlertest.NewHost(t).Build(&Config{})
	for body, want := range map[string]string{
		"":                                       "not a JSON object",
		"open":                                   "not a JSON object",
		`{"device":"d"}`:                         "cmd: missing",
		`{"cmd":"x"}`:                            "device: missing",
		`{"device":"d","cmd":1}`:                 "cmd: must be a string",
		`{"device":"d","cmd":"x","cmd":"y"}`:     "cmd: given twice",
		"{\"device\":\"d\",\"cmd\":\"\xff\"}":    "cmd: is not UTF-8",
		`{"device":"d","cmd":"x","offline":"h"}`: "offline: ",
		`{"device":"d","cmd":"x","tll":1}`:       `"tll": unknown field`,
		`{"device":"d","cmd":"` + strings.Repeat("x", device.MaxCommand) + `"}`: "bytes long",
	} {
		out, err := handlertest.Handle(t.Context(), handler, newMessage("m", body))
		if handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), want) || out != nil {
			t.Errorf("%.80q: %v, %v, want a permanent error with %q", body, out, err, want)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add("m", []byte(`{"address":"10.0.0.7","cmd":"open"}`))
	f.Add("", []byte(`{"device":"d","cmd":"6F","encoding":"hex","ttl":1.5}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(&Config{}), newMessage(id, string(body)))
		if err != nil {
			if handlers.KindOf(err) != handlers.KindPermanent {
				t.Fatal(err)
			}
			return
		}
		in, err := device.ParseCommand(body, id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := device.ParseCommand(out[0].Payload, "")
		if err != nil {
			t.Fatalf("wrote %s: %v", out[0].Payload, err)
		}
		if in.ID == "" {
			in.ID = got.ID
		}
		if !in.ExpiresAt.Equal(got.ExpiresAt) {
			t.Fatalf("expires %v, was %v", got.ExpiresAt, in.ExpiresAt)
		}
		in.ExpiresAt = got.ExpiresAt
		if diff := cmp.Diff(in, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestGzip(t *testing.T) {
	handler := handlertest.NewHost(t).Build(&Config{})
	plain := newMessage("m", `{"device":"d","cmd":"open"}`)
	want, err := handlertest.Handle(t.Context(), handler, plain)
	if err != nil {
		t.Fatal(err)
	}
	out, err := handlertest.Handle(t.Context(), handler, handlertest.Gzip(t, plain))
	if err != nil || len(out) != 1 || string(out[0].Payload) != string(want[0].Payload) || out[0].Metadata[transports.ContentEncoding] != "" {
		t.Errorf("%v, %v", out, err)
	}
	plain.Metadata[transports.ContentEncoding] = "br"
	if _, err := handlertest.Handle(t.Context(), handler, plain); handlers.KindOf(err) != handlers.KindPermanent || !errors.Is(err, transports.ErrEncoding) || !errors.Is(err, device.ErrMalformed) {
		t.Error(err)
	}
}
