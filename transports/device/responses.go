package device

import "math"

// This file puts the responses of the protocol into the queue.

// maxResponses is how many responses of a session may wait before Receive waits, too.
const maxResponses = 64

// enqueueResponse adds a response of the protocol to the queue, before all frames of which no byte
// is written. It returns nil if the session has ended. The limits of the queue don't apply:
// Receive waits if too many responses wait.
func (s *slot) enqueueResponse(session *Session, response []byte) *frame {
	s.mu.Lock()
	if s.session != session {
		s.mu.Unlock()
		return nil
	}
	f := s.insertResponse(session, response)
	s.resumeWriting()
	return f
}

// surplusResponse returns the newest response of the session that waits to be written, if more
// than maxResponses of them wait. Otherwise it returns nil.
func (s *slot) surplusResponse(session *Session) *frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, newest := 0, (*frame)(nil)
	for f := s.queue.head; f != nil && (f.state == inFlight || f.isResponse); f = f.next {
		if f.isResponse && f.askedIn == session {
			n, newest = n+1, f
		}
	}
	if n <= maxResponses {
		return nil
	}
	return newest
}

// insertResponse adds a response to the queue. s.mu is locked, and session is the current one.
func (s *slot) insertResponse(session *Session, response []byte) *frame {
	f := &frame{slot: s, data: response, conditions: &conditions{isResponse: true, askedIn: session, priority: responsePriority}}
	s.queue.insertFrame(f)
	s.queue.count++
	s.queue.bytes += len(f.data)
	return f
}

// responsePriority is above every priority of a command.
const responsePriority = math.MaxInt
