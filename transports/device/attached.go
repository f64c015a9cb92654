package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pentrough/pentrough/transports/protocol"
)

// This file is about attached devices: those that share the connection of another device.
//
// A concentrator, such as a gateway for meters, sends the frames of many devices over its
// connection. The device that identified the connection is the carrier. Each further device that a
// frame names is attached to the carrier: it gets a slot and a session of its own, with its own
// events, epoch and seq. Its commands go into the carrier's queue, because only one frame can be
// written to a connection at a time.
//
// Invariants:
//   - The slot of an attached device shares the mutex of its carrier's slot. So a change of the
//     connection applies to all of its devices at once.
//   - A slot is attached to the same carrier for its whole life. A device that moves to another
//     connection gets another slot. Frames for it in the old queue end as Offline, unless a byte
//     of the frame is already written.
//   - A carrier isn't attached to another device. If a device with its own connection is attached,
//     the host closes that connection.
//   - When the carrier's session ends, the sessions of its attached devices end before it.

// The reasons why a device can't be attached. The host drops the frames of such a device.
var (
	// ErrAttached means that Limits.Attached is reached.
	ErrAttached = errors.New("too many devices are attached to the connection")
	// ErrUnlisted means that only the devices of the inventory may be attached.
	ErrUnlisted = errors.New("the inventory doesn't list the device")
	// ErrOwnToken means that the device has to prove its name on a connection of its own.
	ErrOwnToken = errors.New("the inventory has a token of the device, so the device needs a connection of its own")
)

// attachRefusal returns the name of a reason for not attaching a device, or "" for other errors.
func attachRefusal(err error) string {
	switch {
	case errors.Is(err, ErrAttached):
		return "limit"
	case errors.Is(err, ErrUnlisted):
		return "unknown-device"
	case errors.Is(err, ErrOwnToken):
		return "token"
	case errors.Is(err, ErrNewName):
		return "new-name"
	case errors.Is(err, ErrBanned):
		return "banned"
	case errors.Is(err, ErrClosing): // the commands that wait are still written
		return "host-stops"
	}
	return ""
}

// line returns the slot whose queue and requests the device uses.
func (s *slot) line() *slot {
	if s.carrier != nil {
		return s.carrier
	}
	return s
}

// addAttached adds the slot of a device to those that are attached to s. s.mu is locked.
func (s *slot) addAttached(device *slot) {
	if s.attached == nil {
		s.attached = map[*slot]struct{}{}
	}
	s.attached[device] = struct{}{}
}

// ifAttached returns the session if its device is attached to another one, and nil otherwise.
func (s *Session) ifAttached() *Session {
	if s.slot.carrier != nil {
		return s
	}
	return nil
}

// attach makes f a frame for the attached device of session. If session is nil, f is for a device
// that isn't attached, and attach does nothing.
func (f *frame) attach(session *Session) {
	if session == nil {
		return
	}
	f.attached = session
	if f.request != nil {
		f.request.attached = session
	}
}

// isOnline reports whether the device of the frame still uses session, the session of the
// connection. s.mu is locked.
func (f *frame) isOnline(session *Session) bool {
	return f.slot.session == session && (f.attached == nil || f.attached.reason == "")
}

// deviceSession returns the session of the frame's device. session is that of the connection.
func (f *frame) deviceSession(session *Session) *Session {
	if f.attached != nil {
		return f.attached
	}
	return session
}

// hasDeviceOf reports whether two frames of a queue are for the same device, and for the same
// unit.
func (f *frame) hasDeviceOf(o *frame) bool {
	return f.command == nil || o.command == nil || f.command.Device == o.command.Device && f.command.Unit == o.command.Unit
}

// ReceiveFrom is Receive for a frame that names the device it comes from. It attaches the device
// to this session's device if the device isn't attached yet.
//
// If the device's current session may not be replaced now (see takeover.go), that session stays.
// It still gets the device's commands, and this frame is published as data of that session.
//
// The error is that of Receive, ErrAttached, ErrUnlisted, ErrOwnToken, ErrNewName, ErrClosing, of
// kind ErrDevice, or one of the directory.
func (s *Session) ReceiveFrom(ctx context.Context, device string, payload []byte, v *protocol.Verdict) error {
	for {
		from, err := s.slot.registry.attach(ctx, s, device)
		switch {
		case errors.Is(err, ErrSuperseded):
			continue
		case err != nil:
			return err
		}
		// If the device has moved to another connection since, attach it again.
		if err = s.receive(from, payload, v); !errors.Is(err, ErrEnded) || s.Reason() != "" {
			return err
		}
	}
}

// attach returns the session of a device that a frame of carrier's connection names. Only the
// goroutine that reads from the connection calls it.
func (r *Registry) attach(ctx context.Context, carrier *Session, device string) (*Session, error) {
	if err := r.checkDevice(device); err != nil {
		return nil, err
	}
	current, here, err := r.attachedTo(carrier, device)
	if here {
		return current, nil
	}
	if unlisted := r.checkInventory(device); unlisted != nil {
		return nil, unlisted
	}
	if err == nil {
		err = r.bans.check(device, r.now())
	}
	if err != nil {
		return nil, err
	}
	if !r.newcomers.admitName(device, r.now()) {
		return nil, r.newNameError(device)
	}
	turn := newContender(carrier.conn, carrier.remote)
	turn.authenticated = false
	if !r.tryTakeover(device, turn) && current != nil {
		return current, nil
	}
	defer r.endTurn(device, turn)
	epoch, err := r.directory.Claim(ctx, device, r.lastHeard(carrier.conn))
	if err != nil {
		r.passTurn(device)
		return nil, fmt.Errorf("claiming device %q: %w", device, err)
	}
	session := &Session{conn: carrier.conn, dialog: carrier.dialog, epoch: epoch, remote: carrier.remote, connectedAt: r.now(), seq: 1}
	if err := r.startSession(device, session, carrier); err != nil {
		return nil, err
	}
	if err := r.checkInventory(device); err != nil { // the inventory may have changed
		session.End(Kicked)
		return nil, err
	}
	return session, nil
}

// SetUnattachable sets the function that reports whether a device may never be attached, because
// it has to prove its name. It must be called before the first Connect.
func (r *Registry) SetUnattachable(f func(device string) bool) { r.unattachable = f }

// checkInventory returns ErrUnlisted or ErrOwnToken if the inventory doesn't allow that the device
// is attached.
func (r *Registry) checkInventory(device string) error {
	switch {
	case r.listedOnly && !r.newcomers.listed(device):
		return fmt.Errorf("%w %q", ErrUnlisted, device)
	case r.unattachable != nil && r.unattachable(device):
		return fmt.Errorf("attaching %q: %w", device, ErrOwnToken)
	}
	return nil
}

// attachedTo returns the current session of a device, or nil. here reports whether the device is
// attached to carrier. The error says why it can't be attached.
func (r *Registry) attachedTo(carrier *Session, device string) (current *Session, here bool, err error) {
	if s := r.slotOf(device); s != nil {
		s.mu.Lock()
		current, here = s.session, s.session != nil && s.carrier == carrier.slot && carrier.slot.session == carrier
		s.mu.Unlock()
	}
	if here {
		return current, true, nil
	}
	line := carrier.slot
	line.mu.Lock()
	defer line.mu.Unlock()
	switch {
	case line.session != carrier:
		return nil, false, ErrEnded
	case len(line.attached) >= r.limits.Attached:
		return nil, false, fmt.Errorf("%w, so %q isn't; the limit is %d", ErrAttached, device, r.limits.Attached)
	}
	return current, false, nil
}

// checkDevice returns an error of kind ErrDevice if the name can't name a device, or names a unit.
func (r *Registry) checkDevice(device string) error {
	if err := CheckName(device); err != nil {
		return err
	}
	if r.units && strings.Contains(device, unitSeparator) {
		return fmt.Errorf("%w: the name %q contains %q, which separates a device from its unit", ErrDevice, device, unitSeparator)
	}
	return nil
}
