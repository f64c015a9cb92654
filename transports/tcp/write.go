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

// writeAttempt is one call of unix.Write. Attempts are pooled: a closure per call would be
// garbage, and one per connection would cost memory.
type writeAttempt struct {
	p   []byte
	n   int
	err error
	f   func(fd uintptr) bool // a.write
}

var writeAttempts = sync.Pool{New: func() any {
	a := &writeAttempt{}
	a.f = a.write
	return a
}}

func (a *writeAttempt) write(fd uintptr) bool {
	for {
		a.n, a.err = unix.Write(int(fd), a.p)
		switch a.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			a.err = nil
		}
		a.n = max(a.n, 0)
		return true
	}
}

// TryWrite implements device.Conn.
func (c *conn) TryWrite(p []byte) (int, error) {
	if c.recordable.IsRecorded() {
		return c.recordable.Write(p, c.write)
	}
	return c.write(p)
}

// write writes as much of p as the kernel takes at once.
func (c *conn) write(p []byte) (int, error) {
	a := writeAttempts.Get().(*writeAttempt)
	a.p, a.n, a.err = p, 0, nil
	err := c.raw.Write(a.f)
	n := a.n
	if err == nil {
		err = a.err
	}
	a.p = nil
	writeAttempts.Put(a)
	return n, err
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
	n, err := c.peek()
	return n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
}

// Unread implements device.Conn. handling was set before the bytes left the kernel's buffer.
func (c *conn) Unread() bool {
	n, _ := c.peek() // after an error there is nothing to read
	return n > 0 || c.handling.Load()
}

// Heard implements device.Conn. A device that its address identifies may be silent.
func (c *conn) Heard() bool {
	if c.transport.config.identifiedBy() != byAddress || c.session.Load() != nil {
		return true
	}
	n, err := c.peek()
	return n > 0 && err == nil
}

// Authenticated implements device.Conn.
func (c *conn) Authenticated() bool { return false }

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

// peek reports whether a byte can be read, without reading it. At the end of the stream, n is 0
// and err is nil.
func (c *conn) peek() (n int, err error) {
	var b [1]byte
	if e := c.raw.Control(func(fd uintptr) {
		n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}); e != nil {
		return 0, e // this side has closed the socket
	}
	return n, err
}

// lingerTime is how long the host still reads from a connection after its session's end.
const lingerTime = time.Second

// Close implements device.Conn. It only closes the sending side, so the kernel still sends what it
// has. Closing the socket while it has unread bytes would reset the connection and lose those
// bytes. So the reading goroutine goes on for lingerTime and then closes the socket.
func (c *conn) Close() error {
	if err := errors.Join(c.socket.SetReadDeadline(time.Now().Add(lingerTime)), c.socket.CloseWrite()); err != nil {
		c.closeSocket() // the connection is gone already
	}
	return nil
}
