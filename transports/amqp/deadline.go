package amqp

import (
	"context"
	"sync"
	"time"
)

// deadlines gives out contexts that end after a time. Those that begin within a tenth of a second, or a hundredth of the time if that is less, share
// one, which ends when the last of them may: thousands of messages a second then need no timer each.
type deadlines struct {
	after time.Duration
	cause error

	mu          sync.Mutex
	ctx         context.Context
	sharedUntil time.Time // ctx is given out until then
}

const maxShare = 100 * time.Millisecond

// next returns a context that ends after the time, and at most one share later.
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
