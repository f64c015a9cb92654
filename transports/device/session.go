package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// ErrRefused means that the protocol has refused the device.
var ErrRefused = errors.New("the protocol refused the device")

// ErrEnded is what a session's methods return after its end.
var ErrEnded = errors.New("the session has ended")

// Conn is the connection of a session. TryWrite and WaitWritable are called by one goroutine at a
// time. The other methods may be called concurrently with each other and with these two.
type Conn interface {
	// TryWrite writes as much of p as it can without waiting. taken is how many bytes of p the
	// kernel has, so that the peer can read them. If taken is less than len(p) and err is nil, the
	// rest has to wait.
	//
	// begun is taken plus the bytes that are encrypted already, in a record of which the kernel
	// has only a part. The next call of TryWrite must begin with these bytes. The peer can't read
	// them until a later TryWrite takes them, and never reads them if Close comes first. Without
	// encryption, begun is taken.
	TryWrite(p []byte) (taken, begun int, err error)
	// WaitWritable blocks until TryWrite may succeed. It returns an error at the deadline, and
	// once the connection is closed.
	WaitWritable(deadline time.Time) error
	// Gone reports whether the peer is known to have closed the connection. It reads nothing from
	// the stream.
	Gone() bool
	// LastRead returns when bytes last arrived from the peer. The time may be a second too early.
	LastRead() time.Time
	// SilentFor returns for how long nothing has arrived from the peer, or 0 if that isn't known.
	// It matters if the connection had to wait before Connect: the device may have connected
	// elsewhere in that time.
	SilentFor() time.Duration
	// Heard reports whether the peer has sent anything since it connected.
	Heard() bool
	// Authenticated reports whether the peer has proved which device it is.
	Authenticated() bool
	// Probe asks the peer's system for a sign of life, which SilentFor then shows. It writes
	// nothing to the stream.
	Probe()
	// Unread reports whether the peer has sent bytes that aren't delivered yet. Bytes are
	// delivered when Session.Data has returned. Unread reads nothing from the stream.
	Unread() bool
	// Close ends the connection and every call that waits on it. Bytes that TryWrite wrote before
	// are still sent.
	Close() error
}

// Session is the time in which one connection is the current one of its device.
type Session struct {
	slot        *slot
	conn        Conn
	dialog      *Dialog
	epoch       uint64
	remote      string
	connectedAt time.Time
	// authenticated says that the device has proved which one it is. The carrier of an attached
	// device can't prove that.
	authenticated bool

	// Guarded by slot.mu.
	seq     uint64
	traffic Traffic
	reason  Reason        // why it ended; empty until then
	ended   chan struct{} // closed when it has ended; the first waiter makes it
}

// slot is an online device's place in the registry. It has the device's current session, the
// frames that wait for it, and its open requests.
type slot struct {
	registry *Registry
	device   string

	// mu guards the rest. It points to own, or to the lock of the carrier.
	mu      *sync.Mutex
	own     sync.Mutex
	session *Session // nil once the device is offline; the slot leaves the registry then
	// carrier has the connection if the device is attached to another one; otherwise it is nil.
	// The queue and the requests of an attached device are those of its carrier. attached has the
	// devices that are attached to this one.
	carrier     *slot
	attached    map[*slot]struct{}
	queue       queue
	requests    requests
	lastWritten time.Time   // when the last frame that has a gap was written
	resumeTimer *time.Timer // resumes the writing; nil if no frame had to wait for a time
}

func newSlot(r *Registry, device string) *slot {
	s := &slot{registry: r, device: device}
	s.mu = &s.own
	return s
}

// Device returns the name of the session's device.
func (s *Session) Device() string { return s.slot.device }

// Epoch returns the session's epoch.
func (s *Session) Epoch() uint64 { return s.epoch }

// Conn returns the connection. An attached device has that of its carrier.
func (s *Session) Conn() Conn { return s.conn }

// Data is Receive for a frame of which only the payload is known.
func (s *Session) Data(payload []byte) error { return s.Receive(payload, &noVerdict) }

// HandleFrame decodes one frame that arrived on the session's connection, and handles it. If
// Limits.Attached allows it, a frame that names another device attaches that device: see
// ReceiveFrom. HandleFrame returns what the caller logs, or "". After an error, the connection
// ends. If the device or the protocol is the cause, the error is of kind codec.ErrFrame. Otherwise
// it is ErrRefused, or an error of Receive or ReceiveFrom.
func (s *Session) HandleFrame(ctx context.Context, frame []byte) (problem string, err error) {
	r := s.slot.registry
	v, err := s.dialog.Decode(frame)
	problem = v.Problem
	switch {
	case err != nil:
		return problem, fmt.Errorf("%w: the frame %.100q: %w", codec.ErrFrame, frame, err)
	case v.Refusal != "":
		return problem, s.refuse(v)
	case !r.named || v.Device == "" || v.Device == s.Device():
		return problem, s.Receive(frame, v)
	case r.limits.Attached == 0:
		return problem, fmt.Errorf("%w: a frame names the device %q, but the connection belongs to %q; identity.attach allows that", codec.ErrFrame, v.Device, s.Device())
	}
	err = s.ReceiveFrom(ctx, v.Device, frame, v)
	if why := attachRefusal(err); why != "" {
		r.metrics.countUnattached(why)
		return err.Error(), nil
	}
	if errors.Is(err, ErrDevice) {
		err = fmt.Errorf("%w: the frame %.100q: %w", codec.ErrFrame, frame, err)
	}
	return problem, err
}

// refuse writes the response of a protocol that refuses the device.
func (s *Session) refuse(v *protocol.Verdict) error {
	if v.Response != nil {
		response, err := s.dialog.FrameResponse(v)
		if err != nil {
			return fmt.Errorf("%w: framing a response: %w", codec.ErrFrame, err)
		}
		if err := s.Respond(response); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %s", ErrRefused, v.Refusal)
}

// Receive handles one frame that the device sent. v says what the frame means. If the frame
// answers an open request, Receive ends that request. Otherwise Receive publishes the frame as
// data. Receive keeps no reference to payload or v. While the consumers of data are at their
// bounds, Receive blocks; the caller must not read on until it returns. After the session's end it
// returns ErrEnded.
//
// Receive also writes the response of v, and waits until the response is written or the session
// has ended. But if v.Confirmed is true, the response is written when all consumers have settled
// the frame, and Receive doesn't wait for that. If more than maxResponses responses wait to be
// written, the next Receive with v.Confirmed waits until the newest of them is written.
func (s *Session) Receive(payload []byte, v *protocol.Verdict) error { return s.receive(s, payload, v) }

// receive is Receive for a frame of from's device that arrived on the connection of s.
func (s *Session) receive(from *Session, payload []byte, v *protocol.Verdict) error {
	var response []byte
	if v.Response != nil {
		var err error
		if response, err = s.dialog.FrameResponse(v); err != nil {
			return fmt.Errorf("%w: framing a response: %w", codec.ErrFrame, err)
		}
	}
	r := received{payload: payload, size: len(payload), verdict: v}
	if v.Payload != nil {
		r.payload = v.Payload
	}
	if v.Confirmed && response != nil {
		// Otherwise the responses to a device that sends and doesn't read would fill the memory.
		if f := s.slot.surplusResponse(s); f != nil && f.Wait(context.Background()).Fate != Sent {
			return ErrEnded
		}
		r.confirmed = func() { s.slot.enqueueResponse(s, response) }
	}
	if err := from.publish(&r); err != nil || response == nil || v.Confirmed {
		return err
	}
	return s.Respond(response)
}

// Partial publishes the beginning of a frame whose end never came.
func (s *Session) Partial(payload []byte) error {
	return s.publish(&received{payload: payload, size: len(payload), verdict: &protocol.Verdict{Answers: protocol.No}, partial: true})
}

// Respond writes a response of the protocol to the device, before all frames of which no byte is
// written. It returns when the response is written or the session has ended.
func (s *Session) Respond(response []byte) error {
	f := s.slot.enqueueResponse(s, response)
	if f == nil || f.Wait(context.Background()).Fate != Sent {
		return ErrEnded
	}
	return nil
}

// Tick lets a protocol with timers act if it is time, and puts what the protocol says into the
// queue. It returns what the caller logs, or "". After an error, the caller ends the session.
//
// slot.mu is locked all the time, so no frame with a later state of the protocol can be written
// before the response.
func (s *Session) Tick(now time.Time) (problem string, err error) {
	s.slot.mu.Lock()
	if s.slot.session != s {
		s.slot.mu.Unlock()
		return "", nil
	}
	response, problem, err := s.dialog.tick(now, s.conn.Unread)
	if err != nil || response == nil {
		s.slot.mu.Unlock()
		return problem, err
	}
	s.slot.insertResponse(s, response)
	s.slot.resumeWriting()
	return problem, nil
}

// received is a frame that a device sent.
type received struct {
	payload []byte
	size    int // of the frame; the protocol may have made another payload of it
	verdict *protocol.Verdict
	partial bool
	// late is the id of the command that the frame answers too late, or "".
	late string
	// attached is the session of the attached device that the frame is from, or nil.
	attached *Session
	// confirmed is called when all consumers have settled the frame. It may be nil.
	confirmed func()
}

// publish ends the request that the frame answers, or else publishes the frame as data.
func (s *Session) publish(r *received) error {
	line := s.slot.line()
	r.attached = s.ifAttached()
	for looked := false; ; looked = true {
		s.slot.mu.Lock()
		for s.slot.session == s && line.queue.writingRequest {
			// A request is being written. It may have reached the device, and this may be its
			// answer.
			line.requestWritten().Wait()
		}
		if s.slot.session != s {
			s.slot.mu.Unlock()
			return ErrEnded
		}
		if !looked {
			s.traffic.countReceived(r)
			if line.matchAnswer(r) {
				line.resumeWriting()
				r.confirm()
				return nil
			}
			r.late = line.matchLateAnswer(r)
			if r.verdict.NoData && r.late == "" {
				line.resumeWriting()
				r.confirm()
				return nil
			}
		}
		room := s.slot.registry.feed.publishData(s, s.seq+1, r)
		if room == nil {
			s.seq++
			line.resumeWriting() // a request may have waited for this frame to be read
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

// confirm calls confirmed for a frame that isn't published.
func (r *received) confirm() {
	if r.confirmed != nil {
		r.confirmed()
	}
}

// Dialog returns the protocol's state of the session's connection.
func (s *Session) Dialog() *Dialog { return s.dialog }

// End ends the session. Frames of which no byte is written end as Offline, the connection is
// closed, and a disconnected event is published. The connection of an attached device stays open.
// End does nothing if the session has ended or was replaced.
func (s *Session) End(reason Reason) { s.slot.registry.endSession(s, reason, "") }

// Kick ends the session as Kicked. detail says why; it is the Detail of the event.
func (s *Session) Kick(detail string) { s.slot.registry.endSession(s, Kicked, detail) }

// Ended returns a channel that is closed when the session has ended.
func (s *Session) Ended() <-chan struct{} {
	s.slot.mu.Lock()
	defer s.slot.mu.Unlock()
	return s.endedChannel()
}

// Reason returns why the session ended. It is empty until then.
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

// What happens to the queue when a session ends: a newer session of the device writes its frames,
// or they end.
const (
	keepQueue = false
	endQueue  = true
)

// beginSession makes a session the current one of the slot, which has none. s.mu is locked.
func (s *slot) beginSession(session *Session) {
	s.session, session.slot = session, s
	if s.carrier == nil {
		session.dialog.setAwaits(s.awaitsAnswer)
	}
	s.registry.metrics.addSessions(1)
	s.registry.feed.publishPresence(session, Connected, "")
}

// endSession ends the sessions of the attached devices, and then the slot's session. It returns
// these sessions in the same order. Their open requests end. The frames of which no byte is
// written end, too, but those of the slot's own device only if endsQueue is true. detail is the
// Detail of the events. s.mu is locked.
func (s *slot) endSession(reason Reason, detail string, endsQueue bool) (ended []*Session) {
	for a := range s.attached {
		ended = append(ended, a.endSession(reason, detail, endQueue)...)
	}
	session, line := s.session, s.line()
	delete(line.attached, s)
	s.session = nil
	session.markEnded(reason, detail)
	s.registry.metrics.addSessions(-1)
	line.endRequests(session)
	if endsQueue {
		line.finishUnwritten(session)
	}
	return append(ended, session)
}

// markEnded records why the session ended and publishes the event, with its detail. slot.mu is
// locked.
func (s *Session) markEnded(reason Reason, detail string) {
	s.reason = reason
	s.seq++
	if s.ended != nil {
		close(s.ended)
	}
	s.slot.registry.metrics.countEnd(reason)
	s.slot.registry.feed.publishPresence(s, Disconnected, detail)
}

// endText describes the session's end for the details of results. slot.mu is locked.
func (s *Session) endText() string { return "the session ended (" + string(s.reason) + ")" }
