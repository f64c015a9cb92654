package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

// This file is the queue of the frames that wait to be written to a device.
//
// The queue belongs to the device and not to a session. When a newer session replaces the current
// one, the frames of which no byte is written stay in the queue and are written in the newer
// session. When the device goes offline, they end as Offline.
//
// One goroutine at a time is the writer. A caller of Enqueue that finds no writer becomes the
// writer. When the kernel takes no more bytes, the caller starts a goroutine that continues.
//
// A frame has these states:
//   - waiting: it is in the queue. It can be superseded, overtaken or withdrawn, and it can
//     expire.
//   - inFlight: it is in the queue, and the writer has passed it to the connection. If the kernel
//     takes none of it, it is waiting again, with two exceptions: a protocol with a state has
//     encoded the frame, or a part of the frame is in an encrypted record that waits for the
//     kernel. In these cases, and after the kernel took a part of it, it stays in flight.
//   - awaitingAnswer: it is a request and wholly written. It has left the queue (see request.go).
//   - finished: its fate is known. It has left the queue.
//
// Invariants:
//   - Frames are written in the order of the queue.
//   - Only the first frame can be partly written. Its rest is written in the same session, or the
//     frame ends as Unknown.
//   - While a frame is in flight, only the writer changes its place or its state.
//   - Every frame finishes exactly once.
//
// encoding.go says how protocols with a state change this. attached.go is about devices that share
// the queue of another device.
//
// slot.mu guards the queue and its frames. It isn't locked during TryWrite and WaitWritable.
// registry.go has the order of the locks.

const (
	// maxWrite is how many bytes of waiting frames are copied into one write.
	maxWrite = 16 << 10
	// maxEncoded is how many bytes of commands are encoded for one write by a protocol with a
	// state. It is about one TCP segment.
	maxEncoded = 1400
	// laterPause is the time after which a protocol that returned ErrLater is asked again.
	laterPause = time.Second
	// inlineRounds is the number of writes that a caller of Enqueue makes. After these writes, a
	// goroutine writes what is left.
	inlineRounds = 4
)

// writeBuffers has the buffers into which the frames of one write are copied.
var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, maxWrite)
	return &b
}}

// queue is the queue of a device's frames. slot.mu guards it.
type queue struct {
	head, tail     *frame
	count          int
	bytes          int
	writing        bool // a writer is running
	writingRequest bool // TryWrite is running with a request
	// requestWritten is signalled when writingRequest becomes false; the first waiter makes it.
	requestWritten *sync.Cond
	// to is the session of the last write. If head is partly written, its written bytes went to
	// this session.
	to *Session
	// drained is closed when the queue becomes empty; the first waiter makes it.
	drained chan struct{}
}

// enqueueFrame adds f to the queue. If no writer is running, it becomes the writer and writes what
// it can without waiting. It returns false if the device has no session. s.mu is locked on entry
// and unlocked on return.
func (s *slot) enqueueFrame(f *frame) (live bool, err error) {
	if s.session == nil {
		s.mu.Unlock()
		return false, nil
	}
	if f.epoch != 0 && f.epoch != s.session.epoch {
		s.mu.Unlock()
		return true, ErrSession
	}
	f.attach(s.session.ifAttached())
	s = s.line()
	f.slot = s
	limits := &s.registry.limits
	old, oldBytes := s.findSuperseded(f)
	count, bytes := s.queue.count-len(old), s.queue.bytes-oldBytes
	if count > 0 && (count >= limits.QueueCount || bytes+f.size() > limits.QueueBytes) {
		s.mu.Unlock()
		return true, fmt.Errorf("%w: %d frames of %d bytes wait", ErrBusy, count, bytes)
	}
	for _, o := range old {
		s.finishFrame(o, Superseded, nil, fmt.Sprintf("command %s came for %q", f.id, f.sets))
	}
	q := &s.queue
	q.insertFrame(f)
	q.count++
	q.bytes += f.size()
	if q.writing {
		s.mu.Unlock()
		return true, nil
	}
	q.writing = true
	s.writeQueue(true)
	return true, nil
}

// insertFrame adds f at the end of the queue. If waiting frames at the end have a lower priority
// and no byte of them is written, f overtakes them.
func (q *queue) insertFrame(f *frame) {
	f.prev = q.tail
	for f.prev != nil && f.prev.priority < f.priority && f.prev.state == waiting && f.prev.offset == 0 {
		f.next, f.prev = f.prev, f.prev.prev
	}
	if f.prev == nil {
		q.head = f
	} else {
		f.prev.next = f
	}
	if f.next == nil {
		q.tail = f
	} else {
		f.next.prev = f
	}
}

// findSuperseded returns the frames that a new frame supersedes, and the number of their bytes.
// They wait, they change the same setting, and no byte of them is written.
func (s *slot) findSuperseded(by *frame) (old []*frame, bytes int) {
	if by.sets == "" {
		return nil, 0
	}
	for f := s.queue.head; f != nil; f = f.next {
		if f.state == waiting && f.offset == 0 && f.sets == by.sets && f.hasDeviceOf(by) {
			old = append(old, f)
			bytes += f.size()
		}
	}
	return old, bytes
}

// writeQueue is the writer. It returns when the queue is empty or the first frame must wait. An
// inline writer runs in a caller of Enqueue. Before it would block, and after inlineRounds writes,
// it starts a goroutine that continues. s.mu is locked on entry and unlocked on return.
func (s *slot) writeQueue(inline bool) {
	q := &s.queue
	blocked := false
	for round := 0; ; round++ {
		session := s.session
		s.settleStale()
		switch {
		case q.head == nil:
			q.writing = false
			s.mu.Unlock()
			return
		case inline && (blocked || round == inlineRounds):
			s.registry.writers.Go(func() {
				s.mu.Lock()
				s.writeQueue(false)
			})
			s.mu.Unlock()
			return
		case blocked:
			s.mu.Unlock()
			err := session.conn.WaitWritable(time.Now().Add(s.registry.limits.WriteTimeout))
			if err != nil {
				s.registry.endBroken(session, err)
			}
			s.mu.Lock()
			blocked = false
			continue
		}
		buf, copied, n, mustWait := s.pickFrames()
		switch {
		case mustWait:
			q.writing = false
			s.mu.Unlock()
			return
		case n == 0:
			continue
		}
		q.to = session
		s.mu.Unlock()
		taken, begun, err := session.conn.TryWrite(buf)
		if err != nil {
			s.registry.endBroken(session, err)
		}
		s.registry.metrics.countBytes(taken)
		s.mu.Lock()
		blocked = taken < len(buf) && err == nil
		s.recordWritten(session, n, taken, begun)
		if q.writingRequest {
			q.writingRequest = false
			if q.requestWritten != nil {
				q.requestWritten.Broadcast()
			}
		}
		if copied != nil {
			writeBuffers.Put(copied)
		}
	}
}

// requestWritten returns the condition that is signalled when the outcome of writing a request is
// recorded. s.mu is locked.
func (s *slot) requestWritten() *sync.Cond {
	if s.queue.requestWritten == nil {
		s.queue.requestWritten = sync.NewCond(s.mu)
	}
	return s.queue.requestWritten
}

// pickFrames chooses the frames of the next write and marks them as in flight. It returns their
// number n and their bytes. If n is above 1, the bytes are in a buffer of writeBuffers, which is
// returned as copied. Expired frames end.
//
// If mustWait is true, the first frame can't be written yet. It waits for an answer, for a time,
// or for its protocol. If it waits for a time, pickFrames has set a timer that resumes the
// writing.
func (s *slot) pickFrames() (buf []byte, copied *[]byte, n int, mustWait bool) {
	q := &s.queue
	size, asking := 0, 0
	var now time.Time
	for f := q.head; f != nil; {
		next := f.next
		if f.state == waiting && !f.expires.IsZero() {
			if now.IsZero() {
				now = s.registry.now()
			}
			if !now.Before(f.expires) {
				s.finishFrame(f, Expired, s.session, "")
				f = next
				continue
			}
		}
		limit := maxWrite
		if f.command != nil && f.data == nil {
			limit = maxEncoded
		}
		if n > 0 && (size+f.size()-f.offset > limit || f.gap > 0) {
			break
		}
		ok, at := s.mayWrite(f, asking)
		if ok && f.command != nil && f.data == nil {
			err := s.encodeFrame(f)
			if ok = !errors.Is(err, protocol.ErrLater); ok && err != nil {
				s.finishFrame(f, Rejected, s.session, err.Error())
				f = next
				continue
			}
			at = time.Now().Add(laterPause)
		}
		if !ok {
			if mustWait = n == 0; mustWait && !at.IsZero() {
				s.resumeWritingAt(at)
			}
			break
		}
		rest := len(f.data) - f.offset
		f.state = inFlight
		if f.times != nil && f.offset == 0 {
			f.times.Begun = time.Now()
		}
		size += rest
		n++
		if f.request != nil {
			q.writingRequest = true
			asking++
			if f.request.isExclusive() {
				break
			}
		}
		f = next
	}
	switch n {
	case 0:
		return nil, nil, 0, mustWait
	case 1:
		return q.head.data[q.head.offset:], nil, 1, false
	}
	copied = writeBuffers.Get().(*[]byte)
	buf = (*copied)[:0]
	for f, i := q.head, 0; i < n; f, i = f.next, i+1 {
		buf = append(buf, f.data[f.offset:]...)
	}
	*copied = buf
	return buf, copied, n, false
}

// recordWritten handles the result of a write in session: the kernel took taken bytes of the first
// n frames. begun is what Conn.TryWrite returned. Frames that are wholly written end, or begin to
// wait for their answer.
func (s *slot) recordWritten(session *Session, n, taken, begun int) {
	for f := s.queue.head; n > 0; n-- {
		next := f.next
		rest := len(f.data) - f.offset
		// While the session lasts, a bound frame can't be taken back.
		bound := f.command != nil || begun > 0
		begun -= rest
		switch {
		case taken >= rest:
			taken -= rest
			f.deviceSession(session).countWritten(rest, true)
			if f.gap > 0 {
				s.lastWritten = time.Now()
			}
			if f.times != nil {
				f.times.Written = time.Now()
			}
			switch {
			case f.request == nil:
				s.finishFrame(f, Sent, session, "")
			case f.isOnline(session):
				s.awaitAnswer(f, session)
			default:
				if s.session == session { // the connection stays, so the answer may still arrive
					s.requests.addMissed(f)
				}
				s.finishFrame(f, NoReply, session, f.deviceSession(session).endText()+" before it answered")
			}
		case f.offset+taken > 0:
			f.deviceSession(session).countWritten(taken, false)
			f.offset += taken
			taken = 0
		case f.withdrawnAs != 0 && (!bound || s.session != session):
			s.finishWithdrawn(f, session)
		case s.session == nil:
			s.finishFrame(f, Offline, session, session.endText())
		case !bound:
			f.state = waiting
		}
		f = next
	}
}

// finishUnwritten ends every waiting frame of a device whose last session has ended. Frames in
// flight end in recordWritten.
func (s *slot) finishUnwritten(session *Session) {
	for f := s.queue.head; f != nil; {
		next := f.next
		if f.attached == session.ifAttached() && f.offset == 0 {
			if f.orphaned != nil {
				f.orphaned()
			}
			switch {
			case f.state == waiting:
				s.finishFrame(f, Offline, session, session.endText())
			case f.attached != nil && f.withdrawnAs == 0:
				f.withdrawnAs = Offline
			}
		}
		f = next
	}
}

// finishFrame removes f from the queue and reports its fate.
func (s *slot) finishFrame(f *frame, fate Fate, session *Session, detail string) {
	w := Written{Fate: fate, Detail: detail}
	if session = f.deviceSession(session); session != nil {
		w.Epoch = session.epoch
	}
	s.removeFrame(f)
	s.reportFate(f, w)
}

// finishWithdrawn is finishFrame for a frame that was withdrawn while it was in flight.
func (s *slot) finishWithdrawn(f *frame, session *Session) {
	detail := ""
	if f.withdrawnAs == Offline {
		detail = f.attached.endText()
	}
	s.finishFrame(f, f.withdrawnAs, session, detail)
}

// removeFrame removes f from the queue.
func (s *slot) removeFrame(f *frame) {
	q := &s.queue
	if f.prev == nil {
		q.head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		q.tail = f.prev
	} else {
		f.next.prev = f.prev
	}
	q.count--
	q.bytes -= f.size()
	f.prev, f.next, f.data = nil, nil, nil
	if f.command != nil {
		f.command = nil
	}
	if q.count == 0 && q.drained != nil {
		close(q.drained)
		q.drained = nil
	}
}

// reportFate records how a frame ended and wakes its waiter. The frame isn't in the queue.
func (s *slot) reportFate(f *frame, w Written) {
	f.state, f.written = finished, w
	if f.done != nil {
		close(f.done)
	}
	if !f.isResponse {
		s.registry.metrics.countFate(w.Fate)
	}
}

// waitUntilEmpty blocks until the queue is empty or ctx ends.
func (s *slot) waitUntilEmpty(ctx context.Context) {
	s.mu.Lock()
	if s.queue.count == 0 {
		s.mu.Unlock()
		return
	}
	if s.queue.drained == nil {
		s.queue.drained = make(chan struct{})
	}
	drained := s.queue.drained
	s.mu.Unlock()
	select {
	case <-drained:
	case <-ctx.Done():
	}
}
