//go:build !linux

package tcp

import "time"

// setUserTimeout does nothing, because only Linux has TCP_USER_TIMEOUT. The write timeout and
// keepalive find dead connections instead.
func setUserTimeout(int, time.Duration) error { return nil }

// silentFor returns 0, which means unknown.
func silentFor(int) time.Duration { return 0 }

// peerStateOf always returns peerConnected. So the host notices that a throttled device has closed
// its side only when it has read everything, or at flood_timeout.
func peerStateOf(int) peerState { return peerConnected }
