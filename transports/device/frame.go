package device

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

// frame is one framed payload. It is in a device's queue, or it waits for its answer. slot.mu
// guards its fields. After done is closed, written may also be read without the lock.
type frame struct {
	slot    *slot
	data    []byte
	expires time.Time
	*conditions
	epoch    uint64 // of the session that it is for; 0 means any
	orphaned func()
	// offset is how many of its bytes the kernel has taken. Only the first frame of a queue can
	// have an offset above 0.
	offset int
	state  frameState
	// withdrawnAs is set if the frame is withdrawn while it is in flight, or if its attached
	// device goes offline. It becomes the fate of the frame if the kernel takes no byte of it. 0
	// means not withdrawn.
	withdrawnAs Fate
	prev, next  *frame
	written     Written
	done        chan struct{} // closed when the frame has ended; the first call of Wait makes it
}

// conditions are the options that few frames have. All frames that have none use noConditions,
// which is never changed.
type conditions struct {
	// sets is the setting that the frame changes. A newer frame of the same setting supersedes it.
	// Empty means none.
	sets string
	id   string
	gap  time.Duration // the least time since the last byte of the previous frame
	// priority is EnqueueOptions.Priority.
	priority int
	// command is encoded into the field data when the frame is picked. It is nil for responses,
	// and if the protocol is only a framing.
	command *protocol.Command
	// request says which answer the device is expected to give. askedIn is the session in which
	// the frame was written, and answerTimer ends the wait for the answer.
	request     *Request
	askedIn     *Session
	answerTimer *time.Timer
	times       *Times // nil: the caller doesn't want them
	// attached is the session of the attached device that the frame is for, or nil.
	attached *Session
	// isResponse says that the frame is a response of the protocol, and not a command. It is only
	// for the session in askedIn.
	isResponse bool
}

var noConditions conditions

func newFrame(o EnqueueOptions, plain bool) *frame {
	f := &frame{expires: o.Expires, conditions: &noConditions, epoch: o.Epoch, orphaned: o.Orphaned}
	if o.Supersede != "" || o.Request != nil || o.Gap > 0 || o.Priority > 0 || o.Times != nil || !plain {
		f.conditions = &conditions{sets: o.Supersede, id: o.ID, gap: o.Gap, request: o.Request, priority: o.Priority, times: o.Times}
	}
	return f
}

// frameState is the state of a frame; the comment at the top of queue.go explains the states.
type frameState uint8

const (
	waiting frameState = iota
	inFlight
	awaitingAnswer
	finished
)

// Wait implements Write.
func (f *frame) Wait(ctx context.Context) Written {
	s := f.slot
	s.mu.Lock()
	if f.state == finished {
		defer s.mu.Unlock()
		return f.written
	}
	if f.done == nil {
		f.done = make(chan struct{})
	}
	answerPending := f.state == awaitingAnswer // neither ctx nor expiry ends it
	s.mu.Unlock()
	if answerPending {
		<-f.done
		return f.written
	}

	var expired <-chan time.Time
	if !f.expires.IsZero() {
		timer := time.NewTimer(f.expires.Sub(s.registry.now()))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-f.done:
		return f.written
	case <-ctx.Done():
		f.withdraw(Cancelled)
	case <-expired:
		f.withdraw(Expired)
	}
	<-f.done
	return f.written
}

// withdraw ends the frame if no byte of it is written. If it is in flight, recordWritten decides.
func (f *frame) withdraw(fate Fate) {
	s := f.slot
	s.mu.Lock()
	switch {
	case f.state == waiting:
		s.finishFrame(f, fate, s.session, "")
	case f.state == inFlight && f.withdrawnAs == 0:
		f.withdrawnAs = fate
	}
	s.resumeWriting() // frames behind it may be ready to be written
}
