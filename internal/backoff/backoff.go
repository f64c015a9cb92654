// Package backoff computes the pauses between attempts. All loops of the program that retry use
// it: [New] returns the pauses, and [Sleep] waits for one.
//
//	pauses := backoff.New(100*time.Millisecond, 5*time.Second)
//	for try() != nil && backoff.Sleep(ctx, pauses.NextBackOff()) {
//	}
//
// The pauses are those of github.com/cenkalti/backoff, and waiting uses the timers of package
// time.
package backoff

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Pauses are what [New] returns.
type Pauses = backoff.ExponentialBackOff

// New returns pauses whose interval is first, and doubles with each pause up to longest. Each
// pause is drawn at random from the upper half of its interval, so that many hosts don't try in
// step. NextBackOff returns the next pause, and Reset starts from first again. One goroutine at a
// time uses them.
func New(first, longest time.Duration) Pauses {
	// The library draws from both sides of a middle value. With 3/4 as the middle, plus or minus a
	// third of it, a pause is from 1/2 to 1 of the interval.
	return Pauses{
		InitialInterval: min(first, longest) / 4 * 3, MaxInterval: longest / 4 * 3, Multiplier: 2, RandomizationFactor: 1.0 / 3,
	}
}

// Sleep waits for d and returns true. It returns false at once when ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
