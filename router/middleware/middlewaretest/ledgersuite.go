package middlewaretest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// RunLedger tests a ledger against its contract. build returns an empty ledger. RunLedger calls it
// inside a synctest bubble, where time stands still until all goroutines wait.
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
		if err := l.Confirm(key, middleware.Retention{Period: time.Minute, Limit: limit, Clock: elapsed}); err != nil {
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
			t.Errorf("Resume of a confirmed message that was owned: %v", err)
		}
	})
	run("ABegunMessageIsUnconfirmedUntilItIsConfirmed", func(t *testing.T, l middleware.Ledger) {
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
			t.Errorf("another pipeline has the unconfirmed messages %v", got)
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
			t.Errorf("Resume of a confirmed message: %v", err)
		}
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("ARedeliveredMessageThatBeganRunsAgain", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		if _, err := l.Begin(key, false); err != nil {
			t.Fatal(err)
		}
		l.Release(key)
		if claim := reserve(t, l, key, body, middleware.ClaimReserved); claim.Begun != 1 {
			t.Errorf("%d runs began", claim.Begun)
		}
		if got := l.Unconfirmed("p"); len(got) > 0 {
			t.Errorf("the message is in Unconfirmed during its run: %v", got)
		}
		l.Retract(key)
		l.Release(key)
		if got := l.Unconfirmed("p"); len(got) > 0 {
			t.Errorf("the message is in Unconfirmed although no run began: %v", got)
		}
		if _, err := l.Resume(t.Context(), key); handlers.KindOf(err) != handlers.KindDrop {
			t.Errorf("Resume of a message that never began: %v", err)
		}
	})
	run("AnOwnedMessageRunsAgainAfterAFailedRun", func(t *testing.T, l middleware.Ledger) {
		hold(t, l, "i")
		resume(t, l, key, middleware.ClaimReserved)
		l.Release(key)
		resume(t, l, key, middleware.ClaimReserved)
		l.Disown(key)
		l.Release(key)
		if got := owned(t, l); got != "i" {
			t.Errorf("owned %q after Disown during a run of message i, want \"i\"", got)
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
	run("HoldKeepsItsLimits", func(t *testing.T, l middleware.Ledger) {
		hold(t, l, "i")
		hold(t, l, "j")
		full := func(device string, want bool) {
			t.Helper()
			key := middleware.LedgerKey{Pipeline: "p", ID: "k" + device, Device: device}
			reserve(t, l, key, body, middleware.ClaimReserved)
			err := l.Hold(key, &handlers.Held{UUID: "u-k" + device, Payload: []byte("x"), Metadata: map[string]string{"k": "v"}, Sets: "s"}, 2, 3, outputs)
			if errors.Is(err, handlers.ErrHoldFull) != want || !want && err != nil {
				t.Errorf("Hold for device %s: %v, want full: %v", device, err, want)
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
	run("ReleaseKeepsADoneMessage", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		l.Release(key)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
	run("CommitNeedsAReservation", func(t *testing.T, l middleware.Ledger) {
		if err := l.Commit(key, outputs); err == nil {
			t.Error("Commit without a reservation returned no error")
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
			t.Error("Begin without a reservation returned no error")
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
				t.Fatalf("claimed %+v while another run has the key", claim)
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
	run("ConfirmedStaysForItsRetention", func(t *testing.T, l middleware.Ledger) {
		reserve(t, l, key, body, middleware.ClaimReserved)
		commit(t, l, key)
		confirm(t, l, key, 10)
		time.Sleep(59 * time.Second)
		reserve(t, l, key, body, middleware.ClaimDone)
	})
}
