package device

import (
	"slices"
	"time"
)

// Request says that a payload asks the device something, and what answers it.
type Request struct {
	// Timeout is how long the answer may take, counted from the frame's last byte. It must be above 0.
	Timeout time.Duration
	// Matches reports whether what the device sent answers this question; it keeps nothing of it. nil: whatever comes next does.
	Matches func(frame []byte) bool
	// MaxOpen is how many questions the device may have open for this one to be asked too. Without Matches it is 1: nothing else is written to
	// the device until it has answered, or until an answer that is late isn't to be expected any more.
	MaxOpen int
}

// alone reports whether nothing else may be written while the question is open.
func (q *Request) alone() bool { return q.Matches == nil || q.MaxOpen <= 1 }

// questions are those that a device was asked. They are guarded by slot.mu.
type questions struct {
	// open wait for their answers, the oldest first.
	open []*frame
	// missed weren't answered in time in this session, the newest last; their answers may still come.
	missed []missed
	// quiet is until when no question without Matches is asked: what comes may be the late answer to one. It is zero when what came until
	// then was read.
	quiet time.Time
}

// missed is a question whose answer may come late.
type missed struct {
	id      string
	matches func([]byte) bool // nil: whatever comes until the questions' quiet is over
}

// mostMissed is how many unanswered questions of a session are remembered, to know late answers by.
const mostMissed = 16

// mayWrite reports whether the frame may be begun now, behind so many questions of the same write; if only time is in its way, when it may.
func (s *slot) mayWrite(f *frame, asking int) (ok bool, at time.Time) {
	if f.offset > 0 {
		return true, time.Time{}
	}
	q := &s.questions
	if len(q.open) > 0 && q.open[0].question.alone() {
		return false, time.Time{}
	}
	if f.gap > 0 && !s.wrote.IsZero() {
		at = s.wrote.Add(f.gap)
	}
	if question := f.question; question != nil {
		if open := len(q.open) + asking; open > 0 && (question.alone() || open >= question.MaxOpen) {
			return false, time.Time{}
		}
		if question.Matches == nil && !q.quiet.IsZero() {
			if until := s.silentUntil(); until.After(at) {
				at = until
			}
		}
	}
	if at.IsZero() || !time.Now().Before(at) {
		return true, time.Time{}
	}
	return false, at
}

// unreadPause is how long a question waits at a time until what the device sent before is read.
const unreadPause = 10 * time.Millisecond

// silentUntil returns when it can be asked again after a question that wasn't answered in time. A late answer may have come and not be read
// yet: no consumer of data has room, or the host stood still. s.mu is held.
func (s *slot) silentUntil() time.Time {
	q := &s.questions
	now := time.Now()
	switch {
	case now.Before(q.quiet):
	case s.session.conn.Unread():
		return now.Add(unreadPause)
	default:
		q.quiet = time.Time{}
	}
	return q.quiet
}

// ask has the frame, whose last byte is written, wait for its answer. s.mu is held.
func (s *slot) ask(f *frame, session *Session) {
	s.unlink(f)
	f.state, f.asked = asked, session
	s.questions.open = append(s.questions.open, f)
	f.timer = time.AfterFunc(f.question.Timeout, f.unanswered)
}

// unanswered ends a question whose time is over.
func (f *frame) unanswered() {
	s := f.slot
	s.mu.Lock()
	if f.state != asked {
		s.mu.Unlock()
		return
	}
	q := &s.questions
	q.open = slices.DeleteFunc(q.open, func(o *frame) bool { return o == f })
	if f.question.Matches == nil {
		q.quiet = time.Now().Add(f.question.Timeout)
		// Those before are over with their own time.
		q.missed = slices.DeleteFunc(q.missed, func(m missed) bool { return m.matches == nil })
	}
	if len(q.missed) == mostMissed {
		q.missed = slices.Delete(q.missed, 0, 1)
	}
	q.missed = append(q.missed, missed{f.id, f.question.Matches})
	s.conclude(f, Written{Fate: NoReply, Epoch: f.asked.epoch, Detail: "no answer came within " + f.question.Timeout.String()})
	s.resume()
}

// answer ends the oldest question that frame answers, if there is one. s.mu is held.
func (s *slot) answer(frame []byte) bool {
	q := &s.questions
	for i, f := range q.open {
		if f.question.Matches == nil || f.question.Matches(frame) {
			q.open = slices.Delete(q.open, i, i+1)
			f.timer.Stop()
			if f.times != nil {
				f.times.Answered = time.Now()
			}
			s.conclude(f, Written{Fate: Answered, Epoch: f.asked.epoch, Reply: string(frame)})
			return true
		}
	}
	return false
}

// late returns the id of the command whose question frame answers too late, or "". s.mu is held.
func (s *slot) late(frame []byte) string {
	q := &s.questions
	for i, m := range q.missed {
		if m.matches == nil && !time.Now().Before(q.quiet) || m.matches != nil && !m.matches(frame) {
			continue
		}
		if m.matches == nil {
			q.quiet = time.Time{} // it is here
		}
		q.missed = slices.Delete(q.missed, i, i+1)
		return m.id
	}
	return ""
}

// endQuestions ends what was asked in a session that ends. s.mu is held.
func (s *slot) endQuestions(session *Session) {
	for _, f := range s.questions.open {
		f.timer.Stop()
		s.conclude(f, Written{Fate: NoReply, Epoch: session.epoch, Detail: session.ending() + " before it answered"})
	}
	s.questions = questions{}
}

// resume has the queue written on, if there is something to write and nobody does. s.mu is held on entry and released on return.
func (s *slot) resume() {
	if s.queue.head == nil || s.queue.writing {
		s.mu.Unlock()
		return
	}
	s.queue.writing = true
	s.write(true)
}

// resumeAt is resume, when it is time. s.mu is held.
func (s *slot) resumeAt(at time.Time) {
	if s.retry != nil {
		s.retry.Stop()
	}
	s.retry = time.AfterFunc(time.Until(at), func() {
		s.mu.Lock()
		s.resume()
	})
}
