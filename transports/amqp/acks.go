package amqp

import (
	"slices"
	"sync"
	"time"
)

// deferTime is how long acks above an unsettled tag wait for it at most: one frame then acks all
// of them. Confirms come in bursts, as the broker's disk has it, and settle messages in any
// order, so most gaps close within some ten milliseconds; and each frame saved spares the broker
// more work than us. For a tag that didn't come within the time, nothing more waits.
const deferTime = 40 * time.Millisecond

// ackWriter is the part of a channel that acks.
type ackWriter interface {
	Ack(tag uint64, multiple bool) error
}

// acks sends the acks of one channel, whose tags count from 1. One goroutine writes them, so that
// add never blocks. What becomes ready while it writes goes with the next batch: a busy channel
// sends few frames, and an idle one sends at once. Acks above an unsettled tag are deferred for a
// moment.
type acks struct {
	ch   ackWriter
	sent func(n int)

	mu      sync.Mutex
	ready   []uint64
	stopped bool
	// more wakes the writer; ended is closed when it has written its last.
	wake    chan struct{}
	written chan struct{}

	// Below is the writer's own: floor is the lowest unsettled tag and high the highest settled
	// one. gaps are the unsettled tags from floor to high, in order, and deferred the settled
	// tags above floor whose ack isn't written. stuck is a floor that was waited for in vain. All
	// are bounded by the prefetch, and so is what a release costs, however long one tag stays
	// unsettled.
	batch    []uint64
	high     uint64
	floor    uint64
	stuck    uint64
	gaps     []uint64
	deferred []uint64
	// wrote is when the last frame was written; it may be read after stop.
	wrote time.Time
}

// newAcks returns the acks of a channel. The caller starts run and calls stop.
func newAcks(ch ackWriter, sent func(n int)) *acks {
	return &acks{ch: ch, sent: sent, floor: 1, wake: make(chan struct{}, 1), written: make(chan struct{})}
}

// add has a tag acked. After stop it does nothing.
func (a *acks) queueAck(tag uint64) {
	a.mu.Lock()
	if !a.stopped {
		a.ready = append(a.ready, tag)
	}
	a.mu.Unlock()
	a.wakeWriter()
}

// stop returns when all acks so far are written.
func (a *acks) stop() {
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.wakeWriter()
	<-a.written
}

func (a *acks) wakeWriter() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run writes acks until stop.
func (a *acks) run() {
	defer close(a.written)
	overdue := time.NewTimer(deferTime)
	overdue.Stop()
	for {
		waited, release := len(a.deferred) > 0, false
		select {
		case <-a.wake:
		case <-overdue.C:
			release = true
		}
		if a.writeAcks(release) {
			return
		}
		switch waits := len(a.deferred) > 0; {
		case !waits:
			overdue.Stop()
		case !waited:
			overdue.Reset(deferTime)
		}
	}
}

// write acks what is ready, and says whether that was the last. Multiple is only used below
// floor: it would ack that tag too. What is above it is deferred, or acked tag by tag when it is
// released.
func (a *acks) writeAcks(release bool) (last bool) {
	a.mu.Lock()
	a.ready, a.batch = a.batch[:0], a.ready
	last = a.stopped
	a.mu.Unlock()
	for _, tag := range a.batch {
		a.markSettled(tag)
	}
	a.deferred = append(a.deferred, a.batch...)
	total := 0
	// An error means that the channel is gone, and its deliveries with it; the subscription
	// learns that by itself.
	if n, highest := a.raiseFloor(); n > 0 {
		_ = a.ch.Ack(highest, n > 1)
		total += n
	}
	if release || last {
		a.stuck = a.floor
	}
	if len(a.deferred) > 0 && a.stuck == a.floor {
		for _, tag := range a.deferred {
			_ = a.ch.Ack(tag, false)
		}
		total += len(a.deferred)
		a.deferred = a.deferred[:0]
	}
	if total > 0 {
		a.wrote = time.Now()
		a.sent(total)
	}
	return last
}

// settle takes a tag out of the gaps, or makes gaps of those that it skips.
func (a *acks) markSettled(tag uint64) {
	if tag <= a.high {
		i, _ := slices.BinarySearch(a.gaps, tag)
		a.gaps = slices.Delete(a.gaps, i, i+1)
		return
	}
	for skipped := a.high + 1; skipped < tag; skipped++ {
		a.gaps = append(a.gaps, skipped)
	}
	a.high = tag
}

// rise moves floor up to the lowest unsettled tag and takes what is below it from the deferred:
// their number and the highest of them.
func (a *acks) raiseFloor() (n int, highest uint64) {
	floor := a.high + 1
	if len(a.gaps) > 0 {
		floor = a.gaps[0]
	}
	if floor == a.floor {
		return 0, 0
	}
	a.floor = floor
	a.deferred = slices.DeleteFunc(a.deferred, func(tag uint64) bool {
		if tag > floor {
			return false
		}
		n++
		highest = max(highest, tag)
		return true
	})
	return n, highest
}
