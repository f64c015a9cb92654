//go:build !linux

package tcp

import "time"

// setUserTimeout does nothing, as there is no TCP_USER_TIMEOUT here: the write timeout and keepalive do its work.
func setUserTimeout(int, time.Duration) error { return nil }

// silentFor knows nothing here.
func silentFor(int) time.Duration { return 0 }

// hangupOf knows nothing here: a device that floods and hangs up is noticed when what it sent has been read, or at flood_timeout.
func hangupOf(int) hangup { return connected }
