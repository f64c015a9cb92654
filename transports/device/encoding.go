package device

import "fmt"

// This file makes the bytes of commands for protocols with a state.
//
// A protocol with a state encodes a command when the writer picks its frame. From then on, nothing
// overtakes the frame, and it can't be withdrawn, be superseded or expire. So frames are written
// in the order of their encoding, and their numbers have no gaps. Because an encoded frame can't
// be taken back, the writer picks few bytes of such frames at once. If the session ends before any
// byte of the frame is written, the command is encoded again in the next session.

// size is the number of bytes that count for the limit of the queue.
func (f *frame) size() int {
	if f.data == nil && f.command != nil {
		return len(f.command.Payload)
	}
	return len(f.data)
}

// encodeFrame makes the frame's bytes from its command, with the state of the current session.
func (s *slot) encodeFrame(f *frame) error {
	data, key, err := s.session.dialog.encode(nil, *f.command)
	if err != nil {
		return err
	}
	s.queue.bytes += len(data) - f.size()
	f.data = data
	if f.request != nil {
		f.request.keyed, f.request.key = key != "", key
	}
	return nil
}

// forgetEncoding prepares a frame with a command for its next encoding. keyed says that the
// protocol gives keys to commands.
func (f *frame) forgetEncoding(keyed bool) {
	f.data = nil
	if f.request != nil {
		f.request.keyed, f.request.key, f.request.unit = keyed, "", f.command.Unit
	}
}

// settleStale settles what is left of an earlier session: the frames that were passed to its
// connection, and its responses. A command of which no byte is written waits for the current
// session. The responses are between those frames or directly behind them.
func (s *slot) settleStale() {
	q := &s.queue
	for f := q.head; f != nil && (f.state == inFlight || f.isResponse) && q.to != s.session; {
		next := f.next
		switch {
		case f.isResponse && f.offset == 0:
			if f.askedIn != s.session {
				s.finishFrame(f, Offline, f.askedIn, "")
			}
		case f.offset > 0:
			s.finishFrame(f, Unknown, q.to, fmt.Sprintf("%s after %d of %d bytes", q.to.endText(), f.offset, len(f.data)))
		case f.withdrawnAs != 0:
			s.finishWithdrawn(f, q.to)
		case s.session == nil:
			s.finishFrame(f, Offline, q.to, q.to.endText())
		default:
			f.state = waiting
			if f.command != nil {
				q.bytes -= f.size()
				f.forgetEncoding(s.registry.keyed)
				q.bytes += f.size()
			}
		}
		f = next
	}
}
