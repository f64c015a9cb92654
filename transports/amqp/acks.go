package amqp

import (
	"slices"
	"sync"
	"time"
)

// The acks of a channel are gathered, so that one frame acks many messages.
//
// AMQP can ack all tags up to a number with one frame ("multiple"). That is right only if all
// lower tags are settled. Pipelines settle messages in any order, so settled tags often have an
// unsettled tag below them: a gap. Acks above a gap are deferred for deferTime. If the gap closes
// in that time, one frame acks all of them. Otherwise they are acked tag by tag, and no later ack
// waits for the same gap.
//
// A tag has one of four states:
//
//   - unsettled: it is above high, or it is in gaps.
//   - ready: queueAck was called, and the writer hasn't seen it yet.
//   - deferred: the writer has seen it, and its ack isn't written because a gap is below it.
//   - acked.
//
// Invariants of the writer: floor is the lowest unsettled tag. gaps has the unsettled tags from
// floor to high, in order. deferred has the settled tags above floor whose acks aren't written.
// The prefetch bounds all of them, so it also bounds the cost of each write. mu guards ready and
// stopped only, and no I/O is done under it.

// deferTime is how long an ack waits for the gaps below it. A broker confirms in bursts, as its
// disk allows, so most gaps close within some ten milliseconds.
const deferTime = 40 * time.Millisecond

// ackWriter is the part of a channel that writes acks.
type ackWriter interface {
	Ack(tag uint64, multiple bool) error
}

// acks writes the acks of one channel, whose tags count from 1. One goroutine writes them, so
// queueAck never blocks. Acks that become ready during a write go with the next batch: a busy
// channel sends few frames, and an idle one sends each ack at once.
type acks struct {
	ch   ackWriter
	sent func(n int)

	mu      sync.Mutex
	ready   []uint64
	stopped bool
	// wake wakes the writer. written is closed when the writer has written its last ack.
	wake    chan struct{}
	written chan struct{}

	// The fields from here on belong to the writer; the opening comment of this file explains
	// them. stuck is the value of floor at which acks have waited for deferTime without success.
	// While floor has this value, no ack is deferred.
	batch    []uint64
	high     uint64
	floor    uint64
	stuck    uint64
	gaps     []uint64
	deferred []uint64
	// wrote is the time of the last write. Others may read it after stop.
	wrote time.Time
}

// newAcks returns the acks of a channel. The caller starts run and calls stop. sent receives the
// number of acks of each write.
func newAcks(ch ackWriter, sent func(n int)) *acks {
	return &acks{ch: ch, sent: sent, floor: 1, wake: make(chan struct{}, 1), written: make(chan struct{})}
}

// queueAck queues the ack of a tag. After stop it does nothing.
func (a *acks) queueAck(tag uint64) {
	a.mu.Lock()
	if !a.stopped {
		a.ready = append(a.ready, tag)
	}
	a.mu.Unlock()
	a.wakeWriter()
}

// stop waits until all queued acks are written.
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

// writeAcks writes the acks that are ready, and reports whether they were the last. It sets
// "multiple" only for tags below floor. Acks above floor are deferred, or written tag by tag if
// release is set.
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
	// Ack fails only if the channel is lost. Its deliveries are void then, and the generation
	// learns of the loss by itself.
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

// markSettled removes a tag from the gaps. If the tag is above high, all tags between become gaps.
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

// raiseFloor moves floor up to the lowest unsettled tag and removes the tags below it from
// deferred. It returns their number and the highest of them.
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
