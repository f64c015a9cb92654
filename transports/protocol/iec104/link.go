package iec104

import (
	"encoding/binary"
	"fmt"
	"time"
)

// link has the numbers and timers of a connection.
//
// Each I frame has its number N(S), and the number N(R) of the next frame that its sender expects.
// So N(R) acknowledges all frames before it. An S frame has only N(R). Numbers have 15 bits, and 0
// follows 32767. U frames have no number; they start the data transfer and test the connection.
//
// Invariants, with differences of numbers modulo 2^15:
//   - sent-len(sentAt) is the oldest number that the station hasn't acknowledged. len(sentAt) is
//     at most k.
//   - received-confirmed is how many frames the host hasn't acknowledged. It is below w.
//   - ackBy is set if and only if received-confirmed isn't 0.
//   - The N(R) that the host sends never decreases. For this, the host calls Encode and Tick when
//     their frame gets its place behind all others. It queues the response of a Decode before the
//     next Decode.
type link struct {
	config    *Config
	started   bool        // the station has confirmed the start of the data transfer
	sent      uint16      // N(S) of the next frame that the host sends
	sentAt    []time.Time // when each unacknowledged frame was sent, the oldest first
	received  uint16      // N(S) of the next frame that the station sends
	confirmed uint16      // N(R) of the host's latest frame
	ackBy     time.Time   // when t2 ends
	confirmBy time.Time   // when t1 of a U frame ends; zero if none waits for its confirmation
	testAt    time.Time   // when t3 ends; zero while a U frame waits for its confirmation
}

const (
	modulo  = 1 << 15
	numbers = modulo - 1

	// The first byte of U frames.
	startAct = 0x07
	startCon = 0x0b
	testAct  = 0x43
	testCon  = 0x83
)

func unnumbered(function byte) []byte { return []byte{function, 0, 0, 0} }

// start returns the control field of the host's first frame.
func (l *link) start(now time.Time) []byte {
	l.confirmBy = now.Add(l.config.T1)
	return unnumbered(startAct)
}

// receive handles the control field of a frame. It returns the control field of the response, or
// nil, and whether the frame is an I frame.
func (l *link) receive(control [controlSize]byte, hasASDU bool, now time.Time) (response []byte, isData bool, err error) {
	if l.confirmBy.IsZero() {
		l.testAt = now.Add(l.config.T3)
	}
	first, second := binary.LittleEndian.Uint16(control[:]), binary.LittleEndian.Uint16(control[2:])
	isData = first&1 == 0
	switch {
	case isData && !l.started:
		return nil, true, fmt.Errorf("the station sends data before it has confirmed the start of the data transfer")
	case isData && first>>1 != l.received:
		return nil, true, fmt.Errorf("the number of the station's frame is %d, and %d is expected", first>>1, l.received)
	case !isData && hasASDU:
		return nil, false, fmt.Errorf("the frame with the control field % x has more than a control field", control)
	case first&3 == 3:
		response, err = l.receiveU(control[0], now)
		return response, false, err
	}
	if err := l.acknowledge(second >> 1); err != nil || !isData {
		return nil, isData, err
	}
	l.received = (l.received + 1) & numbers
	switch unconfirmed := int(l.received-l.confirmed) & numbers; {
	case unconfirmed >= l.config.W:
		response = l.confirm()
	case unconfirmed == 1:
		l.ackBy = now.Add(l.config.T2)
	}
	return response, true, nil
}

// receiveU handles a U frame.
func (l *link) receiveU(function byte, now time.Time) (response []byte, err error) {
	switch {
	case function == testAct:
		return unnumbered(testCon), nil
	case function == startCon && !l.started && !l.confirmBy.IsZero():
		l.started = true
	case function == testCon && l.started:
	default:
		return nil, fmt.Errorf("the station sends the unexpected U frame %#02x", function)
	}
	l.confirmBy, l.testAt = time.Time{}, now.Add(l.config.T3)
	return nil, nil
}

// acknowledge removes the frames before number next from the unacknowledged frames.
func (l *link) acknowledge(next uint16) error {
	open := int(l.sent-next) & numbers // how many frames stay unacknowledged
	if open > len(l.sentAt) {
		return fmt.Errorf("the station acknowledges the frames before %d; allowed: from %d to %d", next, int(l.sent-uint16(len(l.sentAt)))&numbers, l.sent)
	}
	l.sentAt = append(l.sentAt[:0], l.sentAt[len(l.sentAt)-open:]...)
	return nil
}

// confirm returns the control field of an S frame.
func (l *link) confirm() []byte {
	l.confirmed, l.ackBy = l.received, time.Time{}
	return binary.LittleEndian.AppendUint16([]byte{1, 0}, l.received<<1)
}

// send returns the numbers of the host's next I frame.
func (l *link) send(now time.Time) (sent, received uint16) {
	sent = l.sent
	l.sent = (l.sent + 1) & numbers
	l.sentAt = append(l.sentAt, now)
	l.confirmed, l.ackBy = l.received, time.Time{}
	return sent, l.received
}

// tick returns the control fields of the frames that the host must send now.
func (l *link) tick(now time.Time) (controls [][]byte, err error) {
	isDue := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case isDue(l.confirmBy) && l.started:
		return nil, fmt.Errorf("the station didn't confirm the test of the connection within t1 (%v)", l.config.T1)
	case isDue(l.confirmBy):
		return nil, fmt.Errorf("the station didn't confirm the start of the data transfer within t1 (%v)", l.config.T1)
	case len(l.sentAt) > 0 && isDue(l.sentAt[0].Add(l.config.T1)):
		return nil, fmt.Errorf("the station didn't acknowledge frame %d within t1 (%v)", int(l.sent-uint16(len(l.sentAt)))&numbers, l.config.T1)
	}
	if isDue(l.ackBy) {
		controls = append(controls, l.confirm())
	}
	if isDue(l.testAt) {
		controls = append(controls, unnumbered(testAct))
		l.confirmBy, l.testAt = now.Add(l.config.T1), time.Time{}
	}
	return controls, nil
}

// wake returns when tick has something to do next.
func (l *link) wake() (at time.Time) {
	times := []time.Time{l.ackBy, l.confirmBy, l.testAt}
	if len(l.sentAt) > 0 {
		times = append(times, l.sentAt[0].Add(l.config.T1))
	}
	for _, t := range times {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}
