package tcp

import (
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// flood counts frames in the current second.
type flood struct {
	frames int
	since  time.Time
	// over is since when the device has been held back without a pause; zero if it isn't.
	over time.Time
	// gone says that the device has closed its side. What it sent before is in the kernel, bounded, and read as fast as may be.
	gone bool
}

var (
	errFlood = errors.New("more frames a second than max_frame_rate")
	errReset = errors.New("the device reset the connection")
)

// hold counts a frame and slows the device down, or refuses it, when it sends faster than it may.
func (c *conn) hold(session *device.Session) error {
	config, f := &c.transport.config, &c.flood
	if config.MaxFrameRate == 0 || f.gone {
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
		f.over = time.Time{}
		return nil
	}
	c.transport.metrics.floods.Inc()
	if config.Flood != throttle {
		return errFlood
	}
	if f.over.IsZero() {
		f.over = f.since
	}
	if config.FloodTimeout > 0 && time.Since(f.over) >= config.FloodTimeout {
		return fmt.Errorf("%w for longer than flood_timeout, %v", errFlood, config.FloodTimeout)
	}
	// Reading this slowly, its end of stream wouldn't be read for long.
	switch c.hangup() {
	case closedByPeer:
		f.gone = true
		return nil
	case resetByPeer:
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

// hangup is what a peer has done to its end of a connection.
type hangup int

const (
	connected hangup = iota
	closedByPeer
	resetByPeer
)

// hangup looks at the connection without reading, so behind the bytes that wait.
func (c *conn) hangup() (h hangup) {
	if c.raw.Control(func(fd uintptr) { h = hangupOf(int(fd)) }) != nil {
		return resetByPeer // it is closed on this side
	}
	return h
}
