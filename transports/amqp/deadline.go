package amqp

import (
	"context"
	"sync"
	"time"
)

// deadlines makes contexts that end after the time `after`. Callers that come shortly after each
// other share one context, so that thousands of messages a second don't need a timer each. They
// share it for a hundredth of the time, and for at most maxShare. The context ends when the time
// has passed for the last of them.
type deadlines struct {
	after time.Duration
	cause error

	mu          sync.Mutex
	ctx         context.Context
	sharedUntil time.Time // callers get ctx until then
}

// maxShare is the longest time in which callers get the same context.
const maxShare = 100 * time.Millisecond

// sharedContext returns a context that ends when the time has passed, or at most maxShare later.
func (d *deadlines) sharedContext() context.Context {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || now.After(d.sharedUntil) {
		share := min(d.after/100, maxShare)
		ctx, end := context.WithCancelCause(context.Background())
		time.AfterFunc(d.after+share, func() { end(d.cause) })
		d.ctx, d.sharedUntil = ctx, now.Add(share)
	}
	return d.ctx
}
