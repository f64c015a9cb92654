package tcp

import (
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// flood counts the frames and bytes that arrive from a device. A count begins at since, and ends
// when it has as much as a second may have.
type flood struct {
	frames, bytes int
	since         time.Time
	// throttledSince is when the host began to throttle the device. It is zero if the device isn't
	// throttled.
	throttledSince time.Time
	// peerClosed means that the device has closed its side. The kernel has the rest of its bytes.
	// That rest is bounded, so the host reads it at full speed.
	peerClosed bool
}

var (
	errFlood = errors.New("more frames a second than max_frame_rate, or more bytes than max_byte_rate")
	errReset = errors.New("the device reset the connection")
)

// checkRate counts what has arrived. If the device sends too fast, checkRate throttles it or
// returns an error.
func (c *conn) checkRate(session *device.Session, frames, bytes int) error {
	config, f := &c.transport.config, &c.flood
	if f.peerClosed || config.MaxFrameRate == 0 && config.MaxByteRate == 0 {
		return nil
	}
	if f.frames == 0 && f.bytes == 0 {
		f.since = time.Now()
	}
	f.frames += frames
	f.bytes += bytes
	takes := max(timeFor(f.frames, config.MaxFrameRate), timeFor(f.bytes, config.MaxByteRate))
	if takes < time.Second {
		return nil
	}
	f.frames, f.bytes = 0, 0
	early := takes - time.Since(f.since)
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
	for ; early > 0; early = takes - time.Since(f.since) {
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
		timer := time.NewTimer(min(early, time.Second))
		select {
		case <-timer.C:
		case <-session.Ended():
			timer.Stop()
			return device.ErrEnded
		}
	}
	return nil
}

// timeFor returns how long n takes at a rate per second. A rate of 0 has no limit.
func timeFor(n, rate int) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
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
