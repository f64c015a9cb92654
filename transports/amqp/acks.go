package amqp

import (
	"sync"
)

// ackWriter is the part of a channel that acks.
type ackWriter interface {
	Ack(tag uint64, multiple bool) error
}

// acks sends the acks of one channel, whose tags count from 1. What becomes ready while a batch is being written goes with the next
// one, so a busy channel sends few frames and an idle one sends at once.
type acks struct {
	ch   ackWriter
	sent func(n int)

	mu      sync.Mutex
	ready   []uint64
	writing bool
	stopped bool
	// idle is signalled when writing ends.
	idle sync.Cond

	// Below is the writer's own. state[i] belongs to tag low+i; everything below low is acked.
	batch []uint64
	low   uint64
	state []ackState
}

type ackState uint8

const (
	unsettled ackState = iota
	settled
	acked
)

func newAcks(ch ackWriter, sent func(n int)) *acks {
	a := &acks{ch: ch, sent: sent, low: 1}
	a.idle.L = &a.mu
	return a
}

// add acks a tag. It returns when the ack is written, or when another caller is about to write it.
func (a *acks) add(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	a.ready = append(a.ready, tag)
	if a.writing {
		return
	}
	a.writing = true
	for len(a.ready) > 0 {
		a.ready, a.batch = a.batch[:0], a.ready
		a.mu.Unlock()
		a.write()
		a.mu.Lock()
	}
	a.writing = false
	a.idle.Broadcast()
}

// stop returns when all acks so far are written, and has later ones ignored.
func (a *acks) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	for a.writing {
		a.idle.Wait()
	}
}

// write acks the batch. Multiple is only used up to the lowest tag that isn't settled: it would ack that one too.
func (a *acks) write() {
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
	for _, tag := range a.batch {
		if tag < a.low {
			continue
		}
		a.state[tag-a.low] = acked
		_ = a.ch.Ack(tag, false)
		total++
	}
	a.sent(total)
}
