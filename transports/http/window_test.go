package http

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// held are the messages that were handed out and are neither settled nor void.
type held []*transports.Delivery

func (h held) living() (living held) {
	for _, msg := range h {
		if msg.Context.Err() == nil {
			living = append(living, msg)
		}
	}
	return living
}

// Callers hang up whenever they like: before their message is handed out, as it is, and after.
// The window holds, and nothing stays.
func TestWindowHoldsWhileCallersHangUp(t *testing.T) {
	const window, callers, each = 3, 20, 15
	s := start(t, func(c *Config) { c.Window = window })
	out := subscribe(t, s)
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for i := range each {
				ctx, hangUp := context.WithCancel(t.Context())
				if i%3 > 0 {
					ctx, hangUp = context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
				}
				<-async(ctx, s, "/x", "a")
				hangUp()
			}
		})
	}
	called := make(chan struct{})
	go func() {
		calling.Wait()
		close(called)
	}()

	// As the router does with many of them: some are settled late, most after their caller has
	// gone.
	var have held
	most := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case msg := <-out:
			have = append(have.living(), msg)
			most = max(most, len(have.living()))
		case <-tick.C:
			// The window is full once: the first request of every caller waits for it.
			if have = have.living(); len(have) > 0 && most >= window {
				first := have[0]
				have = have[1:] // before it is settled, which makes room for another
				first.Settle(handled)
			}
		case <-called:
			over = true
		}
	}
	if most != window {
		t.Errorf("%d messages were handed out at a time, want %d", most, window)
	}
	s.awaitState(t, "0 unsettled, 0 waiting")
}

// state says what the subscription of /x holds.
func (s *server) state() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.routes["/x"]
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return fmt.Sprintf("%d unsettled, %d waiting", len(sub.unsettled), len(sub.waiting))
}

// A caller who hangs up while its message is being published leaves its place at once: what
// bounds the publishing then is the router, which ends it for a void delivery. Settling it late
// changes nothing.
func TestVoidMessageLeavesItsPlaceOnce(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	ctx, hangUp := context.WithCancel(t.Context())
	res := async(ctx, s, "/x", "first")
	first := <-out
	hangUp()
	<-res
	second := async(t.Context(), s, "/x", "second")
	msg := <-out
	first.Settle(handled)
	third := async(t.Context(), s, "/x", "third")
	s.awaitState(t, "1 unsettled, 1 waiting")
	msg.Settle(handled)
	(<-second).expect(t, 200, "")
	last := <-out
	last.Settle(handled)
	(<-third).expect(t, 200, "")
	s.awaitState(t, "0 unsettled, 0 waiting")
}
