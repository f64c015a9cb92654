package tcp

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/transports/device"
)

var _ device.Conn = (*conn)(nil)

// attempt is one try to write. They are pooled, because a closure for each would be garbage, and one per connection memory.
type attempt struct {
	p   []byte
	n   int
	err error
	f   func(fd uintptr) bool // a.write
}

var attempts = sync.Pool{New: func() any {
	a := &attempt{}
	a.f = a.write
	return a
}}

func (a *attempt) write(fd uintptr) bool {
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
	a := attempts.Get().(*attempt)
	a.p, a.n, a.err = p, 0, nil
	err := c.raw.Write(a.f)
	n := a.n
	if err == nil {
		err = a.err
	}
	a.p = nil
	attempts.Put(a)
	return n, err
}

// WaitWritable implements device.Conn.
func (c *conn) WaitWritable(deadline time.Time) error {
	if err := c.socket.SetWriteDeadline(deadline); err != nil {
		return err
	}
	// The runtime reports edges, and forgets the last one when a wait begins: so look before waiting.
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

// Unread implements device.Conn. Whatever left the kernel's buffer made the connection busy before.
func (c *conn) Unread() bool {
	n, _ := c.peek() // with an error there is nothing to read
	return n > 0 || c.busy.Load()
}

// Silent implements device.Conn.
func (c *conn) SilentFor() (silent time.Duration) {
	_ = c.raw.Control(func(fd uintptr) { silent = silentFor(int(fd)) }) // of a socket that is closed nothing is known
	return silent
}

// peek looks whether a byte can be read, or the end of the stream, which is none without an error.
func (c *conn) peek() (n int, err error) {
	var b [1]byte
	if e := c.raw.Control(func(fd uintptr) {
		n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}); e != nil {
		return 0, e // the socket is closed
	}
	return n, err
}

// lingerTime is how long a connection is still read after its session's end.
const lingerTime = time.Second

// Close implements device.Conn. Nothing more is written, but what the kernel took before still goes to the device: a socket that is closed
// while it has unread bytes resets the connection, and what is on its way is lost. So the goroutine that reads goes on for a while,
// and closes the socket.
func (c *conn) Close() error {
	if err := errors.Join(c.socket.SetReadDeadline(time.Now().Add(lingerTime)), c.socket.CloseWrite()); err != nil {
		c.shut() // the connection is gone already
	}
	return nil
}
