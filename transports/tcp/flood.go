package tcp

import (
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// flood counts the frames of the current second.
type flood struct {
	frames int
	since  time.Time
	// throttledSince is when the host began to throttle the device. It is zero if the device isn't
	// throttled.
	throttledSince time.Time
	// peerClosed means that the device has closed its side. The kernel has the rest of its bytes.
	// That rest is bounded, so the host reads it at full speed.
	peerClosed bool
}

var (
	errFlood = errors.New("more frames a second than max_frame_rate")
	errReset = errors.New("the device reset the connection")
)

// checkRate counts a frame. If the device sends too fast, checkRate throttles it or returns an
// error.
func (c *conn) checkRate(session *device.Session) error {
	config, f := &c.transport.config, &c.flood
	if config.MaxFrameRate == 0 || f.peerClosed {
		return nil
	}
	if f.frames == 0 {
		f.since = time.Now()
	}
	if f.frames++; f.frames < config.MaxFrameRate {
		return nil
	}
	f.frames = 0
	early := time.Second - time.Since(f.since)
	if early <= 0 {
		f.throttledSince = time.Time{}
		return nil
	}
	c.transport.metrics.floods.Inc()
	if config.Flood != throttle {
		return errFlood
	}
	if f.throttledSince.IsZero() {
		f.throttledSince = f.since
	}
	if config.FloodTimeout > 0 && time.Since(f.throttledSince) >= config.FloodTimeout {
		return fmt.Errorf("%w for longer than flood_timeout, %v", errFlood, config.FloodTimeout)
	}
	// A throttled connection would reach its end of stream late, so look for it in the kernel.
	switch c.peerState() {
	case peerClosed:
		f.peerClosed = true
		return nil
	case peerReset:
		return errReset
	}
	timer := time.NewTimer(early)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-session.Ended():
		return device.ErrEnded
	}
}

// peerState is the state of the peer's end of a connection.
type peerState int

const (
	peerConnected peerState = iota
	peerClosed
	peerReset
)

// peerState returns the state of the peer's end without reading. So it sees a close that is behind
// unread bytes.
func (c *conn) peerState() (h peerState) {
	if c.raw.Control(func(fd uintptr) { h = peerStateOf(int(fd)) }) != nil {
		return peerReset // this side has closed the socket
	}
	return h
}
