package fanout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

const commands = handlers.TopicRef("broker:commands")

// newHost returns a host with addresses as devices. The inventory lists some of them.
func newHost(t testing.TB) *handlertest.Host {
	h := handlertest.NewHost(t)
	h.Devices("devices").CanonicalFunc = func(name string) (string, error) {
		if strings.HasPrefix(name, "?") {
			return "", fmt.Errorf("%w: %q is no address", device.ErrDevice, name)
		}
		return strings.TrimPrefix(name, "::ffff:"), nil
	}
	h.Inventory("devices").List(map[string]map[string]string{
		"n1": {"site": "north", "kind": "lock"}, "n2": {"site": "north"}, "s1": {"site": "south", "kind": "lock"}, "x": nil,
	})
	return h
}

func config(change func(*Config)) *Config {
	c := defaults
	c.To, c.Devices = commands, "devices"
	if change != nil {
		change(&c)
	}
	return &c
}

func newMessage(body string) *message.Message {
	msg := message.NewMessage("delivery", []byte(body))
	msg.Metadata[transports.MessageID] = "m"
	return msg
}

// report returns the one report that was produced.
func report(t testing.TB, out []*message.Message, err error) device.GroupReport {
	t.Helper()
	if err != nil || len(out) != 1 || out[0].Metadata[transports.Type] != "group" {
		t.Fatalf("%v, %v, want one report", out, err)
	}
	r, err := device.ParseGroupReport(out[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// published returns the published commands by device.
func published(t testing.TB, msgs []*message.Message) map[string]device.Command {
	t.Helper()
	all := map[string]device.Command{}
	for _, msg := range msgs {
		c, err := device.ParseCommand(msg.Payload, "")
		if err != nil {
			t.Fatal(err)
		}
		all[c.Device] = c
	}
	return all
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return newHost(t).Build(config(nil)) },
		newMessage(`{"id":"1","devices":["a","b"],"cmd":"x"}`), newMessage(`{"labels":{"site":"north"},"cmd":"x"}`), newMessage(`{"all":true}`))
}

func TestSelections(t *testing.T) {
	for selection, want := range map[string][]string{
		`"devices":["b","::ffff:a","a","b"]`:      {"b", "a"},
		`"labels":{"site":"north"}`:               {"n1", "n2"},
		`"labels":{"site":"north","kind":"lock"}`: {"n1"},
		`"all":true`:               {"n1", "n2", "s1", "x"},
		`"devices":["not-listed"]`: {"not-listed"},
	} {
		host := newHost(t)
		out, err := handlertest.Handle(t.Context(), host.Build(config(nil)), newMessage(`{"id":"i",`+selection+`,"cmd":"x"}`))
		r := report(t, out, err)
		if diff := cmp.Diff(device.GroupReport{
			ID: "i", Group: "i", State: device.GroupExpanded, Devices: len(want), Host: "testhost", Time: handlertest.Start,
		}, r); diff != "" {
			t.Errorf("%s: %s", selection, diff)
		}
		var got []string
		for _, msg := range host.Published(commands) {
			got = append(got, msg.Metadata[transports.Device])
			if msg.UUID != "i/"+msg.Metadata[transports.Device] || msg.Metadata[transports.MessageID] != msg.UUID {
				t.Errorf("%s: message %s of %v", selection, msg.UUID, msg.Metadata)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", selection, diff)
		}
	}
}

// Each of the commands has all fields of a command for one device.
func TestCommandsHaveAllFields(t *testing.T) {
	host := newHost(t)
	msg := newMessage(`{"id":"i","group":"north","devices":["a","b"],"cmd":"ff","encoding":"hex","ttl":"30s","reply":true,"timeout":"1s","mode":"at-most-once",` +
		`"setpoint":"temperature","offline":"hold","priority":3}`)
	msg.Metadata[transports.CorrelationID], msg.Metadata[transports.TraceParent], msg.Metadata[transports.ReplyTo] = "c", "00-trace", "asker"
	msg.Metadata[transports.Timestamp], msg.Metadata[transports.Priority] = "2026-05-01T11:59:59Z", "7"
	msg.Metadata[transports.Expiration] = "20000"
	out, err := handlertest.Handle(t.Context(), host.Build(config(func(c *Config) { c.Supersede, c.Results = "setpoint", "broker:results" })), msg)
	if r := report(t, out, err); r.Group != "north" || r.ID != "i" || handlers.Destination(out[0]) != "broker:results" {
		t.Errorf("%+v to %s", r, handlers.Destination(out[0]))
	}
	sent := host.Published(commands)
	for name, got := range published(t, sent) {
		if diff := cmp.Diff(device.Command{
			ID: "i", Device: name, Group: "north", Payload: []byte{0xff}, Encoding: device.Hex, TTL: 20 * time.Second, Reply: device.Yes, Timeout: time.Second,
			Mode: device.AtMostOnce, Supersede: "temperature", Offline: device.Hold, Priority: 3,
		}, got); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(message.Metadata{
		transports.MessageID: "i/a", transports.Type: "command", transports.ContentType: "application/json", transports.Device: "a",
		transports.CorrelationID: "c", transports.TraceParent: "00-trace", transports.Timestamp: "2026-05-01T11:59:59Z", transports.Priority: "7",
	}, sent[0].Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestLifetimes(t *testing.T) {
	for _, c := range []struct {
		field, expiration string
		ttl               time.Duration
		property          string
	}{
		{``, "", 0, ""},
		{``, "1000", time.Second, ""},
		{`"ttl":5,`, "10000", 5 * time.Second, ""},
		{`"ttl":5,`, "0", 5 * time.Second, ""},
		{`"expires_at":"2026-05-01T12:00:00Z",`, "1000", 0, "1000"},
		{`"expires_at":"2026-05-01T12:00:00Z",`, "soon", 0, ""},
	} {
		host := newHost(t)
		msg := newMessage(`{"id":"i","devices":["a"],` + c.field + `"cmd":"x"}`)
		msg.Metadata[transports.Expiration] = c.expiration
		if _, err := handlertest.Handle(t.Context(), host.Build(config(nil)), msg); err != nil {
			t.Fatal(err)
		}
		child := host.Published(commands)[0]
		got := published(t, []*message.Message{child})["a"]
		if got.TTL != c.ttl || child.Metadata[transports.Expiration] != c.property || got.ExpiresAt.IsZero() == strings.Contains(c.field, "expires_at") {
			t.Errorf("%+v: %+v, %v", c, got, child.Metadata)
		}
		if want := handlertest.Start.Format(time.RFC3339Nano); child.Metadata[transports.Timestamp] != want {
			t.Errorf("timestamp %s, want %s", child.Metadata[transports.Timestamp], want)
		}
	}
}

func TestRejected(t *testing.T) {
	for body, want := range map[string]string{
		`{"id":"i","cmd":"x"}`:                                       "devices, labels or all",
		`{"id":"i","devices":["a"],"device":"a","cmd":"x"}`:          "device: a command for a group must have devices, labels or all instead",
		`{"id":"i","devices":["a","?"],"cmd":"x"}`:                   `devices[1]: not a device of this transport: "?" is no address`,
		`{"id":"i","labels":{"site":"east"},"cmd":"x"}`:              `labels: no device has site = "east"`,
		`{"id":"i","labels":{"floor":"1","site":"north"},"cmd":"x"}`: `labels: no device has floor = "1"`,
		`{"id":"i","labels":{"kind":"lock","site":"x"},"cmd":"x"}`:   `labels: no device has site = "x"`,
		`{"id":"i","devices":["a","b","c","d","e"],"cmd":"x"}`:       "the group has 5 devices, and max_devices is 4",
		`{"id":"i","all":true}`:                                      "cmd: missing",
	} {
		host := newHost(t)
		h := host.Build(config(func(c *Config) { c.MaxDevices = 4 }))
		out, err := handlertest.Handle(t.Context(), h, newMessage(body))
		if r := report(t, out, err); r.State != device.GroupRejected || r.ID != "i" || !strings.Contains(r.Detail, want) {
			t.Errorf("%s: %+v", body, r)
		}
		if n := len(host.Published(commands)); n > 0 {
			t.Errorf("%s: %d commands", body, n)
		}
	}
}

func TestNobodyIsListed(t *testing.T) {
	host := newHost(t)
	h := host.Build(config(nil))
	host.Inventory("devices").List(map[string]map[string]string{"a": {"x": "1"}, "b": {"y": "1"}})
	out, err := handlertest.Handle(t.Context(), h, newMessage(`{"labels":{"x":"1","y":"1"},"cmd":"x"}`))
	if r := report(t, out, err); r.Detail != "labels: no device has all of them" {
		t.Errorf("%+v", r)
	}
	host.Inventory("devices").List(nil)
	out, err = handlertest.Handle(t.Context(), h, newMessage(`{"all":true,"cmd":"x"}`))
	if r := report(t, out, err); r.Detail != "all: the inventory lists no device" {
		t.Errorf("%+v", r)
	}
	without := handlertest.NewHost(t)
	without.Devices("devices")
	for field, want := range map[string]string{`"all":true`: "all: the host has no inventory", `"labels":{"a":"b"}`: "labels: the host has no inventory"} {
		out, err = handlertest.Handle(t.Context(), without.Build(config(nil)), newMessage(`{`+field+`,"cmd":"x"}`))
		if r := report(t, out, err); !strings.Contains(r.Detail, want) {
			t.Errorf("%+v", r)
		}
	}
}

func TestWithoutAnID(t *testing.T) {
	msg := newMessage(`{"devices":["a"],"cmd":"x"}`)
	delete(msg.Metadata, transports.MessageID)
	out, err := handlertest.Handle(t.Context(), newHost(t).Build(config(nil)), msg)
	if r := report(t, out, err); r.State != device.GroupRejected || !strings.Contains(r.Detail, "id: missing") || r.ID == "" {
		t.Errorf("%+v", r)
	}
}

func TestNoCommand(t *testing.T) {
	h := newHost(t).Build(config(nil))
	if _, err := handlertest.Handle(t.Context(), h, newMessage("open")); handlers.KindOf(err) != handlers.KindPermanent {
		t.Error(err)
	}
	msg := newMessage(`{"id":"1","device":"d","state":"sent"}`)
	msg.Metadata[transports.Type] = device.TypeResult
	if _, err := handlertest.Handle(t.Context(), h, msg); handlers.KindOf(err) != handlers.KindDrop {
		t.Error(err)
	}
}

func list(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%q", fmt.Sprint("d", i))
	}
	return strings.Join(names, ",")
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost(t)
		h := host.Build(config(func(c *Config) { c.Rate = 100 }))
		began := time.Now()
		if _, err := handlertest.Handle(t.Context(), h, newMessage(`{"devices":[`+list(1000)+`],"cmd":"x"}`)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 9900*time.Millisecond || took > 10*time.Second {
			t.Errorf("1000 commands, 100 a second, took %v", took)
		}
	})
}

// A command for a group that is interrupted in the middle makes the same commands when it is
// redelivered.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost(t)
		body := `{"id":"i","devices":[` + list(500) + `],"ttl":"1h","cmd":"x"}`
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		h := host.Build(config(func(c *Config) { c.Rate = 100 }))
		if out, err := handlertest.Handle(ctx, h, newMessage(body)); err == nil || len(out) > 0 {
			t.Fatalf("%v, %v", out, err)
		}
		first := host.Published(commands)
		if len(first) == 0 || len(first) >= 500 {
			t.Fatalf("%d commands", len(first))
		}
		host.Advance(time.Hour)
		out, err := handlertest.Handle(t.Context(), host.Build(config(nil)), newMessage(body))
		if r := report(t, out, err); r.Devices != 500 {
			t.Errorf("%+v", r)
		}
		all := host.Published(commands)
		if len(all) != len(first)+500 {
			t.Fatalf("%d commands", len(all))
		}
		for i, msg := range first {
			again := all[len(first)+i]
			if msg.UUID != again.UUID || string(msg.Payload) != string(again.Payload) {
				t.Fatalf("%s %s, then %s %s", msg.UUID, msg.Payload, again.UUID, again.Payload)
			}
		}
	})
}

func TestOutages(t *testing.T) {
	host := newHost(t)
	h := host.Build(config(nil))
	for err, want := range map[error]handlers.Kind{errors.New("gone"): handlers.KindRetryable, transports.ErrUnsendable: handlers.KindPermanent} {
		host.Outage(err)
		out, got := handlertest.Handle(t.Context(), h, newMessage(`{"all":true,"cmd":"x"}`))
		if len(out) > 0 || !errors.Is(got, err) || handlers.KindOf(got) != want {
			t.Errorf("%v, %v", out, got)
		}
	}
}

// Message ids are unique, and fit into AMQP.
func TestChildIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z/]{1,255}`)
		id, a, b := name.Draw(t, "id"), name.Draw(t, "a"), name.Draw(t, "b")
		x, y := childID(id, a), childID(id, b)
		if len(x) > device.MaxName || (x == y) != (a == b) || x != childID(id, a) {
			t.Fatalf("%q and %q", x, y)
		}
	})
}

func TestValidate(t *testing.T) {
	err := (&Config{Supersede: "devices"}).Validate()
	for _, want := range []string{"to: ", "devices: ", "rate: ", "max_devices: ", "supersede: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
	if err := config(nil).Validate(); err != nil {
		t.Error(err)
	}
}

func TestGzip(t *testing.T) {
	h := newHost(t)
	out, err := handlertest.Handle(t.Context(), h.Build(config(nil)), handlertest.Gzip(t, newMessage(`{"id":"i","devices":["n1"],"cmd":"open"}`)))
	if r := report(t, out, err); r.State != device.GroupExpanded || r.Devices != 1 {
		t.Errorf("%+v", r)
	}
	for _, msg := range h.Published(commands) {
		if msg.Metadata[transports.ContentEncoding] != "" {
			t.Errorf("%v", msg.Metadata)
		}
	}
}
