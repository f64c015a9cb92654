package amqp

import "time"

// The prefetch is the window of a subscription: how many unsettled messages the broker may send
// it.
//
// The prefetch has two states, configured and reduced. It is reduced when messages fill the budget
// of bytes (arrivals.go). If they fill it again, the reduced prefetch is one. The configured
// prefetch is restored after quietTime without a message. It is also restored when all messages of
// a longer time (restoreAfter) were small.
//
// A change of the prefetch needs a new consumer. The broker requeues the deliveries that the old
// consumer skipped, and counts them as delivered once. So if the queue has a delivery limit, the
// prefetch is restored only when no message arrives and all are settled.
//
// The fields belong to the goroutine of the subscription, so they need no lock.

const (
	// quietTime is the time without a message after which the configured prefetch is restored.
	quietTime = time.Second
	// minRestoreAfter is the shortest time for which a prefetch stays reduced while messages
	// arrive. Each further reduction doubles the time, up to maxRestoreAfter.
	minRestoreAfter = 10 * time.Second
	maxRestoreAfter = 10 * time.Minute
)

// prefetch is the configured and the reduced prefetch of a subscription.
type prefetch struct {
	configured   int
	reduced      int // 0 if the prefetch isn't reduced
	restoreAfter time.Duration
}

// current returns the prefetch that the next consumer asks for.
func (p *prefetch) current() int {
	if p.reduced > 0 {
		return p.reduced
	}
	return p.configured
}

// reduceFor reduces the prefetch after messages of up to largest bytes have filled a budget of
// limit bytes. The first reduction leaves half of the budget to others. The second one leaves a
// prefetch of one.
func (p *prefetch) reduceFor(limit, largest int) {
	if p.reduced > 0 {
		p.reduced = 1
		return
	}
	p.reduced = max(1, min(limit/2/max(largest, 1), p.configured/2))
	p.restoreAfter = min(max(2*p.restoreAfter, minRestoreAfter), maxRestoreAfter)
}

// canRestore reports whether to restore the configured prefetch while messages arrive. The
// consumer began at the given time, and its messages had up to largest bytes.
func (p *prefetch) canRestore(limit, largest int, began time.Time) bool {
	return time.Since(began) >= p.restoreAfter && largest <= limit/2/p.configured
}
