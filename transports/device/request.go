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
func (q *Request) isExclusive() bool { return q.Matches == nil || q.MaxOpen <= 1 }

// questions are those that a device was asked. They are guarded by slot.mu.
type requests struct {
	// open wait for their answers, the oldest first.
	open []*frame
	// missed weren't answered in time in this session, the newest last; their answers may still come.
	missed []missedRequest
	// quiet is until when no question without Matches is asked: what comes may be the late answer to one. It is zero when what came until
	// then was read.
	quietUntil time.Time
}

// missed is a question whose answer may come late.
type missedRequest struct {
	id      string
	matches func([]byte) bool // nil: whatever comes until the questions' quiet is over
}

// mostMissed is how many unanswered questions of a session are remembered, to know late answers by.
const maxMissed = 16

// mayWrite reports whether the frame may be begun now, behind so many questions of the same write; if only time is in its way, when it may.
func (s *slot) mayWrite(f *frame, asking int) (ok bool, at time.Time) {
	if f.offset > 0 {
		return true, time.Time{}
	}
	q := &s.requests
	if len(q.open) > 0 && q.open[0].request.isExclusive() {
		return false, time.Time{}
	}
	if f.gap > 0 && !s.lastWritten.IsZero() {
		at = s.lastWritten.Add(f.gap)
	}
	if question := f.request; question != nil {
		if open := len(q.open) + asking; open > 0 && (question.isExclusive() || open >= question.MaxOpen) {
			return false, time.Time{}
		}
		if question.Matches == nil && !q.quietUntil.IsZero() {
			if until := s.checkQuiet(); until.After(at) {
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
func (s *slot) checkQuiet() time.Time {
	q := &s.requests
	now := time.Now()
	switch {
	case now.Before(q.quietUntil):
	case s.session.conn.Unread():
		return now.Add(unreadPause)
	default:
		q.quietUntil = time.Time{}
	}
	return q.quietUntil
}

// ask has the frame, whose last byte is written, wait for its answer. s.mu is held.
func (s *slot) awaitAnswer(f *frame, session *Session) {
	s.removeFrame(f)
	f.state, f.askedIn = awaitingAnswer, session
	s.requests.open = append(s.requests.open, f)
	f.answerTimer = time.AfterFunc(f.request.Timeout, f.timeOutRequest)
}

// unanswered ends a question whose time is over.
func (f *frame) timeOutRequest() {
	s := f.slot
	s.mu.Lock()
	if f.state != awaitingAnswer {
		s.mu.Unlock()
		return
	}
	q := &s.requests
	q.open = slices.DeleteFunc(q.open, func(o *frame) bool { return o == f })
	if f.request.Matches == nil {
		q.quietUntil = time.Now().Add(f.request.Timeout)
		// Those before are over with their own time.
		q.missed = slices.DeleteFunc(q.missed, func(m missedRequest) bool { return m.matches == nil })
	}
	if len(q.missed) == maxMissed {
		q.missed = slices.Delete(q.missed, 0, 1)
	}
	q.missed = append(q.missed, missedRequest{f.id, f.request.Matches})
	s.reportFate(f, Written{Fate: NoReply, Epoch: f.askedIn.epoch, Detail: "no answer came within " + f.request.Timeout.String()})
	s.resumeWriting()
}

// answer ends the oldest question that frame answers, if there is one. s.mu is held.
func (s *slot) matchAnswer(frame []byte) bool {
	q := &s.requests
	for i, f := range q.open {
		if f.request.Matches == nil || f.request.Matches(frame) {
			q.open = slices.Delete(q.open, i, i+1)
			f.answerTimer.Stop()
			if f.times != nil {
				f.times.Answered = time.Now()
			}
			s.reportFate(f, Written{Fate: Answered, Epoch: f.askedIn.epoch, Reply: string(frame)})
			return true
		}
	}
	return false
}

// late returns the id of the command whose question frame answers too late, or "". s.mu is held.
func (s *slot) matchLateAnswer(frame []byte) string {
	q := &s.requests
	for i, m := range q.missed {
		if m.matches == nil && !time.Now().Before(q.quietUntil) || m.matches != nil && !m.matches(frame) {
			continue
		}
		if m.matches == nil {
			q.quietUntil = time.Time{} // it is here
		}
		q.missed = slices.Delete(q.missed, i, i+1)
		return m.id
	}
	return ""
}

// endQuestions ends what was asked in a session that ends. s.mu is held.
func (s *slot) endRequests(session *Session) {
	for _, f := range s.requests.open {
		f.answerTimer.Stop()
		s.reportFate(f, Written{Fate: NoReply, Epoch: session.epoch, Detail: session.endText() + " before it answered"})
	}
	s.requests = requests{}
}

// resume has the queue written on, if there is something to write and nobody does. s.mu is held on entry and released on return.
func (s *slot) resumeWriting() {
	if s.queue.head == nil || s.queue.writing {
		s.mu.Unlock()
		return
	}
	s.queue.writing = true
	s.writeQueue(true)
}

// resumeAt is resume, when it is time. s.mu is held.
func (s *slot) resumeWritingAt(at time.Time) {
	if s.resumeTimer != nil {
		s.resumeTimer.Stop()
	}
	s.resumeTimer = time.AfterFunc(time.Until(at), func() {
		s.mu.Lock()
		s.resumeWriting()
	})
}
