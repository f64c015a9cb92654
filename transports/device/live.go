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
}

// Lister is implemented by [Devices] that can list their online devices.
type Lister interface {
	// Live returns the online devices, in no particular order.
	Live() []Live
}

// Live implements [Lister].
func (r *Registry) Live() []Live {
	sessions := r.Sessions()
	all := make([]Live, 0, len(sessions))
	for _, s := range sessions {
		s.slot.mu.Lock()
		if s.slot.session == s {
			line := s.slot.line()
			live := Live{
				Device: s.slot.device, RemoteAddr: s.remote, Epoch: s.epoch, ConnectedAt: s.connectedAt,
				Waiting: line.queue.count, WaitingBytes: line.queue.bytes, OpenRequests: len(line.requests.open),
			}
			if line != s.slot {
				live.Carrier = line.device
			}
			all = append(all, live)
		}
		s.slot.mu.Unlock()
	}
	return all
}
