package middlewaretest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// Ledger is a small ledger that forgets nothing and can be told to fail. It is safe for concurrent use.
type Ledger struct {
	mu        sync.Mutex
	changed   chan struct{}
	records   map[middleware.LedgerKey]*record
	confirmed map[middleware.LedgerKey]int
	orders    int64
	fail      func(call string) error
}

type record struct {
	body     middleware.Digest
	order    int64
	unheld   bool // holding it failed
	attempts int
	outputs  []middleware.Output
	held     bool
	done     bool
	failed   bool // committing it failed
	from     middleware.Origin
	owned    *handlers.Held
}

// commit makes up for a commit that failed.
func (l *Ledger) commit(r *record) error {
	if r == nil || !r.failed {
		return nil
	}
	if err := l.fail("commit"); err != nil {
		return handlers.Unavailable(err)
	}
	r.failed, r.done, r.unheld = false, true, false
	return nil
}

var _ middleware.Ledger = (*Ledger)(nil)

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		changed: make(chan struct{}), records: map[middleware.LedgerKey]*record{}, confirmed: map[middleware.LedgerKey]int{},
		fail: func(string) error { return nil },
	}
}

// Fail has every later call of "reserve", "resume", "begin", "commit", "hold" and "confirm" ask f, and return its error.
func (l *Ledger) Fail(f func(call string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = f
}

// Reserve claims key for one run.
func (l *Ledger) Reserve(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, error) {
	for {
		l.mu.Lock()
		if err := l.fail("reserve"); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		r, changed := l.records[key], l.changed
		if r == nil {
			l.orders++
			r = &record{body: body, order: l.orders}
			l.records[key] = r
		}
		if err := l.commit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		claim := middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}
		switch {
		case r.unheld && r.attempts == 0:
			r.body, r.unheld = body, false
		case r.body != body:
			claim = middleware.Claim{State: middleware.ClaimReused}
		case r.done, r.owned != nil && !r.held:
			claim = middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}
		}
		held := r.held
		r.held = held || claim.State == middleware.ClaimReserved
		if !held && r.held {
			r.from = from
		}
		l.mu.Unlock()
		if !held {
			return claim, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return middleware.Claim{}, context.Cause(ctx)
		}
	}
}

// Durable says that it is, for what depends on that.
func (l *Ledger) Durable() bool { return true }

// Begin counts an attempt.
func (l *Ledger) Begin(key middleware.LedgerKey, _ bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail("begin"); err != nil {
		return 0, err
	}
	r := l.records[key]
	if r == nil || !r.held {
		return 0, errors.New("not reserved")
	}
	r.attempts++
	return r.attempts, nil
}

// Retract takes an attempt back.
func (l *Ledger) Retract(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.held && r.attempts > 0 {
		r.attempts--
	}
}

// Commit records what the run produced and ends the reservation.
func (l *Ledger) Commit(key middleware.LedgerKey, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.held {
		return errors.New("not reserved")
	}
	r.held, r.failed, r.outputs = false, true, outputs
	l.wake()
	return l.commit(r)
}

// Release ends the reservation, and forgets it if nothing began under it.
func (l *Ledger) Release(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.held {
		if r.held = false; r.attempts == 0 && r.owned == nil && !r.unheld {
			delete(l.records, key)
		}
		l.wake()
	}
}

func (l *Ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Confirm counts.
func (l *Ledger) Confirm(key middleware.LedgerKey, _ middleware.Retention) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail("confirm"); err != nil {
		return err
	}
	l.confirmed[key]++
	if r := l.records[key]; r != nil && r.done {
		r.owned = nil
	}
	return nil
}

// Hold owns the message, within the bounds.
func (l *Ledger) Hold(key middleware.LedgerKey, h *handlers.Held, perKey, total int, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.held {
		return errors.New("not reserved")
	}
	if err := l.fail("hold"); err != nil {
		r.unheld = true
		return err
	}
	if r.owned == nil {
		device, all := 0, 0
		for k, other := range l.records {
			if other.owned != nil && k.Pipeline == key.Pipeline {
				all++
				if k.Device == key.Device {
					device++
				}
			}
		}
		if device >= perKey || all >= total {
			return handlers.ErrHoldFull
		}
		h.ID, h.Key, h.Order = key.ID, key.Device, r.order
		r.owned, r.unheld, r.outputs = h, false, outputs
	}
	r.held = false
	l.wake()
	return nil
}

// Resume claims an owned message.
func (l *Ledger) Resume(ctx context.Context, key middleware.LedgerKey) (middleware.Claim, error) {
	for {
		l.mu.Lock()
		if err := l.fail("resume"); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		r, changed := l.records[key], l.changed
		if err := l.commit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		switch {
		case r == nil || r.owned == nil && !r.held && !l.unconfirmed(key, r):
			l.mu.Unlock()
			return middleware.Claim{}, handlers.Drop(errors.New("not owned"))
		case r.done:
			l.mu.Unlock()
			return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil
		case !r.held:
			r.held = true
			l.mu.Unlock()
			return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return middleware.Claim{}, context.Cause(ctx)
		}
	}
}

// unconfirmed reports whether the message's source has to deliver it again.
func (l *Ledger) unconfirmed(key middleware.LedgerKey, r *record) bool {
	return !r.held && r.owned == nil && !r.failed && (r.done && l.confirmed[key] == 0 || !r.done && r.attempts > 0)
}

// Unconfirmed returns the messages whose sources have to deliver them again.
func (l *Ledger) Unconfirmed(pipeline string) []middleware.Unconfirmed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []middleware.Unconfirmed
	for key, r := range l.records {
		if key.Pipeline == pipeline && l.unconfirmed(key, r) {
			all = append(all, middleware.Unconfirmed{Key: key, Origin: r.from})
		}
	}
	return all
}

// Owned returns what is owned of a pipeline.
func (l *Ledger) Owned(_ context.Context, pipeline string) ([]*handlers.Held, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*handlers.Held
	for key, r := range l.records {
		if key.Pipeline == pipeline && r.owned != nil {
			h := *r.owned
			h.Ended, h.Begun = r.done, r.attempts > 0
			all = append(all, &h)
		}
	}
	slices.SortFunc(all, func(a, b *handlers.Held) int { return int(a.Order - b.Order) })
	return all, nil
}

// Disown forgets an owned message that nobody runs.
func (l *Ledger) Disown(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.owned != nil && !r.held && !r.done {
		delete(l.records, key)
	}
}

// State says what is known of a key: "", "reserved", "held", "begun", "done" or "confirmed".
func (l *Ledger) State(key middleware.LedgerKey) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r := l.records[key]; {
	case r == nil:
		return ""
	case r.held:
		return "reserved"
	case r.owned != nil && !r.done:
		return "held"
	case !r.done:
		return "begun"
	case l.confirmed[key] == 0:
		return "done"
	default:
		return "confirmed"
	}
}

// RunLedger holds a ledger against its contract. build returns an empty one; it is called inside a synctest bubble, so
// that time stands still until everything waits.
func RunLedger(t *testing.T, build func(t *testing.T) middleware.Ledger) {
	key := middleware.LedgerKey{Pipeline: "p", ID: "i", Device: "d"}
	body, other := middleware.Digest{1}, middleware.Digest{2}
	from := middleware.Origin{UUID: "m", CorrelationID: "c", ReplyTo: "r", TraceParent: "t", TraceState: "s", Keep: "k"}
	outputs := []middleware.Output{{UUID: "u", Metadata: map[string]string{"k": "v"}, Payload: []byte("x"), Destination: "a:b"}}
	reserve := func(t *testing.T, l middleware.Ledger, key middleware.LedgerKey, body middleware.Digest, want middleware.ClaimState) middleware.Claim {
		t.Helper()
		claim, err := l.Reserve(t.Context(), key, body, from)
		if err != nil || claim.State != want {
			t.Fatalf("Reserve = %+v, %v, want state %d", claim, err, want)
		}
		return claim
	}
	commit := func(t *testing.T, l middleware.Ledger, key middleware.LedgerKey) {
		t.Helper()
		if err := l.Commit(key, outputs); err != nil {
			t.Fatal(err)
		}
	}
	elapsed := func() time.Duration { return time.Since(time.Unix(0, 0)) }
	confirm := func(t *testing.T, l middleware.Ledger, key middleware.LedgerKey, limit int) {
		t.Helper()
		if err := l.Confirm(key, middleware.Retention{Window: time.Minute, Limit: limit, Clock: elapsed}); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, f func(t *testing.T, l middleware.Ledger)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, build(t)) })
		})
	}
	run("DoneGivesTheOutputs", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		for range 2 {
			claim := reserve(t, l, key, body, middleware.ClaimDone)
			if diff := cmp.Diff(outputs, claim.Outputs); diff != "" {
				t.Error(diff)
			}
		}
	})
	run("OtherBody", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		reserve(t, l, key, other, middleware.ClaimReused)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("KeysAreApart", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		reserve(t, l, middleware.LedgerKey{Pipeline: "q", ID: "i", Device: "d"}, body, middleware.ClaimReserved)
		reserve(t, l, middleware.LedgerKey{Pipeline: "p", ID: "j", Device: "d"}, body, middleware.ClaimReserved)
		reserve(t, l, middleware.LedgerKey{Pipeline: "p", ID: "i", Device: "e"}, other, middleware.ClaimReserved)
	})
	hold := func(t *testing.T, l middleware.Ledger, id string) {
		t.Helper()
		key := middleware.LedgerKey{Pipeline: "p", ID: id, Device: "d"}
		reserve(t, l, key, body, middleware.ClaimReserved)
		h := &handlers.Held{UUID: "u-" + id, Payload: []byte("x"), Metadata: map[string]string{"k": "v"}, Sets: "s"}
		if err := l.Hold(key, h, 2, 3, outputs); err != nil {
			t.Fatal(err)
		}
	}
	owned := func(t *testing.T, l middleware.Ledger) (ids string) {
		t.Helper()
		all, err := l.Owned(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			ids += h.ID
			if h.Key != "d" && h.Key != "e" || h.UUID != "u-"+h.ID || string(h.Payload) != "x" || h.Metadata["k"] != "v" || h.Sets != "s" {
				t.Errorf("owned %+v", h)
			}
			if h.Ended {
				ids += "(ended)"
			}
			if h.Begun {
				ids += "(begun)"
			}
		}
		return ids
	}
	resume := func(t *testing.T, l middleware.Ledger, key middleware.LedgerKey, want middleware.ClaimState) middleware.Claim {
		t.Helper()
		claim, err := l.Resume(t.Context(), key)
		if err != nil || claim.State != want {
			t.Fatalf("Resume = %+v, %v, want state %d", claim, err, want)
		}
		return claim
	}
	run("HeldIsOwnedUntilItIsConfirmed", func(t *testing.T, l middleware.Ledger) {
		hold(t, l, "i")
		if claim := reserve(t, l, key, body, middleware.ClaimDone); len(claim.Outputs) != 1 {
			t.Errorf("a duplicate gets %v", claim.Outputs)
		}
		reserve(t, l, key, other, middleware.ClaimReused)
		hold(t, l, "j")
		if got := owned(t, l); got != "ij" {
			t.Errorf("owned %s", got)
		}
		resume(t, l, key, middleware.ClaimReserved)
		if _, err := l.Begin(key, false); err != nil {
			t.Fatal(err)
		}
		l.Retract(key)
		if err := l.Hold(key, nil, 0, 0, nil); err != nil {
			t.Fatal(err)
		}
		reserve(t, l, key, body, middleware.ClaimDone)
		resume(t, l, key, middleware.ClaimReserved)
		commit(t, l, key)
		if got := owned(t, l); got != "i(ended)j" {
			t.Errorf("owned %s", got)
		}
		resume(t, l, key, middleware.ClaimDone)
		confirm(t, l, key, 10)
		if got := owned(t, l); got != "j" {
			t.Errorf("owned %s", got)
		}
		reserve(t, l, key, body, middleware.ClaimDone)
		if _, err := l.Resume(t.Context(), key); handlers.KindOf(err) != handlers.KindDrop {
			t.Errorf("resuming what isn't owned any more: %v", err)
		}
	})
	run("WhatBeganIsUnconfirmedUntilItIsConfirmed", func(t *testing.T, l middleware.Ledger) {
		unconfirmed := func(want ...middleware.Unconfirmed) {
			t.Helper()
			if diff := cmp.Diff(want, l.Unconfirmed("p")); diff != "" {
				t.Error(diff)
			}
		}
		missing := middleware.Unconfirmed{Key: key, Origin: from}
		reserve(t, l, key, body, middleware.ClaimReserved)
		l.Release(key)
		unconfirmed()
		reserve(t, l, key, body, middleware.ClaimReserved)
		if _, err := l.Begin(key, false); err != nil {
			t.Fatal(err)
		}
		unconfirmed()
		l.Release(key)
		unconfirmed(missing)
		if got := l.Unconfirmed("another"); len(got) > 0 {
			t.Errorf("another pipeline misses %v", got)
		}
		if claim := resume(t, l, key, middleware.ClaimReserved); claim.Begun != 1 {
			t.Errorf("%d runs began", claim.Begun)
		}
		unconfirmed()
		commit(t, l, key)
		unconfirmed(missing)
		if claim := resume(t, l, key, middleware.ClaimDone); len(claim.Outputs) != 1 {
			t.Errorf("outputs %v", claim.Outputs)
		}
		confirm(t, l, key, 10)
		unconfirmed()
		if _, err := l.Resume(t.Context(), key); handlers.KindOf(err) != handlers.KindDrop {
			t.Errorf("resuming what is confirmed: %v", err)
		}
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("WhatBeganAndIsDeliveredAgainRunsAgain", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		if _, err := l.Begin(key, false); err != nil {
			t.Fatal(err)
		}
		l.Release(key)
		if claim := reserve(t, l, key, body, middleware.ClaimReserved); claim.Begun != 1 {
			t.Errorf("%d runs began", claim.Begun)
		}
		if got := l.Unconfirmed("p"); len(got) > 0 {
			t.Errorf("unconfirmed while it runs: %v", got)
		}
		l.Retract(key)
		l.Release(key)
		if got := l.Unconfirmed("p"); len(got) > 0 {
			t.Errorf("unconfirmed though nothing began: %v", got)
		}
		if _, err := l.Resume(t.Context(), key); handlers.KindOf(err) != handlers.KindDrop {
			t.Errorf("resuming what never began: %v", err)
		}
	})
	run("AFailedRunOfWhatIsOwnedComesAgain", func(t *testing.T, l middleware.Ledger) {
		hold(t, l, "i")
		resume(t, l, key, middleware.ClaimReserved)
		l.Release(key)
		resume(t, l, key, middleware.ClaimReserved)
		l.Disown(key)
		l.Release(key)
		if got := owned(t, l); got != "i" {
			t.Errorf("owned %s, though a run held it when it was disowned", got)
		}
		l.Disown(key)
		if got := owned(t, l); got != "" {
			t.Errorf("owned %s", got)
		}
		reserve(t, l, key, other, middleware.ClaimReserved)
	})
	run("HeldInTheOrderOfReserving", func(t *testing.T, l middleware.Ledger) {
		later := middleware.LedgerKey{Pipeline: "p", ID: "j", Device: "d"}
		reserve(t, l, key, body, middleware.ClaimReserved)
		reserve(t, l, later, body, middleware.ClaimReserved)
		for _, key := range []middleware.LedgerKey{later, key} {
			if err := l.Hold(key, &handlers.Held{UUID: "u-" + key.ID, Payload: []byte("x"), Metadata: map[string]string{"k": "v"}, Sets: "s"}, 2, 3, outputs); err != nil {
				t.Fatal(err)
			}
		}
		if got := owned(t, l); got != "ij" {
			t.Errorf("owned %s", got)
		}
	})
	run("NoMoreIsHeldThanMayBe", func(t *testing.T, l middleware.Ledger) {
		hold(t, l, "i")
		hold(t, l, "j")
		full := func(device string, want bool) {
			t.Helper()
			key := middleware.LedgerKey{Pipeline: "p", ID: "k" + device, Device: device}
			reserve(t, l, key, body, middleware.ClaimReserved)
			err := l.Hold(key, &handlers.Held{UUID: "u-k" + device, Payload: []byte("x"), Metadata: map[string]string{"k": "v"}, Sets: "s"}, 2, 3, outputs)
			if errors.Is(err, handlers.ErrHoldFull) != want || !want && err != nil {
				t.Errorf("for %s: %v", device, err)
			}
			if err != nil {
				l.Release(key)
			}
		}
		full("d", true)
		full("e", false)
		full("f", true)
		l.Disown(key)
		full("d", false)
	})
	run("ReleasedRunsAgain", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		l.Release(key)
		reserve(t, l, key, other, middleware.ClaimReserved)
	})
	run("ReleaseLeavesWhatIsDone", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		l.Release(key)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("CommitNeedsAReservation", func(t *testing.T, l middleware.Ledger) {
		if err := l.Commit(key, outputs); err == nil {
			t.Error("committed what isn't reserved")
		}
	})
	begin := func(t *testing.T, l middleware.Ledger, want int) {
		t.Helper()
		if got, err := l.Begin(key, want%2 == 0); err != nil || got != want {
			t.Errorf("Begin = %d, %v, want %d", got, err, want)
		}
	}
	run("AttemptsAreCounted", func(t *testing.T, l middleware.Ledger) {
		if _, err := l.Begin(key, false); err == nil {
			t.Error("began what isn't reserved")
		}
		reserve(t, l, key, body, middleware.ClaimReserved)
		begin(t, l, 1)
		begin(t, l, 2)
		l.Retract(key)
		begin(t, l, 2)
		l.Release(key)
		reserve(t, l, key, other, middleware.ClaimReused)
		if claim := reserve(t, l, key, body, middleware.ClaimReserved); claim.Begun != 2 {
			t.Errorf("%d runs began before, want 2", claim.Begun)
		}
		l.Retract(key)
		l.Retract(key)
		l.Release(key)
		if claim := reserve(t, l, key, other, middleware.ClaimReserved); claim.Begun != 0 {
			t.Errorf("%d runs began before, want none", claim.Begun)
		}
		begin(t, l, 1)
		commit(t, l, key)
		l.Retract(key)
		reserve(t, l, key, other, middleware.ClaimDone)
	})
	waits := func(end func(t *testing.T, l middleware.Ledger), want middleware.ClaimState) func(t *testing.T, l middleware.Ledger) {
		return func(t *testing.T, l middleware.Ledger) {
			reserve(t, l, key, body, middleware.ClaimReserved)
			claims := make(chan middleware.Claim, 1)
			go func() {
				claim, err := l.Reserve(t.Context(), key, body, from)
				if err != nil {
					t.Error(err)
				}
				claims <- claim
			}()
			synctest.Wait()
			select {
			case claim := <-claims:
				t.Fatalf("claimed %+v while another run holds the key", claim)
			default:
			}
			end(t, l)
			if claim := <-claims; claim.State != want {
				t.Errorf("claimed %+v, want state %d", claim, want)
			}
		}
	}
	run("WaitsForCommit", waits(func(t *testing.T, l middleware.Ledger) { commit(t, l, key) }, middleware.ClaimDone))
	run("WaitsForRelease", waits(func(_ *testing.T, l middleware.Ledger) { l.Release(key) }, middleware.ClaimReserved))
	run("WaitsForTheContext", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("stop")
		go func() {
			synctest.Wait()
			cancel(cause)
		}()
		if claim, err := l.Reserve(ctx, key, body, from); !errors.Is(err, cause) {
			t.Errorf("Reserve = %+v, %v, want %v", claim, err, cause)
		}
		commit(t, l, key)
	})
	run("UnconfirmedStays", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		for _, id := range []string{"a", "b", "c"} {
			k := middleware.LedgerKey{Pipeline: "p", ID: id}
			reserve(t, l, k, body, middleware.ClaimReserved)
			commit(t, l, k)
			confirm(t, l, k, 1)
		}
		time.Sleep(time.Hour)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("ConfirmedStaysForItsWindow", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		confirm(t, l, key, 10)
		time.Sleep(59 * time.Second)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
}
