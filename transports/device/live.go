package device

import "time"

// Live is a device that has a session.
type Live struct {
	Device      string
	RemoteAddr  string
	Epoch       uint64
	ConnectedAt time.Time
	// Waiting and WaitingBytes are the payloads that aren't wholly written yet.
	Waiting, WaitingBytes int
	// Asked is how many questions it hasn't answered yet.
	OpenRequests int
}

// Lister is implemented by [Devices] that can tell which are there.
type Lister interface {
	// Live returns those that have a session at the moment, in no order.
	Live() []Live
}

// Live implements [Lister].
func (r *Registry) Live() []Live {
	sessions := r.liveSessions()
	all := make([]Live, 0, len(sessions))
	for _, s := range sessions {
		s.slot.mu.Lock()
		if s.slot.session == s {
			all = append(all, Live{
				Device: s.slot.device, RemoteAddr: s.remote, Epoch: s.epoch, ConnectedAt: s.connectedAt,
				Waiting: s.slot.queue.count, WaitingBytes: s.slot.queue.bytes, OpenRequests: len(s.slot.requests.open),
			})
		}
		s.slot.mu.Unlock()
	}
	return all
}
