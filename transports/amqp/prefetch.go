package amqp

import "time"

const (
	// lull is how long nothing may have come before a reduced prefetch is given up.
	quietTime = time.Second
	// firstGrowth is how long a prefetch stays reduced though messages come all the time. Each time it
	// is reduced again doubles that.
	minRestoreAfter = 10 * time.Second
	maxRestoreAfter = 10 * time.Minute
)

// prefetch is how many messages a subscription asks for. It is the configured number until they turn
// out to be so large that they fill the budget of bytes in flight. It is reduced then, and tried in
// full again when nothing has come for a while, or when what came was small.
//
// Changing it takes another consumer, and the broker counts what it takes back as delivered once. So
// where the queue has a delivery limit it only grows when the queue is empty.
type prefetch struct {
	configured   int
	reduced      int // 0: it isn't
	restoreAfter time.Duration
}

func (p *prefetch) current() int {
	if p.reduced > 0 {
		return p.reduced
	}
	return p.configured
}

// reduce is called when messages of up to largest bytes have filled a budget of limit bytes. Half of the
// budget is for this subscription then. If that was too much, it takes one message at a time.
func (p *prefetch) reduceFor(limit, largest int) {
	if p.reduced > 0 {
		p.reduced = 1
		return
	}
	p.reduced = max(1, min(limit/2/max(largest, 1), p.configured/2))
	p.restoreAfter = min(max(2*p.restoreAfter, minRestoreAfter), maxRestoreAfter)
}

// grows reports whether the configured number is to be tried again. The consumer began at that time,
// and its messages had up to largest bytes.
func (p *prefetch) canRestore(limit, largest int, began time.Time) bool {
	return time.Since(began) >= p.restoreAfter && largest <= limit/2/p.configured
}
