package device

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// coalesce is how many bytes of waiting frames are copied into one write.
	maxWrite = 16 << 10
	// inlineRounds is how many writes a caller of Enqueue makes for others before it hands its place to a goroutine.
	inlineRounds = 4
)

// writeBuffers are what waiting frames are copied into.
var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, maxWrite)
	return &b
}}

// frame is one payload, framed, on its way. Its fields are guarded by slot.mu; written is also safe to read once done is
// closed.
type frame struct {
	slot    *slot
	data    []byte
	expires time.Time
	*conditions
	epoch    uint64 // the session that it is for; 0 is any
	orphaned func()
	// offset is how many bytes the kernel took. A frame with an offset is the queue's first.
	offset int
	state  frameState
	// withdrawn is how the frame is to end if it turns out that no byte of it was written; 0 is not at all.
	withdrawnAs Fate
	prev, next  *frame
	written     Written
	done        chan struct{} // made by who waits
}

// conditions are what few frames have. Frames without any share plain, which nobody writes to.
type conditions struct {
	// sets is what a newer frame of the same name supersedes; empty for none.
	sets string
	id   string
	gap  time.Duration // from the frame before
	// priority overtakes lower ones.
	priority int
	// question is what the device is asked; asked is the session that it was asked in, and timer ends the wait for the answer.
	request     *Request
	askedIn     *Session
	answerTimer *time.Timer
	times       *Times // nil: nobody wants to know
}

var noConditions conditions

func newFrame(o EnqueueOptions) *frame {
	f := &frame{expires: o.Expires, conditions: &noConditions, epoch: o.Epoch, orphaned: o.Orphaned}
	if o.Supersede != "" || o.Request != nil || o.Gap > 0 || o.Priority > 0 || o.Times != nil {
		f.conditions = &conditions{sets: o.Supersede, id: o.ID, gap: o.Gap, request: o.Request, priority: o.Priority, times: o.Times}
	}
	return f
}

type frameState uint8

const (
	waiting        frameState = iota
	inFlight                  // handed to the connection, which didn't say yet what it took, or partly written
	awaitingAnswer            // written, and its answer pending; not in the queue any more
	finished
)

// queue is a device's frames in order. It belongs to the device and not to a session, so that what a session didn't begin is
// the next session's to write. One goroutine at a time is the writer: whoever enqueues and finds none becomes it, and gives
// way to a goroutine of its own when the kernel takes no more.
type queue struct {
	head, tail     *frame
	count          int
	bytes          int
	writing        bool
	writingRequest bool // a question is being handed to the connection
	// landed is signalled when that is over; made by who waits.
	requestWritten *sync.Cond
	// to is the session that the head's written bytes went to.
	to *Session
	// drained is closed when the queue gets empty; made by who waits.
	drained chan struct{}
}

// enqueue takes f as the queue's last and writes what can be written without waiting.
// It returns false if the device has no session any more. s.mu is held on entry and released on return.
func (s *slot) enqueueFrame(f *frame) (live bool, err error) {
	if s.session == nil {
		s.mu.Unlock()
		return false, nil
	}
	if f.epoch != 0 && f.epoch != s.session.epoch {
		s.mu.Unlock()
		return true, ErrSession
	}
	limits := &s.registry.limits
	old, oldBytes := s.findSuperseded(f)
	count, bytes := s.queue.count-len(old), s.queue.bytes-oldBytes
	if count > 0 && (count >= limits.QueueCount || bytes+len(f.data) > limits.QueueBytes) {
		s.mu.Unlock()
		return true, fmt.Errorf("%w: %d frames of %d bytes wait", ErrBusy, count, bytes)
	}
	for _, o := range old {
		s.finishFrame(o, Superseded, nil, fmt.Sprintf("command %s came for %q", f.id, f.sets))
	}
	q := &s.queue
	q.insertFrame(f)
	q.count++
	q.bytes += len(f.data)
	if q.writing {
		s.mu.Unlock()
		return true, nil
	}
	q.writing = true
	s.writeQueue(true)
	return true, nil
}

// insert puts f last, but before those of less priority that nothing is written of.
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

// superseded returns the frames that set what by sets, as far as nothing of them was written, and their bytes.
func (s *slot) findSuperseded(by *frame) (old []*frame, bytes int) {
	if by.sets == "" {
		return nil, 0
	}
	for f := s.queue.head; f != nil; f = f.next {
		if f.state == waiting && f.offset == 0 && f.sets == by.sets {
			old = append(old, f)
			bytes += len(f.data)
		}
	}
	return old, bytes
}

// write is the writer. It ends when nothing is left to write or, inline, when it had to wait or wrote enough for others: then a
// goroutine goes on. s.mu is held on entry and released on return.
func (s *slot) writeQueue(inline bool) {
	q := &s.queue
	blocked := false
	for round := 0; ; round++ {
		session := s.session
		if h := q.head; h != nil && h.offset > 0 && q.to != session {
			s.finishFrame(h, Unknown, q.to, fmt.Sprintf("%s after %d of %d bytes", q.to.endText(), h.offset, len(h.data)))
		}
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
		buf, copied, n, held := s.pickFrames()
		switch {
		case held:
			q.writing = false
			s.mu.Unlock()
			return
		case n == 0:
			continue
		}
		q.to = session
		s.mu.Unlock()
		taken, err := session.conn.TryWrite(buf)
		if err != nil {
			s.registry.endBroken(session, err)
		}
		s.registry.metrics.countBytes(taken)
		s.mu.Lock()
		blocked = taken < len(buf) && err == nil
		s.recordWritten(session, n, taken)
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

// accounted is signalled when the connection said what it took of a question. s.mu is held.
func (s *slot) requestWritten() *sync.Cond {
	if s.queue.requestWritten == nil {
		s.queue.requestWritten = sync.NewCond(&s.mu)
	}
	return s.queue.requestWritten
}

// pick marks the frames of the next write as flying and returns their number and bytes, and the buffer if those are a copy. Frames
// whose time is over are settled. held says that the first must wait: for an answer, or for its time, and then it is resumed.
func (s *slot) pickFrames() (buf []byte, copied *[]byte, n int, held bool) {
	q := &s.queue
	size, questions := 0, 0
	var now time.Time
	for f := q.head; f != nil; {
		next := f.next
		if f.offset == 0 && !f.expires.IsZero() {
			if now.IsZero() {
				now = s.registry.now()
			}
			if !now.Before(f.expires) {
				s.finishFrame(f, Expired, s.session, "")
				f = next
				continue
			}
		}
		rest := len(f.data) - f.offset
		if n > 0 && (size+rest > maxWrite || f.gap > 0) {
			break
		}
		if ok, at := s.mayWrite(f, questions); !ok {
			if held = n == 0; held && !at.IsZero() {
				s.resumeWritingAt(at)
			}
			break
		}
		f.state = inFlight
		if f.times != nil && f.offset == 0 {
			f.times.Begun = time.Now()
		}
		size += rest
		n++
		if f.request != nil {
			q.writingRequest = true
			questions++
			if f.request.isExclusive() {
				break
			}
		}
		f = next
	}
	switch n {
	case 0:
		return nil, nil, 0, held
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

// account settles the first n frames, which were flying to session, of which the kernel took so many bytes.
func (s *slot) recordWritten(session *Session, n, taken int) {
	for f := s.queue.head; n > 0; n-- {
		next := f.next
		rest := len(f.data) - f.offset
		switch {
		case taken >= rest:
			taken -= rest
			if f.gap > 0 {
				s.lastWritten = time.Now()
			}
			if f.times != nil {
				f.times.Written = time.Now()
			}
			switch {
			case f.request == nil:
				s.finishFrame(f, Sent, session, "")
			case s.session == session:
				s.awaitAnswer(f, session)
			default:
				s.finishFrame(f, NoReply, session, session.endText()+" before it answered")
			}
		case f.offset+taken > 0:
			f.offset += taken
			taken = 0
		case f.withdrawnAs != 0:
			s.finishFrame(f, f.withdrawnAs, session, "")
		case s.session == nil:
			s.finishFrame(f, Offline, session, session.endText())
		default:
			f.state = waiting
		}
		f = next
	}
}

// abandon settles every frame of which no byte was written: the device's last session ended.
func (s *slot) finishUnwritten(session *Session) {
	for f := s.queue.head; f != nil; {
		next := f.next
		if f.orphaned != nil && f.offset == 0 {
			f.orphaned()
		}
		if f.state == waiting {
			s.finishFrame(f, Offline, session, session.endText())
		}
		f = next
	}
}

// settle takes f out of the queue and tells who waits for it.
func (s *slot) finishFrame(f *frame, fate Fate, session *Session, detail string) {
	w := Written{Fate: fate, Detail: detail}
	if session != nil {
		w.Epoch = session.epoch
	}
	s.removeFrame(f)
	s.reportFate(f, w)
}

// unlink takes f out of the queue.
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
	q.bytes -= len(f.data)
	f.prev, f.next, f.data = nil, nil, nil
	if q.count == 0 && q.drained != nil {
		close(q.drained)
		q.drained = nil
	}
}

// conclude tells who waits for a frame, which isn't in the queue any more, how it ended.
func (s *slot) reportFate(f *frame, w Written) {
	f.state, f.written = finished, w
	if f.done != nil {
		close(f.done)
	}
	s.registry.metrics.countFate(w.Fate)
}

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
	written := f.state == awaitingAnswer // nothing but its answer ends it
	s.mu.Unlock()
	if written {
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

// withdraw takes the frame out of the queue if no byte of it was written.
func (f *frame) withdraw(fate Fate) {
	s := f.slot
	s.mu.Lock()
	switch {
	case f.state == waiting:
		s.finishFrame(f, fate, s.session, "")
	case f.state == inFlight && f.withdrawnAs == 0:
		f.withdrawnAs = fate
	}
	s.resumeWriting() // it may have been in the way of others
}

// wait blocks until the queue is empty or ctx ends.
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
