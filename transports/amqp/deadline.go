package amqp

import (
	"context"
	"sync"
	"time"
)

// deadlines makes contexts that end after a time. A share is a hundredth of that time, and at most
// a tenth of a second. Callers that begin within one share get the same context, so thousands of
// messages a second don't need a timer each. The context ends when the time of the last caller has
// passed.
type deadlines struct {
	after time.Duration
	cause error

	mu          sync.Mutex
	ctx         context.Context
	sharedUntil time.Time // callers get ctx until then
}

// maxShare is the longest share.
const maxShare = 100 * time.Millisecond

// sharedContext returns a context that ends when the time has passed, or at most one share later.
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
