package tcp

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/transports/device"
)

var _ device.Conn = (*conn)(nil)

// writeAttempt is one attempt to write. Attempts are pooled: a closure per call would be garbage,
// and one per connection would cost memory.
type writeAttempt struct {
	wire         *wire // nil without TLS
	p            []byte
	taken, begun int
	err          error
	f            func(fd uintptr) bool // a.write
}

var writeAttempts = sync.Pool{New: func() any {
	a := &writeAttempt{}
	a.f = a.write
	return a
}}

func (a *writeAttempt) write(fd uintptr) bool {
	if a.wire != nil {
		a.taken, a.begun, a.err = a.wire.tryWrite(int(fd), a.p)
		return true
	}
	a.taken, a.err = writeOnce(int(fd), a.p)
	a.begun = a.taken
	return true
}

// writeOnce writes as much of p as the kernel takes at once.
func writeOnce(fd int, p []byte) (n int, err error) {
	for {
		n, err = unix.Write(fd, p)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			err = nil
		}
		return max(n, 0), err
	}
}

// TryWrite implements device.Conn.
func (c *conn) TryWrite(p []byte) (taken, begun int, err error) {
	if !c.recordable.IsRecorded() {
		return c.write(p)
	}
	taken, err = c.recordable.Write(p, func(p []byte) (n int, err error) {
		n, begun, err = c.write(p)
		return n, err
	})
	return taken, begun, err
}

// write writes as much of p as the kernel takes at once.
func (c *conn) write(p []byte) (taken, begun int, err error) {
	a := writeAttempts.Get().(*writeAttempt)
	a.wire, a.p, a.taken, a.begun, a.err = c.wire, p, 0, 0, nil
	err = c.raw.Write(a.f)
	taken, begun = a.taken, a.begun
	if err == nil {
		err = a.err
	}
	a.wire, a.p = nil, nil
	writeAttempts.Put(a)
	return taken, begun, err
}

// WaitWritable implements device.Conn.
func (c *conn) WaitWritable(deadline time.Time) error {
	if err := c.socket.SetWriteDeadline(deadline); err != nil {
		return err
	}
	// The runtime reports only changes, and forgets the last change when a wait begins. So check
	// before the wait whether the socket is writable.
	err := c.raw.Write(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		for {
			n, err := unix.Poll(ready, 0)
			if err != unix.EINTR {
				return n != 0 || err != nil
			}
		}
	})
	if err != nil {
		return fmt.Errorf("waiting for the device to take more: %w", err)
	}
	return c.socket.SetWriteDeadline(time.Time{})
}

// Gone implements device.Conn.
func (c *conn) Gone() bool {
	var b [alertSize + 1]byte
	n, err := c.peek(b[:])
	if err != nil {
		return err != unix.EAGAIN && err != unix.EINTR
	}
	return n == 0 || c.isClosing(b[:n])
}

// Unread implements device.Conn. handling was set before the bytes left the kernel's buffer.
func (c *conn) Unread() bool {
	var b [1]byte
	n, _ := c.peek(b[:]) // after an error there is nothing to read
	return n > 0 || c.handling.Load()
}

// Heard implements device.Conn. A device may be silent if its address identifies it, or if the
// host dials it.
func (c *conn) Heard() bool {
	silent := c.target != nil || c.transport.config.identifiedBy() == byAddress
	if !silent || c.session.Load() != nil || c.first != nil || c.n > 0 || len(c.rest) > 0 {
		return true
	}
	var b [alertSize + 1]byte
	n, err := c.peek(b[:])
	if n <= 0 || err != nil || c.isClosing(b[:n]) {
		return false
	}
	if c.wire == nil || !isAlert(b[:n]) {
		return true
	}
	// After close_notify, the end of the stream may be on its way. If it doesn't come, the bytes
	// are data.
	now := time.Since(c.transport.began).Milliseconds() + 1
	if c.alertAt == 0 {
		c.alertAt = now
	}
	return now-c.alertAt >= closingTime.Milliseconds()
}

// closingTime is how long the end of the stream may take to arrive after close_notify.
const closingTime = time.Second

// isClosing reports whether b, the bytes that can be read, are close_notify before the end of the
// stream.
func (c *conn) isClosing(b []byte) bool {
	return c.wire != nil && isAlert(b) && c.peerState() != peerConnected
}

// Authenticated implements device.Conn.
func (c *conn) Authenticated() bool {
	i := c.transport.config.Identity
	return i.By == byCertificate || i.Certificate != "" || c.needsToken()
}

// probing is the configuration of keepalive while the host asks for a sign of life, for
// probingTime.
var probing = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 9}

const probingTime = 15 * time.Second

// Probe implements device.Conn.
func (c *conn) Probe() {
	if c.socket.SetKeepAliveConfig(probing) != nil {
		return // the socket is closed
	}
	time.AfterFunc(probingTime, func() { _ = c.socket.SetKeepAliveConfig(c.transport.config.keepalive()) })
}

// LastRead implements device.Conn.
func (c *conn) LastRead() time.Time {
	return c.transport.began.Add(time.Duration(c.lastRead.Load()) * time.Millisecond)
}

// SilentFor implements device.Conn.
func (c *conn) SilentFor() (silent time.Duration) {
	_ = c.raw.Control(func(fd uintptr) { silent = silentFor(int(fd)) }) // closed: it stays 0
	return silent
}

// peek copies bytes that can be read into b, without reading them. At the end of the stream, n is
// 0 and err is nil.
func (c *conn) peek(b []byte) (n int, err error) {
	if e := c.raw.Control(func(fd uintptr) {
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}); e != nil {
		return 0, e // this side has closed the socket
	}
	return n, err
}

// lingerTime is how long the host still reads from a connection after its session's end.
const lingerTime = time.Second

// Close implements device.Conn. It only closes the sending side, so the kernel still sends what it
// has. With TLS, close_notify comes before that. Closing the socket while it has unread bytes
// would reset the connection and lose those bytes. So the reading goroutine goes on for lingerTime
// and then closes the socket.
func (c *conn) Close() error {
	if c.wire != nil {
		c.wire.closeWrite(c.raw)
	}
	if err := errors.Join(c.socket.SetReadDeadline(time.Now().Add(lingerTime)), c.socket.CloseWrite()); err != nil {
		c.closeSocket() // the connection is gone already
	}
	return nil
}
