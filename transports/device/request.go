package device

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

// This file matches the answers of a device to the requests that were written to it.
//
// A request is a frame with a Request. Once it is wholly written, it leaves the queue and is open.
// It ends as Answered by a matching frame, or as NoReply at its timeout or at its session's end.
// After the timeout it is missed: if its answer still arrives, the answer is published as data
// with the command's id as late_for.
//
// A frame can answer a request in three ways:
//   - By key: the protocol gives the request a key, and the frame's verdict has the same key.
//   - By Matches, which recognises the answer.
//   - Otherwise the next frame of the device is the answer, unless its verdict says that it
//     answers nothing.
//
// Requests are distinct if their answers differ, as answers with keys do. Up to MaxOpen distinct
// requests may be open, and other frames may be written while they are open. If MaxOpen is 1, or
// if requests aren't distinct, a request is exclusive: while it is open, nothing is written to the
// device but the responses of its protocol.
//
// If neither a missed request nor the next one is distinct, the late answer to the first can look
// like the answer to the second. So the second request waits for the timeout of the first once
// more, and until everything that arrived in that time is read. A protocol whose keys can repeat
// delays its commands in the same way: it asks State.Awaits.
//
// An empty frame never answers a request: devices send blank lines for other reasons.
//
// Invariants:
//   - A frame of the device answers at most one request, the oldest that it matches. Every other
//     frame is data.
//   - Answers never cross sessions. The end of a session ends its requests. If the connection
//     ends, too, all missed requests are forgotten. If the connection stays, the ended requests
//     are missed.
//   - While a request is in flight, Session.Data waits: the frame may be the answer to it.
//
// slot.mu guards all of this. registry.go has the order of the locks.

// Request describes the answer that a payload expects from the device.
type Request struct {
	// Timeout is how long the answer may take, counted from the frame's last byte. It must be
	// above 0.
	Timeout time.Duration
	// Matches reports whether a frame answers this request. It must not keep the frame. If Matches
	// is nil and the protocol gives no key, the next frame of the device is the answer.
	Matches func(frame []byte) bool
	// Distinct means that Matches accepts only the answer to this request. Otherwise it accepts
	// every answer.
	Distinct bool
	// MaxOpen is the greatest number of distinct requests that may be open for the device,
	// including this one.
	MaxOpen int

	// keyed means that the protocol gives the request a key. key is set when the request is
	// encoded. unit is the unit of the device that was asked, or "".
	keyed     bool
	key, unit string
	// attached is the session of the attached device that was asked, or nil.
	attached *Session
}

// isDistinct reports whether the answer to the request differs from answers to other requests.
func (q *Request) isDistinct() bool { return q.keyed || q.Matches != nil && q.Distinct }

// isExclusive reports whether nothing else may be written while the request is open.
func (q *Request) isExclusive() bool { return !q.isDistinct() || q.MaxOpen <= 1 }

// isAnsweredBy reports whether a frame answers the request.
func (q *Request) isAnsweredBy(r *received) bool {
	v := r.verdict
	switch {
	case len(r.payload) == 0, v.Answers == protocol.No, v.Unit != "" && v.Unit != q.unit:
		return false
	case q.attached != r.attached && (r.attached != nil || v.Device != ""):
		return false // the frame is another device's
	case q.key != "":
		return v.Answers == protocol.Yes && v.Key == q.key
	case q.Matches != nil:
		return q.Matches(r.payload)
	default:
		return v.Answers != protocol.Yes || v.Key == ""
	}
}

// requests are the requests of a device that were written. slot.mu guards them.
type requests struct {
	// open has the requests that wait for their answers, the oldest first.
	open []*frame
	// missed has the requests of this connection that weren't answered in time, the newest last.
	// Their answers may still arrive.
	missed []missedRequest
}

// missedRequest is a request whose answer may arrive late.
type missedRequest struct {
	id      string
	request *Request
	// until is one more timeout after the request was missed. Before until, the late answer could
	// be taken for the answer to a similar request: one with the same key, or one that isn't
	// distinct either. So no similar request is written. If the request isn't distinct, until
	// becomes zero once everything that arrived before until is read.
	until time.Time
}

// maxMissed is how many missed requests of a connection are remembered, so that late answers are
// recognised.
const maxMissed = 16

// awaitsAnswer implements protocol.State.Awaits. A late answer is expected until
// missedRequest.until. s.mu is locked.
func (s *slot) awaitsAnswer(key string) bool {
	for f := s.queue.head; f != nil && (f.state == inFlight || f.isResponse); f = f.next {
		if f.request != nil && f.request.key == key {
			return true
		}
	}
	q := &s.requests
	return slices.ContainsFunc(q.open, func(f *frame) bool { return f.request.key == key }) ||
		slices.ContainsFunc(q.missed, func(m missedRequest) bool { return m.request.key == key && time.Now().Before(m.until) })
}

// mayWrite reports whether the write of the frame may begin now. asking is the number of requests
// before the frame in the same write. If the frame only has to wait for a time, at is that time.
// s.mu is locked.
func (s *slot) mayWrite(f *frame, asking int) (ok bool, at time.Time) {
	if f.state == inFlight || f.isResponse {
		return true, time.Time{}
	}
	q := &s.requests
	if len(q.open) > 0 && q.open[0].request.isExclusive() {
		return false, time.Time{}
	}
	if f.gap > 0 && !s.lastWritten.IsZero() {
		at = s.lastWritten.Add(f.gap)
	}
	if r := f.request; r != nil {
		if open := len(q.open) + asking; open > 0 && (r.isExclusive() || open >= r.MaxOpen) {
			return false, time.Time{}
		}
		if !r.isDistinct() {
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

// unreadPause is the pause between two checks whether the device's earlier frames are read.
const unreadPause = 10 * time.Millisecond

// checkQuiet returns the time from which a request that isn't distinct may be written; zero means
// now. Before that time, a late answer to an earlier request could be taken for the answer to the
// new one. A late answer may have arrived and not be read yet: the data consumers may have no
// room, or the process may have been stopped. So while the connection has unread bytes, the time
// is a little later than now. s.mu is locked.
func (s *slot) checkQuiet() (until time.Time) {
	missed := s.requests.missed
	for _, m := range missed {
		if m.until.After(until) && !m.request.isDistinct() {
			until = m.until
		}
	}
	now := time.Now()
	switch {
	case until.IsZero() || now.Before(until):
		return until
	case s.session.conn.Unread():
		return now.Add(unreadPause)
	}
	for i := range missed {
		if !missed[i].request.isDistinct() {
			missed[i].until = time.Time{}
		}
	}
	return time.Time{}
}

// awaitAnswer moves the frame, whose last byte is written, from the queue to the open requests.
// s.mu is locked.
func (s *slot) awaitAnswer(f *frame, session *Session) {
	s.removeFrame(f)
	f.state, f.askedIn = awaitingAnswer, f.deviceSession(session)
	s.requests.open = append(s.requests.open, f)
	f.answerTimer = time.AfterFunc(f.request.Timeout, f.timeOutRequest)
}

// timeOutRequest ends the request with NoReply when its timeout has passed.
func (f *frame) timeOutRequest() {
	s := f.slot
	s.mu.Lock()
	if f.state != awaitingAnswer {
		s.mu.Unlock()
		return
	}
	q := &s.requests
	q.open = slices.DeleteFunc(q.open, func(o *frame) bool { return o == f })
	q.addMissed(f)
	s.reportFate(f, Written{Fate: NoReply, Epoch: f.askedIn.epoch, Detail: "no answer came within " + f.request.Timeout.String()})
	s.resumeWriting()
}

// addMissed adds a request whose answer may still arrive. slot.mu is locked.
func (q *requests) addMissed(f *frame) {
	if !f.request.isDistinct() {
		// A late answer can't show which of two such requests it belongs to, so keep only the
		// newest.
		q.missed = slices.DeleteFunc(q.missed, func(m missedRequest) bool { return !m.request.isDistinct() })
	}
	if len(q.missed) == maxMissed {
		q.missed = slices.Delete(q.missed, 0, 1)
	}
	q.missed = append(q.missed, missedRequest{f.id, f.request, time.Now().Add(f.request.Timeout)})
}

// matchAnswer ends the oldest open request that the frame answers. It returns false if there is
// none. s.mu is locked.
func (s *slot) matchAnswer(r *received) bool {
	q := &s.requests
	for i, f := range q.open {
		if f.request.isAnsweredBy(r) {
			q.open = slices.Delete(q.open, i, i+1)
			f.answerTimer.Stop()
			if f.times != nil {
				f.times.Answered = time.Now()
			}
			s.reportFate(f, Written{Fate: Answered, Epoch: f.askedIn.epoch, Reply: string(r.payload)})
			return true
		}
	}
	return false
}

// matchLateAnswer returns the id of the missed request that the frame answers, or "". s.mu is
// locked.
func (s *slot) matchLateAnswer(r *received) string {
	q := &s.requests
	for i, m := range q.missed {
		if !m.request.isDistinct() && !time.Now().Before(m.until) || !m.request.isAnsweredBy(r) {
			continue
		}
		q.missed = slices.Delete(q.missed, i, i+1)
		return m.id
	}
	return ""
}

// endRequests ends the open requests of a session that ends. The answers of an attached device may
// still arrive, because the connection stays. s.mu is locked.
func (s *slot) endRequests(session *Session) {
	q := &s.requests
	q.open = slices.DeleteFunc(q.open, func(f *frame) bool {
		if f.askedIn != session {
			return false
		}
		f.answerTimer.Stop()
		q.addMissed(f)
		s.reportFate(f, Written{Fate: NoReply, Epoch: session.epoch, Detail: session.endText() + " before it answered"})
		return true
	})
	if session.ifAttached() == nil {
		q.missed = nil
	}
}

// resumeWriting becomes the writer if frames wait and no writer is running. s.mu is locked on
// entry and unlocked on return.
func (s *slot) resumeWriting() {
	if s.queue.head == nil || s.queue.writing {
		s.mu.Unlock()
		return
	}
	s.queue.writing = true
	s.writeQueue(true)
}

// resumeWritingAt calls resumeWriting at the given time. s.mu is locked.
func (s *slot) resumeWritingAt(at time.Time) {
	if s.resumeTimer != nil {
		s.resumeTimer.Stop()
	}
	s.resumeTimer = time.AfterFunc(time.Until(at), func() {
		s.mu.Lock()
		s.resumeWriting()
	})
}
