package deliver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports/device"
)

// holds is a run in a pipeline that can hold messages.
type holds struct {
	*handlertest.Scope
	resumed *handlers.Resumption
	before  func() <-chan struct{}
	may     []string
}

func (h *holds) Resumed() *handlers.Resumption { return h.resumed }
func (h *holds) MayHold(awaits string)         { h.may = append(h.may, awaits) }
func (h *holds) Held(*handlers.Held)           {}
func (h *holds) HeldBefore(string) (<-chan struct{}, error) {
	if h.before == nil {
		return nil, nil
	}
	return h.before(), nil
}

// run handles a message in a run that can hold it.
func (h *holds) run(ctx context.Context, handler handlers.Handler, j *journal, body string) ([]*message.Message, error) {
	msg := newMessage("m", body)
	if j != nil {
		ctx = handlers.WithJournal(ctx, j)
	}
	h.Scope = handlertest.Begin(ctx, handler, msg)
	msg.SetContext(handlers.WithScope(msg.Context(), h))
	return handler.Handle(msg)
}

// newHolder returns a deliver that holds commands, and its devices. The device "away" is offline.
func newHolder(t *testing.T) (handlers.Handler, *handlertest.Devices) {
	h, d := newHost(t)
	d.EpochFunc = func(name string) uint64 {
		if name == "away" {
			return 0
		}
		return 7
	}
	return h.Build(&Config{Devices: "devices", Offline: string(device.Hold), Hold: HoldLimits{PerDevice: 3, Total: 5}, Timeout: time.Second}), d
}

const forAway = `{"device":"away","cmd":"x","supersede":"setpoint","expires_at":"2100-01-01T00:00:00Z"}`

func TestACommandForADeviceThatIsAwayIsHeld(t *testing.T) {
	handler, d := newHolder(t)
	j := &journal{}
	out, err := (&holds{}).run(t.Context(), handler, j, forAway)
	if r := only(t, out, err); r.State != device.StateHeld || r.State.Terminal() || r.Detail != whyOffline || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
	want := []handlers.Holding{{Awaits: "away", Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), Sets: "setpoint", PerKey: 3, Total: 5}}
	if diff := cmp.Diff(want, j.held); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(j.outputs, out) {
		t.Error("what a copy of the command gets isn't what this one got")
	}
	if len(d.Frames()) != 0 || len(j.synced) != 0 {
		t.Errorf("%d frames, %v begun", len(d.Frames()), j.synced)
	}
}

func TestHoldingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		journal *journal
		state   device.State
		detail  string
	}{
		"it is full":           {forAway, &journal{full: true}, device.StateBusy, "the device is offline, and no more can be held: 1 are for this device"},
		"the command says so":  {`{"device":"away","cmd":"x","offline":"fail"}`, &journal{}, device.StateOffline, "no session"},
		"without dedup":        {forAway, nil, device.StateRejected, "needs dedup"},
		"a store that forgets": {forAway, &journal{forgets: true}, device.StateRejected, "outlives the process"},
		"its time is over":     {`{"device":"away","cmd":"x","expires_at":"2001-01-01T00:00:00Z"}`, &journal{}, device.StateExpired, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			handler, _ := newHolder(t)
			out, err := (&holds{}).run(t.Context(), handler, c.journal, c.body)
			if r := only(t, out, err); r.State != c.state || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%s: %q", r.State, r.Detail)
			}
			if c.journal != nil && len(c.journal.held) > 0 {
				t.Errorf("%+v is held", c.journal.held)
			}
		})
	}
}

func TestADeadLedgerHoldsNothing(t *testing.T) {
	handler, _ := newHolder(t)
	out, err := (&holds{}).run(t.Context(), handler, &journal{err: errors.New("no space left on device")}, forAway)
	if handlers.KindOf(err) != handlers.KindUnavailable || len(out) > 0 {
		t.Errorf("%d results, error %v", len(out), err)
	}
}

func TestACommandBehindThoseThatAreHeldIsHeldToo(t *testing.T) {
	handler, d := newHolder(t)
	j := &journal{}
	run := &holds{before: func() <-chan struct{} { return make(chan struct{}) }}
	out, err := run.run(t.Context(), handler, j, `{"device":"d","cmd":"x"}`)
	if r := only(t, out, err); r.State != device.StateHeld || r.Detail != whyBehindHeld || len(j.held) != 1 || len(d.Frames()) != 0 {
		t.Errorf("%+v, %d held, %d frames", r, len(j.held), len(d.Frames()))
	}
}

func TestACommandThatIsToFailWaitsBehindThoseThatAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, d := newHolder(t)
		first, second := make(chan struct{}), make(chan struct{})
		left := []chan struct{}{first, second}
		run := &holds{before: func() <-chan struct{} {
			if len(left) == 0 {
				return nil
			}
			defer func() { left = left[1:] }()
			return left[0]
		}}
		ended := make(chan device.Result, 1)
		go func() {
			out, err := run.run(t.Context(), handler, &journal{}, `{"device":"d","cmd":"x","offline":"fail"}`)
			ended <- only(t, out, err)
		}()
		for _, c := range []chan struct{}{first, second} {
			synctest.Wait()
			if len(ended) > 0 || len(d.Frames()) > 0 {
				t.Fatal("it didn't wait")
			}
			close(c)
		}
		if r := <-ended; r.State != device.StateSent || len(d.Frames()) != 1 {
			t.Errorf("%+v, %d frames", r, len(d.Frames()))
		}
	})
}

func TestTheWaitBehindThoseThatAreHeldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHost(t)
		handler := h.Build(&Config{Devices: "devices", Timeout: time.Second})
		never := &holds{before: func() <-chan struct{} { return make(chan struct{}) }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		j := &journal{}
		if out, err := never.run(ctx, handler, j, `{"device":"d","cmd":"x"}`); err == nil || len(out) > 0 || j.attempts != 0 {
			t.Errorf("after a stop: %d results, error %v, begun %d times", len(out), err, j.attempts)
		}
	})
}

func TestWhatComesBackIsWrittenOrHeldAgain(t *testing.T) {
	for name, c := range map[string]struct {
		resumed handlers.Resumption
		body    string
		enqueue func(string, []byte, device.EnqueueOptions) (device.Write, error)
		state   device.State // empty if it is held again
		detail  string
	}{
		"written":               {body: `{"device":"d","cmd":"x"}`, state: device.StateSent},
		"superseded":            {resumed: handlers.Resumption{SupersededBy: "n"}, body: forAway, state: device.StateSuperseded, detail: `command n came for "setpoint"`},
		"expired":               {resumed: handlers.Resumption{Expires: time.Unix(1, 0)}, body: `{"device":"away","cmd":"x","ttl":"1s"}`, state: device.StateExpired},
		"the device is offline": {body: forAway},
		"its queue is full": {body: `{"device":"d","cmd":"x"}`, enqueue: func(string, []byte, device.EnqueueOptions) (device.Write, error) {
			return nil, device.ErrBusy
		}},
		"its session ended": {body: `{"device":"d","cmd":"x"}`, enqueue: func(string, []byte, device.EnqueueOptions) (device.Write, error) {
			return handlertest.Ended{Fate: device.Offline}, nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			handler, d := newHolder(t)
			if c.enqueue != nil {
				d.EnqueueFunc = c.enqueue
			}
			j := &journal{}
			out, err := (&holds{resumed: &c.resumed}).run(t.Context(), handler, j, c.body)
			if c.state == "" {
				if len(out) > 0 || err != nil || len(j.held) != 1 {
					t.Errorf("%d results, error %v, held %d times", len(out), err, len(j.held))
				}
				return
			}
			if r := only(t, out, err); r.State != c.state || !strings.Contains(r.Detail, c.detail) || len(j.held) > 0 {
				t.Errorf("%+v, held %d times", r, len(j.held))
			}
		})
	}
}

func TestANewSessionIsLookedForAgain(t *testing.T) {
	handler, d := newHolder(t)
	var asked []uint64
	epoch := uint64(7)
	d.EpochFunc = func(string) uint64 { return epoch }
	d.EnqueueFunc = func(_ string, _ []byte, o device.EnqueueOptions) (device.Write, error) {
		asked = append(asked, o.Epoch)
		if epoch++; epoch < 10 {
			return nil, device.ErrSession
		}
		return handlertest.Ended{Fate: device.Sent, Epoch: o.Epoch}, nil
	}
	j := &journal{}
	out, err := (&holds{}).run(t.Context(), handler, j, `{"device":"d","cmd":"x"}`)
	if r := only(t, out, err); r.State != device.StateSent || r.Epoch != 9 || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff([]uint64{7, 8, 9}, asked); diff != "" || j.attempts != 1 {
		t.Errorf("epochs %v, begun %d times", asked, j.attempts)
	}
}

func TestACommandWhoseSessionEndsMayBeHeld(t *testing.T) {
	handler, d := newHolder(t)
	d.EnqueueFunc = func(_ string, _ []byte, o device.EnqueueOptions) (device.Write, error) {
		o.Orphaned()
		return handlertest.Ended{Fate: device.Offline, Detail: "the connection ended before it was its turn"}, nil
	}
	run, j := &holds{}, &journal{}
	out, err := run.run(t.Context(), handler, j, `{"device":"d","cmd":"x"}`)
	if r := only(t, out, err); r.State != device.StateHeld || len(j.held) != 1 {
		t.Errorf("%+v, held %d times", r, len(j.held))
	}
	if diff := cmp.Diff([]string{"d"}, run.may); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsHeldAwaitsASession(t *testing.T) {
	handler, d := newHolder(t)
	holder := handler.(handlers.Holder)
	if holder.Ready("away") || !holder.Ready("d") {
		t.Error("a device is ready when it has a session")
	}
	var came []string
	holder.Watch(func(name string) { came = append(came, name) })
	d.Arrive("d")
	if diff := cmp.Diff([]string{"d"}, came); diff != "" {
		t.Error(diff)
	}
}
