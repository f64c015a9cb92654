package deliver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports/device"
)

// journal is a fake journal with a number of earlier attempts.
type journal struct {
	attempts int
	synced   []bool
	retracts int
	forgets  bool // doesn't outlive the process
	err      error

	full    bool
	held    []handlers.Holding
	outputs []*message.Message
}

func (j *journal) Begun() int { return j.attempts }

func (j *journal) Begin(sync bool) error {
	if j.err != nil {
		return handlers.Unavailable(j.err)
	}
	j.attempts++
	j.synced = append(j.synced, sync)
	return nil
}

func (j *journal) Retract() { j.attempts--; j.retracts++ }

func (j *journal) Durable() bool { return !j.forgets }

func (j *journal) Hold(h handlers.Holding, outputs []*message.Message) error {
	if j.err != nil {
		return handlers.Unavailable(j.err)
	}
	if j.full {
		return fmt.Errorf("%w: 1 are for this device", handlers.ErrHoldFull)
	}
	j.held = append(j.held, h)
	j.outputs = append(j.outputs, outputs...)
	return nil
}

const once = `{"device":"d","cmd":"x","mode":"at-most-once"}`

func TestModes(t *testing.T) {
	for _, c := range []struct {
		name, id, body string
		setting        device.Mode // of the handler
		journal        *journal
		state          device.State
		attempt        int
		detail         string
		frames         int
		synced         []bool
	}{
		{name: "without a ledger", id: "m", body: `{"device":"d","cmd":"x"}`, state: device.StateSent, attempt: 1, frames: 1},
		{name: "again after a crash", id: "m", body: `{"device":"d","cmd":"x"}`, journal: &journal{attempts: 1}, state: device.StateSent, attempt: 2, frames: 1, synced: []bool{false}},
		{name: "once", id: "m", body: once, journal: &journal{}, state: device.StateSent, attempt: 1, frames: 1, synced: []bool{true}},
		{name: "once, after a crash", id: "m", body: once, journal: &journal{attempts: 1}, state: device.StateUnknown, attempt: 2, detail: "interrupted"},
		{name: "once by the handler's setting", id: "m", body: `{"device":"d","cmd":"x"}`, setting: device.AtMostOnce, journal: &journal{attempts: 1}, state: device.StateUnknown, attempt: 2, detail: "interrupted"},
		{name: "the command's word counts more", id: "m", body: `{"device":"d","cmd":"x","mode":"at-least-once"}`, setting: device.AtMostOnce, journal: &journal{attempts: 1}, state: device.StateSent, attempt: 2, frames: 1, synced: []bool{false}},
		{name: "offline after a crash", id: "m", body: `{"device":"away","cmd":"x"}`, journal: &journal{attempts: 1}, state: device.StateUnknown, attempt: 2, detail: "now it is offline", frames: 1, synced: []bool{false}},
		{name: "expired after a crash", id: "m", body: `{"device":"d","cmd":"x","expires_at":"2001-01-01T00:00:00Z"}`, journal: &journal{attempts: 2}, state: device.StateUnknown, attempt: 3, detail: "now it is expired"},
		{name: "too large after a crash, for smaller frames", id: "m", body: `{"device":"d","cmd":"` + strings.Repeat("x", 5000) + `"}`, journal: &journal{attempts: 1}, state: device.StateUnknown, attempt: 2, detail: "now it is rejected"},
		{name: "once without a ledger", id: "m", body: once, state: device.StateRejected, attempt: 1, detail: "needs dedup"},
		{name: "once with a ledger in memory", id: "m", body: once, journal: &journal{forgets: true}, state: device.StateRejected, attempt: 1, detail: "outlives the process"},
		{name: "once without an id", body: once, state: device.StateRejected, attempt: 1, detail: "needs an id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, d := newHost(t)
			handler := h.Build(&Config{Devices: "devices", Mode: string(c.setting)})
			ctx := t.Context()
			if c.journal != nil {
				ctx = handlers.WithJournal(ctx, c.journal)
			}
			out, err := handlertest.Handle(ctx, handler, newMessage(c.id, c.body))
			r := only(t, out, err)
			if r.State != c.state || r.Attempt != c.attempt || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%s, attempt %d, %q", r.State, r.Attempt, r.Detail)
			}
			if got := len(d.Frames()); got != c.frames {
				t.Errorf("%d frames written, want %d", got, c.frames)
			}
			if c.journal != nil {
				if diff := cmp.Diff(c.synced, c.journal.synced); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestADeadLedgerKeepsCommandsFromDevices(t *testing.T) {
	h, d := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	broken := errors.New("no space left on device")
	_, err := handlertest.Handle(handlers.WithJournal(t.Context(), &journal{err: broken}), handler, newMessage("m", `{"device":"d","cmd":"x"}`))
	if handlers.KindOf(err) != handlers.KindUnavailable || !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if len(d.Frames()) != 0 {
		t.Errorf("wrote %v", d.Frames())
	}
}

func TestWhatWasWithdrawnDidNotBegin(t *testing.T) {
	h, d := newHost(t)
	d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
		return handlertest.Ended{Fate: device.Cancelled}, nil
	}
	handler := h.Build(&Config{Devices: "devices"})
	j := &journal{}
	ctx, cancel := context.WithCancel(handlers.WithJournal(t.Context(), j))
	cancel()
	if _, err := handlertest.Handle(ctx, handler, newMessage("m", once)); err == nil {
		t.Error("a withdrawn command has a result")
	}
	if j.attempts != 0 || j.retracts != 1 {
		t.Errorf("%d attempts are on record, %d taken back", j.attempts, j.retracts)
	}
}

func TestWhatWasNotQueuedDidNotBegin(t *testing.T) {
	h, d := newHost(t)
	d.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
		return nil, errors.New("no such device transport")
	}
	handler := h.Build(&Config{Devices: "devices"})
	j := &journal{}
	if _, err := handlertest.Handle(handlers.WithJournal(t.Context(), j), handler, newMessage("m", once)); err == nil {
		t.Error("a command that wasn't queued has a result")
	}
	if j.attempts != 0 {
		t.Errorf("%d attempts are on record", j.attempts)
	}
}

// A command that may have been written before a crash doesn't end as busy.
func TestRefusedAfterACrash(t *testing.T) {
	for attempts, want := range []device.State{device.StateBusy, device.StateUnknown} {
		h, _ := newHost(t)
		handler := h.Build(&Config{Devices: "devices"}).(handlers.Refuser)
		ctx := handlers.WithJournal(t.Context(), &journal{attempts: attempts})
		out, err := handler.Refuse(ctx, newMessage("m", `{"device":"d","cmd":"x"}`), handlers.ReasonStalled)
		if r := only(t, out, err); r.State != want {
			t.Errorf("after %d attempts: %s", attempts, r.State)
		}
	}
}

// A command that isn't redelivered has no payload: its result is made from what the ledger kept.
// The pipeline's key may differ from the device.
func TestAbandoned(t *testing.T) {
	h, _ := newHost(t)
	handler := h.Build(&Config{Devices: "devices"})
	for body, group := range map[string]string{`{"id":"i","device":"d","group":"g","cmd":"x"}`: "g", `{"id":"i","device":"d","cmd":"x"}`: ""} {
		d, err := handler.(handlers.Describer).Describe(newMessage("m", body))
		if err != nil {
			t.Fatal(err)
		}
		ctx := handlertest.NewScope(t.Context(), handlers.Description{Key: "another", ID: d.ID, Keep: d.Keep}, handler).Base()
		out, err := handler.(handlers.Refuser).Refuse(handlers.WithJournal(ctx, &journal{attempts: 2}), newMessage("m", ""), handlers.ReasonAbandoned)
		r := only(t, out, err)
		if r.State != device.StateUnknown || r.ID != "i" || r.Device != d.Key || r.Group != group || r.Attempt != 2 {
			t.Errorf("%+v", r)
		}
	}
}
