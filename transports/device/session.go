package device

import (
	"errors"
	"sync"
	"time"
)

// ErrEnded is what a session's methods return after its end.
var ErrEnded = errors.New("the session has ended")

// Conn is what a session needs of a connection. TryWrite and WaitWritable are never called concurrently; the others may be, with
// anything.
type Conn interface {
	// TryWrite writes what is taken without waiting. Less than len(p) without an error means that waiting would be
	// needed.
	TryWrite(p []byte) (n int, err error)
	// WaitWritable blocks until TryWrite is worth a try. It returns an error at the deadline, and once the connection is closed.
	WaitWritable(deadline time.Time) error
	// Gone reports whether the peer is known to have closed the connection. It takes nothing from the stream.
	Gone() bool
	// Silent is for how long nothing has come from the peer, 0 if that isn't known. A connection that waited to be taken in may be that of a device which has
	// gone elsewhere since.
	SilentFor() time.Duration
	// Unread reports whether the peer sent something that Session.Data wasn't called with yet, or that it hasn't returned for. It takes
	// nothing from the stream.
	Unread() bool
	// Close ends the way to the device, and with it every call that waits on it. What TryWrite wrote before still goes out.
	Close() error
}

// Session is one connection of a device.
type Session struct {
	slot        *slot
	conn        Conn
	epoch       uint64
	remote      string
	connectedAt time.Time

	// Guarded by slot.mu.
	seq    uint64
	reason Reason        // why it ended; empty while it lives
	ended  chan struct{} // made by who waits
}

// slot is a device's place in the registry: its live session and the frames that wait for it.
type slot struct {
	registry *Registry
	device   string

	mu          sync.Mutex
	session     *Session // nil once the slot left the registry
	queue       queue
	requests    requests
	lastWritten time.Time   // when the last byte was written of a frame that has a gap
	resumeTimer *time.Timer // resumes the writing; nil if that never had to wait for its time
}

// Device returns whose session it is.
func (s *Session) Device() string { return s.slot.device }

// Epoch returns the session's number among the sessions of the device.
func (s *Session) Epoch() uint64 { return s.epoch }

// Data publishes what the device sent. It keeps no reference to payload. While the consumers of data are at their bounds it
// blocks; the caller reads no further meanwhile. What answers a question isn't data. After the session's end it returns ErrEnded.
func (s *Session) Data(payload []byte) error {
	late := ""
	for looked := false; ; looked = true {
		s.slot.mu.Lock()
		for s.slot.session == s && s.slot.queue.writingRequest {
			// The question may be at the device already, and this be its answer.
			s.slot.requestWritten().Wait()
		}
		if s.slot.session != s {
			s.slot.mu.Unlock()
			return ErrEnded
		}
		if !looked {
			if s.slot.matchAnswer(payload) {
				s.slot.resumeWriting()
				return nil
			}
			late = s.slot.matchLateAnswer(payload)
		}
		room := s.slot.registry.feed.publishData(s, s.seq+1, payload, late)
		if room == nil {
			s.seq++
			s.slot.resumeWriting() // a late answer may have been waited for
			return nil
		}
		ended := s.endedChannel()
		s.slot.mu.Unlock()
		select {
		case <-room:
		case <-ended:
			return ErrEnded
		}
	}
}

// End ends the session: frames of which no byte was written end Offline, the connection is closed and a disconnected event
// goes out. It has no effect on a session that has ended or was replaced, and never on a newer one.
func (s *Session) End(reason Reason) { s.slot.registry.endSession(s, reason) }

// Ended is closed when the session has ended.
func (s *Session) Ended() <-chan struct{} {
	s.slot.mu.Lock()
	defer s.slot.mu.Unlock()
	return s.endedChannel()
}

// Reason returns why the session ended; it is empty while it lives.
func (s *Session) Reason() Reason {
	s.slot.mu.Lock()
	defer s.slot.mu.Unlock()
	return s.reason
}

func (s *Session) endedChannel() <-chan struct{} {
	if s.ended == nil {
		s.ended = make(chan struct{})
		if s.reason != "" {
			close(s.ended)
		}
	}
	return s.ended
}

// finish marks the session as ended. slot.mu is held.
func (s *Session) markEnded(reason Reason) {
	s.reason = reason
	s.seq++
	if s.ended != nil {
		close(s.ended)
	}
	s.slot.registry.metrics.countEnd(reason)
	s.slot.registry.feed.publishPresence(s, Disconnected)
}

// ending says how the session ended, for details of results. slot.mu is held.
func (s *Session) endText() string { return "the session ended (" + string(s.reason) + ")" }
