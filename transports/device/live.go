package device

import "time"

// Live describes an online device.
type Live struct {
	Device      string
	RemoteAddr  string
	Epoch       uint64
	ConnectedAt time.Time
	// Waiting and WaitingBytes count the frames that aren't wholly written yet.
	Waiting, WaitingBytes int
	// OpenRequests is how many requests the device hasn't answered yet.
	OpenRequests int
	// Carrier is the device whose connection this device shares, or "". Waiting, WaitingBytes and
	// OpenRequests are those of the connection.
	Carrier string
	Traffic
	// LastRead is when bytes last arrived from the device. It may be a second too early, but not
	// before ConnectedAt.
	LastRead time.Time
}

// Traffic counts what passed through a session.
type Traffic struct {
	// FramesIn and BytesIn count the frames that the device sent, and their bytes without what the
	// framing adds.
	FramesIn, BytesIn uint64
	// FramesOut counts the commands and responses that were wholly written to the device. BytesOut
	// counts all bytes that were written to it, with the framing.
	FramesOut, BytesOut uint64
}

// countWritten counts bytes that were written to the device. whole says that a frame is now wholly
// written. slot.mu is locked.
func (s *Session) countWritten(bytes int, whole bool) {
	s.traffic.BytesOut += uint64(bytes)
	if whole {
		s.traffic.FramesOut++
	}
}

// countReceived counts a frame that the device sent, or the beginning of one.
func (t *Traffic) countReceived(r *received) {
	t.BytesIn += uint64(r.size)
	if !r.partial {
		t.FramesIn++
	}
}

// Lister is implemented by [Devices] that can list their online devices.
type Lister interface {
	// Live returns the online devices, in no particular order.
	Live() []Live
	// Failures returns the last errors of devices, online or not. Devices without an error are
	// missing, and so are the oldest errors if there are thousands.
	Failures() map[string]Failure
	// Dialed returns the addresses of the devices that the host dials, by their names. The caller
	// must not change the map.
	Dialed() map[string]string
}

// Dialed implements [Lister].
func (r *Registry) Dialed() map[string]string { return r.dialed }

// Live implements [Lister].
func (r *Registry) Live() []Live {
	sessions := r.Sessions()
	all := make([]Live, 0, len(sessions))
	for _, s := range sessions {
		s.slot.mu.Lock()
		if s.slot.session == s {
			all = append(all, s.describe())
		}
		s.slot.mu.Unlock()
	}
	return all
}

// describe returns the session's description. slot.mu is locked.
func (s *Session) describe() Live {
	lastRead := s.conn.LastRead()
	if lastRead.Before(s.connectedAt) {
		lastRead = s.connectedAt
	}
	line := s.slot.line()
	live := Live{
		Device: s.slot.device, RemoteAddr: s.remote, Epoch: s.epoch, ConnectedAt: s.connectedAt,
		Waiting: line.queue.count, WaitingBytes: line.queue.bytes, OpenRequests: len(line.requests.open),
		Traffic: s.traffic, LastRead: lastRead,
	}
	if line != s.slot {
		live.Carrier = line.device
	}
	return live
}
