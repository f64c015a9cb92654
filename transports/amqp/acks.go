package amqp

import (
	"sync"
	"time"
)

// holdTime is how long acks above an unsettled tag wait for it at most: one frame then acks all of them. Confirms come in bursts and
// wake their waiters in any order, so most gaps close within microseconds, and each frame saved spares the broker more work than us.
const holdTime = 5 * time.Millisecond

// ackWriter is the part of a channel that acks.
type ackWriter interface {
	Ack(tag uint64, multiple bool) error
}

// acks sends the acks of one channel, whose tags count from 1. What becomes ready while a batch is being written goes with the next
// one, so a busy channel sends few frames and an idle one sends at once. Acks above an unsettled tag are held for a moment.
type acks struct {
	ch   ackWriter
	most int           // how many acks are held at most
	hold time.Duration // and how long
	sent func(n int)

	mu      sync.Mutex
	ready   []uint64
	release bool // write what is held
	writing bool
	stopped bool
	// idle is signalled when writing ends.
	idle sync.Cond

	// Below is the writer's own. state[i] belongs to tag low+i; everything below low is acked.
	batch []uint64
	low   uint64
	state []ackState
	held  int
	// wrote is when the last frame was written; it may be read after stop.
	wrote time.Time
	timer *time.Timer // releases what is held; nil while nothing is
}

type ackState uint8

const (
	unsettled ackState = iota
	settled
	acked
)

// newAcks returns the acks of a channel with a prefetch.
func newAcks(ch ackWriter, prefetch int, sent func(n int)) *acks {
	a := &acks{ch: ch, most: prefetch / 4, hold: holdTime, sent: sent, low: 1}
	a.idle.L = &a.mu
	return a
}

// add acks a tag. It returns when the ack is written or held, or when another caller is about to do that.
func (a *acks) add(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stopped {
		a.ready = append(a.ready, tag)
		a.work()
	}
}

// work writes until nothing is ready, unless another caller does. The lock is held, but for the writing.
func (a *acks) work() {
	if a.writing {
		return
	}
	a.writing = true
	for len(a.ready) > 0 || a.release {
		release := a.release
		a.release = false
		a.ready, a.batch = a.batch[:0], a.ready
		a.mu.Unlock()
		a.write(release)
		a.mu.Lock()
	}
	a.writing = false
	a.idle.Broadcast()
}

func (a *acks) overdue() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release = true
	a.work()
}

// stop returns when all acks so far are written, and has later ones ignored.
func (a *acks) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.release = true
	a.work()
	for a.writing {
		a.idle.Wait()
	}
}

// write acks the batch. Multiple is only used up to the lowest tag that isn't settled: it would ack that one too. What is above it is held, or acked tag by tag when it is time.
func (a *acks) write(release bool) {
	for _, tag := range a.batch {
		if need := int(tag-a.low) + 1; need > len(a.state) {
			a.state = append(a.state, make([]ackState, need-len(a.state))...)
		}
		a.state[tag-a.low] = settled
	}
	var last uint64
	var run, below int
	for below < len(a.state) && a.state[below] != unsettled {
		if a.state[below] == settled {
			last = a.low + uint64(below)
			run++
		}
		below++
	}
	total := run
	// An error means that the channel is gone, and its deliveries with it; the subscription learns that by itself.
	if run > 0 {
		_ = a.ch.Ack(last, run > 1)
	}
	copy(a.state, a.state[below:])
	a.state = a.state[:len(a.state)-below]
	a.low += uint64(below)
	a.held += len(a.batch) - run
	if a.held > 0 && (release || a.held > a.most) {
		for i, state := range a.state {
			if state == settled {
				a.state[i] = acked
				_ = a.ch.Ack(a.low+uint64(i), false)
			}
		}
		total += a.held
		a.held = 0
	}
	switch {
	case a.held > 0 && a.timer == nil:
		a.timer = time.AfterFunc(a.hold, a.overdue)
	case a.timer != nil && (release || a.held == 0):
		a.timer.Stop()
		a.timer = nil
	}
	if total > 0 {
		a.wrote = time.Now()
		a.sent(total)
	}
}
