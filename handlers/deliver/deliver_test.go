package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

// newHost returns a host with devices that accept lines. The device "away" is offline.
func newHost(t testing.TB) (*handlertest.Host, *handlertest.Devices) {
	h := handlertest.NewHost(t)
	d := h.Devices("devices")
	d.CanonicalFunc = func(name string) (string, error) {
		if strings.HasPrefix(name, "?") {
			return "", fmt.Errorf("%w: %q is no address", device.ErrDevice, name)
		}
		return strings.TrimPrefix(name, "::ffff:"), nil
	}
	d.CheckFunc = func(payload []byte) error {
		if i := bytes.IndexAny(payload, "\r\n\x00"); i >= 0 {
			return fmt.Errorf("%w: byte %d is %q", device.ErrPayload, i, payload[i])
		}
		if len(payload) > 4096 {
			return fmt.Errorf("%w: %d bytes, allowed are 4096", device.ErrPayload, len(payload))
		}
		return nil
	}
	d.EnqueueFunc = func(name string, _ []byte, _ device.EnqueueOptions) (device.Write, error) {
		if name == "away" {
			return nil, device.ErrOffline
		}
		return handlertest.Ended{Fate: device.Sent, Epoch: 7}, nil
	}
	return h, d
}

func newMessage(id, body string) *message.Message {
	msg := message.NewMessage("delivery", []byte(body))
	if id != "" {
		msg.Metadata[transports.MessageID] = id
	}
	return msg
}

// only returns the one result that was produced.
func only(t testing.TB, out []*message.Message, err error) device.Result {
	t.Helper()
	if err != nil || len(out) != 1 {
		t.Fatalf("%d messages, error %v, want one result", len(out), err)
	}
	r, err := device.ParseResult(out[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	if m := out[0].Metadata; m[transports.Type] != "result" || m[transports.Device] != r.Device {
		t.Errorf("a result with metadata %v", m)
	}
	return r
}

func TestDuties(t *testing.T) {
	examples := []*message.Message{
		newMessage("", `{"address":"10.0.0.7","cmd":"open"}`),
		newMessage("m", `{"id":"i","device":"d","cmd":"6f","encoding":"hex","ttl":5}`),
		newMessage("m", `{"device":"away","cmd":"x"}`),
		newMessage("m", `{}`),
	}
	handlertest.Run(t, func(t *testing.T) handlers.Handler {
		h, _ := newHost(t)
		return h.Build(&Config{Devices: "devices"})
	}, examples...)
}

func TestDelivery(t *testing.T) {
	h, d := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	out, err := handlertest.Handle(t.Context(), handler, newMessage("m", `{"address":"::ffff:10.0.0.7","cmd":"open"}`))
	want := device.Result{ID: "m", Device: "10.0.0.7", State: device.StateSent, Host: "testhost", Epoch: 7, Attempt: 1, Time: handlertest.Start}
	if diff := cmp.Diff(want, only(t, out, err)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]handlertest.Frame{{Device: "10.0.0.7", Payload: "open", Options: device.EnqueueOptions{Epoch: 1, ID: "m"}}}, d.Frames()); diff != "" {
		t.Error(diff)
	}
}

func TestDescription(t *testing.T) {
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	for _, c := range []struct{ id, body, wantKey, wantID string }{
		{"m", `{"device":"::ffff:10.0.0.7","cmd":"x"}`, "10.0.0.7", "m"},
		{"m", `{"device":"10.0.0.7","cmd":"x","id":"i"}`, "10.0.0.7", "i"},
		{"", `{"device":"10.0.0.7","cmd":"x"}`, "10.0.0.7", ""},
		{"m", `{"device":"10.0.0.7"}`, "10.0.0.7", "m"},
		{"m", `{"device":"?","cmd":"x"}`, "", "m"},
		{"m", `{"cmd":"x"}`, "", "m"},
	} {
		got, err := handlertest.Describe(handler, newMessage(c.id, c.body))
		if err != nil || got.Key != c.wantKey || got.ID != c.wantID {
			t.Errorf("%s: %+v, %v", c.body, got, err)
		}
	}
	if got, err := handlertest.Describe(handler, newMessage("m", `[]`)); !errors.Is(err, device.ErrMalformed) {
		t.Errorf("no object: %+v, %v", got, err)
	}
}

func TestAnIDIsMadeOnce(t *testing.T) {
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	msg := newMessage("", `{"device":"d","cmd":"x"}`)
	handlertest.Begin(t.Context(), handler, msg)
	var ids []string
	for range 2 { // as retry does
		out, err := handler.Handle(msg)
		ids = append(ids, only(t, out, err).ID)
	}
	if uuid.Validate(ids[0]) != nil || ids[0] != ids[1] {
		t.Errorf("ids %v", ids)
	}
}

func TestFates(t *testing.T) {
	for _, c := range []struct {
		name    string
		written device.Written
		err     error
		state   device.State
		epoch   uint64
		detail  string
	}{
		{name: "sent", written: device.Written{Fate: device.Sent, Epoch: 9}, state: device.StateSent, epoch: 9},
		{name: "expired", written: device.Written{Fate: device.Expired, Epoch: 9, Detail: "late"}, state: device.StateExpired, epoch: 9, detail: "late"},
		{name: "session ended before", written: device.Written{Fate: device.Offline, Detail: "gone"}, state: device.StateOffline, detail: "gone"},
		{name: "session ended amid", written: device.Written{Fate: device.Unknown, Epoch: 9, Detail: "cut"}, state: device.StateUnknown, epoch: 9, detail: "cut"},
		{name: "superseded", written: device.Written{Fate: device.Superseded, Detail: "newer"}, state: device.StateSuperseded, detail: "newer"},
		{name: "offline", err: device.ErrOffline, state: device.StateOffline, detail: device.ErrOffline.Error()},
		{name: "busy", err: device.ErrBusy, state: device.StateBusy, detail: device.ErrBusy.Error()},
		{name: "payload", err: fmt.Errorf("%w: too long", device.ErrPayload), state: device.StateRejected, detail: "payload cannot be a frame: too long"},
		{name: "no device", err: fmt.Errorf("%w: no address", device.ErrDevice), state: device.StateRejected, detail: "not a device of this transport: no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, d := newHost(t)
			d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
				if c.err != nil {
					return nil, c.err
				}
				return handlertest.Ended(c.written), nil
			}
			handler := h.Build(&Config{Devices: "devices"})
			msg := newMessage("m", `{"device":"d","cmd":"x"}`)
			s := handlertest.Begin(t.Context(), handler, msg)
			out, err := handler.Handle(msg)
			r := only(t, out, err)
			if r.State != c.state || r.Epoch != c.epoch || r.Detail != c.detail || r.ID != "m" || r.Device != "d" {
				t.Errorf("%+v", r)
			}
			if placed := s.Placed(); (placed == 1) != (c.err == nil) {
				t.Errorf("Enqueued was called %d times", placed)
			}
		})
	}
	t.Run("another error", func(t *testing.T) {
		h, d := newHost(t)
		odd := errors.New("odd")
		d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) { return nil, odd }
		out, err := handlertest.Handle(t.Context(), h.Build(&Config{Devices: "devices"}), newMessage("m", `{"device":"d","cmd":"x"}`))
		if !errors.Is(err, odd) || handlers.KindOf(err) != handlers.KindRetryable || out != nil {
			t.Errorf("%v, %v", out, err)
		}
	})
}

func TestTheNextMayStartWhileItWaits(t *testing.T) {
	h, d := newHost(t)
	write := handlertest.NewPending()
	d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) { return write, nil }
	handler := h.Build(&Config{Devices: "devices"})
	msg := newMessage("m", `{"device":"d","cmd":"x"}`)
	s := handlertest.Begin(t.Context(), handler, msg)
	results := make(chan device.Result)
	go func() {
		out, err := handler.Handle(msg)
		results <- only(t, out, err)
	}()
	<-write.Waiting
	if s.Placed() != 1 {
		t.Error("waits without having called Enqueued")
	}
	write.End(device.Written{Fate: device.Sent, Epoch: 3})
	if r := <-results; r.State != device.StateSent || r.Epoch != 3 {
		t.Errorf("%+v", r)
	}
}

// A command whose delivery became void keeps its place in the device's order, because the commands
// behind it keep theirs.
func TestAVoidDeliveryKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, d := newHost(t)
		write := handlertest.NewPending()
		d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) { return write, nil }
		handler := h.Build(&Config{Devices: "devices"})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(transports.ErrVoid) })
		time.AfterFunc(time.Minute, func() { write.End(device.Written{Fate: device.Sent, Epoch: 3}) })
		out, err := handlertest.Handle(ctx, handler, newMessage("m", `{"device":"d","cmd":"x"}`))
		if err != nil || len(out) != 1 || !strings.Contains(string(out[0].Payload), `"state":"sent"`) {
			t.Errorf("got %v, %v; want what the write came to", out, err)
		}
	})
}

// A wait that ends with the run is cancelled, and one that ends with a deadline is retryable.
// Neither has a result.
func TestACancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, d := newHost(t)
		d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
			return handlertest.NewPending(), nil
		}
		handler := h.Build(&Config{Devices: "devices"})

		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("the host is stopping")) })
		msg := newMessage("m", `{"device":"d","cmd":"x"}`)
		out, err := handlertest.Handle(ctx, handler, msg)
		if err == nil || !handlers.Cancelled(msg.Context()) || out != nil {
			t.Errorf("a stop: %v, %v", out, err)
		}

		msg = newMessage("m", `{"device":"d","cmd":"x"}`)
		handlertest.Begin(t.Context(), handler, msg)
		deadline, end := context.WithTimeoutCause(msg.Context(), time.Second, errors.New("took too long"))
		defer end()
		msg.SetContext(deadline)
		out, err = handler.Handle(msg)
		if err == nil || !strings.Contains(err.Error(), "took too long") || handlers.KindOf(err) != handlers.KindRetryable || handlers.Cancelled(deadline) || out != nil {
			t.Errorf("a deadline: %v, %v", out, err)
		}
	})
}

func TestExpiry(t *testing.T) {
	start := handlertest.Start
	for _, c := range []struct {
		name, body string
		timestamp  string
		expiration string
		expires    time.Time
		handled    time.Duration // after it was received
		state      device.State
	}{
		{name: "expiration", body: `{"device":"d","cmd":"x"}`, expiration: "30000", expires: start.Add(30 * time.Second), handled: 29 * time.Second, state: device.StateSent},
		{name: "expiration is over", body: `{"device":"d","cmd":"x","ttl":"1h"}`, expiration: "30000", handled: 30 * time.Second, state: device.StateExpired},
		{
			name: "expiration from the timestamp", body: `{"device":"d","cmd":"x"}`, expiration: "30000", timestamp: start.Add(-20 * time.Second).Format(time.RFC3339),
			expires: start.Add(10 * time.Second), state: device.StateSent,
		},
		{name: "ttl before expiration", body: `{"device":"d","cmd":"x","ttl":"10s"}`, expiration: "30000", expires: start.Add(10 * time.Second), state: device.StateSent},
		{
			name: "expires_at before expiration", body: `{"device":"d","cmd":"x","expires_at":"2026-05-01T12:00:01Z"}`, expiration: "30000",
			expires: start.Add(time.Second), state: device.StateSent,
		},
		{
			name: "expiration before expires_at", body: `{"device":"d","cmd":"x","expires_at":"2026-05-01T12:00:01Z"}`, expiration: "500",
			expires: start.Add(time.Second / 2), state: device.StateSent,
		},
		{name: "expiration of none", body: `{"device":"d","cmd":"x"}`, expiration: "0", handled: time.Hour, state: device.StateSent},
		{name: "never", body: `{"device":"d","cmd":"x"}`, handled: time.Hour, state: device.StateSent},
		{name: "ttl from receipt", body: `{"device":"d","cmd":"x","ttl":"30s"}`, expires: start.Add(30 * time.Second), handled: 29 * time.Second, state: device.StateSent},
		{name: "ttl from receipt is over", body: `{"device":"d","cmd":"x","ttl":30}`, handled: 30 * time.Second, state: device.StateExpired},
		{
			name: "ttl from the timestamp", body: `{"device":"d","cmd":"x","ttl":30}`, timestamp: start.Add(-20 * time.Second).Format(time.RFC3339Nano),
			expires: start.Add(10 * time.Second), handled: time.Second, state: device.StateSent,
		},
		{
			name: "ttl from the timestamp is over", body: `{"device":"d","cmd":"x","ttl":30}`, timestamp: start.Add(-time.Minute).Format(time.RFC3339),
			state: device.StateExpired,
		},
		{name: "expires_at", body: `{"device":"d","cmd":"x","expires_at":"2026-05-01T12:00:01Z"}`, expires: start.Add(time.Second), state: device.StateSent},
		{name: "expires_at is over", body: `{"device":"d","cmd":"x","expires_at":"2026-05-01T12:00:00Z"}`, state: device.StateExpired},
		{name: "over and offline", body: `{"device":"away","cmd":"x","expires_at":"2020-05-01T12:00:00Z"}`, state: device.StateExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, d := newHost(t)
			handler := h.Build(&Config{Devices: "devices"})
			msg := newMessage("m", c.body)
			if c.timestamp != "" {
				msg.Metadata[transports.Timestamp] = c.timestamp
			}
			if c.expiration != "" {
				msg.Metadata[transports.Expiration] = c.expiration
			}
			handlertest.Begin(t.Context(), handler, msg)
			h.Advance(c.handled)
			out, err := handler.Handle(msg)
			if r := only(t, out, err); r.State != c.state {
				t.Errorf("%+v", r)
			}
			if c.state == device.StateExpired {
				if len(d.Frames()) != 0 {
					t.Errorf("enqueued %v", d.Frames())
				}
			} else if got := d.Frames()[0].Options.Expires; !got.Equal(c.expires) {
				t.Errorf("enqueued to expire at %v, want %v", got, c.expires)
			}
		})
	}
}

func TestPriorities(t *testing.T) {
	for _, c := range []struct {
		setting    bool
		body, amqp string
		want       int
		rejected   bool
	}{
		{false, `{"device":"d","cmd":"x"}`, "5", 0, false},
		{false, `{"device":"d","cmd":"x","priority":0}`, "5", 0, false},
		{false, `{"device":"d","cmd":"x","priority":1}`, "", 0, true},
		{true, `{"device":"d","cmd":"x"}`, "", 0, false},
		{true, `{"device":"d","cmd":"x"}`, "5", 5, false},
		{true, `{"device":"d","cmd":"x"}`, "255", 9, false},
		{true, `{"device":"d","cmd":"x","priority":9}`, "5", 9, false},
	} {
		h, d := newHost(t)
		handler := h.Build(&Config{Devices: "devices", Priority: c.setting})
		msg := newMessage("m", c.body)
		if c.amqp != "" {
			msg.Metadata[transports.Priority] = c.amqp
		}
		desc, err := handler.(handlers.Describer).Describe(msg)
		if err != nil || desc.Priority != c.want {
			t.Errorf("%+v: orderFor as %+v, %v", c, desc, err)
		}
		out, err := handlertest.Handle(t.Context(), handler, msg)
		if r := only(t, out, err); (r.State == device.StateRejected) != c.rejected || !c.rejected && d.Frames()[0].Options.Priority != c.want {
			t.Errorf("%+v: %+v, enqueued %+v", c, r, d.Frames())
		}
	}
}

func TestWhatACommandSets(t *testing.T) {
	for _, c := range []struct{ setting, body, want string }{
		{"", `{"device":"d","cmd":"x"}`, ""},
		{"", `{"device":"d","cmd":"x","supersede":"temperature"}`, "temperature"},
		{"setpoint", `{"device":"d","cmd":"x","setpoint":"temperature"}`, "temperature"},
	} {
		h, d := newHost(t)
		out, err := handlertest.Handle(t.Context(), h.Build(&Config{Devices: "devices", Supersede: c.setting}), newMessage("m", c.body))
		if r := only(t, out, err); r.State != device.StateSent || d.Frames()[0].Options.Supersede != c.want {
			t.Errorf("%+v: %+v, enqueued %+v", c, r, d.Frames())
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		body   string
		reason handlers.Reason
		state  device.State
		detail string
	}{
		{`{"device":"d","cmd":"x"}`, handlers.ReasonStalled, device.StateBusy, string(handlers.ReasonStalled)},
		{`{"device":"d","cmd":"x"}`, handlers.ReasonAckDeadline, device.StateBusy, string(handlers.ReasonAckDeadline)},
		{`{"device":"d","cmd":"x"}`, handlers.ReasonIDReused, device.StateRejected, "id reused"},
		{`{"device":"d"}`, handlers.ReasonStalled, device.StateRejected, "cmd: missing"},
	} {
		h, d := newHost(t)
		handler := h.Build(&Config{Devices: "devices"})
		msg := newMessage("m", c.body)
		s := handlertest.Begin(t.Context(), handler, msg)
		out, err := s.Refuse(msg, c.reason)
		if r := only(t, out, err); r.State != c.state || r.Detail != c.detail || r.ID != "m" || r.Device != "d" {
			t.Errorf("%s, %s: %+v", c.body, c.reason, r)
		}
		if len(d.Frames()) != 0 {
			t.Errorf("enqueued %v", d.Frames())
		}
	}
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	msg := newMessage("m", "[]")
	if out, err := handlertest.Begin(t.Context(), handler, msg).Refuse(msg, handlers.ReasonStalled); handlers.KindOf(err) != handlers.KindPermanent {
		t.Errorf("nobody to answer: %v, %v", out, err)
	}
}

func TestConfig(t *testing.T) {
	if err := (&Config{Timeout: time.Second}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "devices: ") {
		t.Error(err)
	}
	good := defaults
	good.Devices = "devices"
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := (&Config{Devices: "none"}).New(handlertest.NewHost(t).Env()); err == nil {
		t.Error("built without devices")
	}
}

func BenchmarkDeliver(b *testing.B) {
	h := handlertest.NewHost(b)
	h.Devices("devices").EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
		return handlertest.Ended{Fate: device.Sent}, nil
	}
	handler := &deliver{devices: forgetful{h.Devices("devices")}, env: h.Env(), results: h.Build(&Config{Devices: "devices"}).(*deliver).results}
	body := []byte(`{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","address":"127.3.4.5","cmd":"SET relay 4 on","ttl":"30s"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := handlertest.Handle(context.Background(), handler, message.NewMessage("id", body)); err != nil {
			b.Fatal(err)
		}
	}
}

// forgetful is a fake that doesn't record frames.
type forgetful struct{ *handlertest.Devices }

func (f forgetful) Enqueue(name string, payload []byte, o device.EnqueueOptions) (device.Write, error) {
	return f.EnqueueFunc(name, payload, o)
}
