package amqp

import (
	"slices"
	"sync"
	"time"
)

// holdTime is how long acks above an unsettled tag wait for it at most: one frame then acks all of them. Confirms come in bursts, as
// the broker's disk has it, and wake their waiters in any order, so most gaps close within some ten milliseconds; and each frame saved spares the
// broker more work than us. For a tag that didn't come within the time, nothing more waits.
const holdTime = 40 * time.Millisecond

// ackWriter is the part of a channel that acks.
type ackWriter interface {
	Ack(tag uint64, multiple bool) error
}

// acks sends the acks of one channel, whose tags count from 1. What becomes ready while a batch is being written goes with the next
// one, so a busy channel sends few frames and an idle one sends at once. Acks above an unsettled tag are held for a moment.
type acks struct {
	ch   ackWriter
	hold time.Duration // how long acks are held at most
	sent func(n int)

	mu      sync.Mutex
	ready   []uint64
	release bool // write what is held
	writing bool
	stopped bool
	// idle is signalled when writing ends.
	idle sync.Cond

	// Below is the writer's own: floor is the lowest unsettled tag and high the highest settled one, gaps are the unsettled tags from floor
	// to high, in order, and held the settled tags above floor whose ack isn't written. stuck is a floor that was waited for in vain. All are
	// bounded by the prefetch, and so is what a release costs, however long one tag stays unsettled.
	batch []uint64
	high  uint64
	floor uint64
	stuck uint64
	gaps  []uint64
	held  []uint64
	// wrote is when the last frame was written; it may be read after stop.
	wrote time.Time
	timer *time.Timer // releases what is held; nil while nothing is
}

// newAcks returns the acks of a channel.
func newAcks(ch ackWriter, sent func(n int)) *acks {
	a := &acks{ch: ch, hold: holdTime, sent: sent, floor: 1}
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

// write acks the batch. Multiple is only used below floor: it would ack that tag too. What is above it is held, or acked tag by tag
// when it is time.
func (a *acks) write(release bool) {
	for _, tag := range a.batch {
		a.settle(tag)
	}
	a.held = append(a.held, a.batch...)
	total := 0
	// An error means that the channel is gone, and its deliveries with it; the subscription learns that by itself.
	if n, last := a.rise(); n > 0 {
		_ = a.ch.Ack(last, n > 1)
		total += n
	}
	if release {
		a.stuck = a.floor
	}
	if len(a.held) > 0 && a.stuck == a.floor {
		for _, tag := range a.held {
			_ = a.ch.Ack(tag, false)
		}
		total += len(a.held)
		a.held = a.held[:0]
	}
	switch {
	case len(a.held) > 0 && a.timer == nil:
		a.timer = time.AfterFunc(a.hold, a.overdue)
	case a.timer != nil && (release || len(a.held) == 0):
		a.timer.Stop()
		a.timer = nil
	}
	if total > 0 {
		a.wrote = time.Now()
		a.sent(total)
	}
}

// settle takes a tag out of the gaps, or makes gaps of those that it skips.
func (a *acks) settle(tag uint64) {
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

// rise moves floor up to the lowest unsettled tag and takes what is below it from the held: their number and the last of them.
func (a *acks) rise() (n int, last uint64) {
	floor := a.high + 1
	if len(a.gaps) > 0 {
		floor = a.gaps[0]
	}
	if floor == a.floor {
		return 0, 0
	}
	a.floor = floor
	a.held = slices.DeleteFunc(a.held, func(tag uint64) bool {
		if tag > floor {
			return false
		}
		n++
		last = max(last, tag)
		return true
	})
	return n, last
}
