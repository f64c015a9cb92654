package tcp

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
)

// readSize is what one read takes at most.
const readSize = 4 << 10

// readBuffers are what connections read into while bytes are there.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// conn is one connection. Its goroutine reads; writes come from whoever has something to write (see write.go).
type conn struct {
	transport *transport
	link      *listen.Conn
	socket    *net.TCPConn // of link
	raw       syscall.RawConn

	session atomic.Pointer[device.Session] // nil until the device is known
	began   int64                          // on the transport's clock
	seen    atomic.Int64                   // on the transport's clock
	busy    atomic.Bool                    // what was read is being dealt with, which may take long
	late    atomic.Bool                    // the first frame didn't come in time

	// The rest belongs to the goroutine that reads.
	fill   func(fd uintptr) bool // c.readReady
	buffer *[readSize]byte       // held while it has bytes
	n      int                   // how many
	err    error                 // of the read
	rest   []byte                // the beginning of a frame whose end hasn't come
	flood  flood
}

func newConn(t *transport, link *listen.Conn) (*conn, error) {
	socket := link.Conn.(*net.TCPConn)
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reaching the socket: %w", err)
	}
	c := &conn{transport: t, link: link, socket: socket, raw: raw, began: t.clock.Load()}
	c.seen.Store(c.began)
	c.fill = c.readReady
	return c, nil
}

// begin finds out whose connection it is and makes a session of it.
func (c *conn) begin() {
	t := c.transport
	name, err := c.identify()
	refusal := refusedAuth
	var session *device.Session
	if err == nil && !t.known(name) {
		refusal, err = refusedUnknown, unknownDevice(name)
	}
	if err == nil {
		c.link.Keep()
	}
	if c.link.Displaced() {
		refusal, err = refusedDisplaced, errDisplaced
	}
	if err == nil {
		c.busy.Store(true) // it may have to wait for its turn
		refusal = refusedTurn
		if session, err = t.registry.Connect(t.ctx, name, c.addr().String(), c); errors.Is(err, device.ErrNewName) {
			refusal = refusedName
		}
	}
	if err != nil {
		c.release()
		c.shut()
		t.leave(c)
		t.refuse(refusal, c.socket, err)
		return
	}
	c.seen.Store(t.clock.Load())
	c.session.Store(session)
	if !t.known(name) { // by now
		session.End(device.Kicked)
	}
	t.env.Logger.Debug("device connected", "device", name, "epoch", session.Epoch(), "peer", c.socket.RemoteAddr())
	// A goroutine of its own begins with a small stack, which parks for the life of the connection.
	t.running.Go(c.serve)
}

// serve reads until the session ends.
func (c *conn) serve() {
	session := c.session.Load()
	var err error
	for err == nil {
		err = c.deliver(session) // first what came behind the first frame
		c.busy.Store(false)
		if err == nil {
			err = c.read()
		}
	}
	c.release()
	c.end(session, err)
}

func (c *conn) end(session *device.Session, err error) {
	attrs := []any{"device", session.Device(), "epoch", session.Epoch()}
	if session.Reason() == "" {
		attrs = append(attrs, "err", err)
	}
	session.End(reason(err))
	if errors.Is(err, device.ErrEnded) {
		c.discard()
	}
	c.shut()
	t := c.transport
	t.leave(c)
	level := slog.LevelDebug
	switch session.Reason() {
	case device.IdleTimeout, device.ProtocolError, device.Kicked: // the host's doing, and not for another connection's sake
		t.complaints.Do(func() { level = slog.LevelInfo })
	}
	t.env.Logger.Log(t.ctx, level, "device disconnected", append(attrs, "reason", session.Reason())...)
}

// discard reads what the device still sends, until it has closed its side or lingerTime is over.
func (c *conn) discard() {
	for c.read() == nil {
		c.release()
	}
}

var errDisplaced = errors.New("closed for a newer connection before its device was known, as there are too many")

// reason says how an error of the reading side ends the session, if nobody ended it before.
func reason(err error) device.Reason {
	switch {
	case errors.Is(err, io.EOF):
		return device.ClientClosed
	case errors.Is(err, codec.ErrFrame), errors.Is(err, errFlood):
		return device.ProtocolError
	default:
		return device.ConnectionLost
	}
}

// identify returns the device's name. What came behind the first frame is in c.rest.
func (c *conn) identify() (string, error) {
	t := c.transport
	if t.config.Identity.By == byAddress {
		return peerName(c.addr()), nil
	}
	for {
		if err := c.read(); err != nil {
			if c.late.Load() {
				err = errSilent
			}
			return "", fmt.Errorf("reading the first frame: %w", err)
		}
		c.keep()
		for {
			advance, frame, err := t.framing.Split(c.rest)
			if err != nil {
				return "", fmt.Errorf("reading the first frame: %w", err)
			}
			if advance == 0 {
				break
			}
			name := ""
			if frame != nil {
				name, err = t.hello.device(frame)
			}
			c.rest = c.rest[advance:]
			if frame != nil {
				return name, err
			}
		}
		c.busy.Store(false)
	}
}

// read waits until bytes are there and reads them into the buffer. The loop around it always reads until the kernel has no more, as
// the poller reports edges: an end of stream that came together with bytes is announced once.
func (c *conn) read() error {
	if err := c.raw.Read(c.fill); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	c.seen.Store(c.transport.clock.Load())
	c.transport.metrics.bytesIn.Add(float64(c.n))
	return nil
}

// readReady is called when bytes may be there; it returns false to be called again when more may be.
func (c *conn) readReady(fd uintptr) bool {
	c.buffer = readBuffers.Get().(*[readSize]byte)
	c.busy.Store(true)
	for {
		c.n, c.err = unix.Read(int(fd), c.buffer[:])
		if c.err != unix.EINTR {
			break
		}
	}
	switch {
	case c.n > 0:
		return true
	case c.err == nil:
		c.err = io.EOF
	}
	c.busy.Store(false)
	c.n = 0
	c.release()
	return c.err != unix.EAGAIN
}

func (c *conn) release() {
	if c.buffer != nil {
		readBuffers.Put(c.buffer)
		c.buffer = nil
	}
}

// keep moves what was read to the rest.
func (c *conn) keep() {
	if c.n > 0 {
		c.rest = append(c.rest, c.buffer[:c.n]...)
		c.n = 0
	}
	c.release()
}

// deliver publishes every whole frame and keeps the rest.
func (c *conn) deliver(session *device.Session) error {
	if len(c.rest) > 0 {
		c.keep()
		used, err := c.split(session, c.rest)
		if used > 0 {
			c.rest = append([]byte(nil), c.rest[used:]...)
		}
		return err
	}
	if c.n == 0 {
		return nil
	}
	data := c.buffer[:c.n]
	used, err := c.split(session, data)
	if used < len(data) {
		c.rest = append([]byte(nil), data[used:]...)
	}
	c.n = 0
	c.release()
	return err
}

// split publishes the whole frames in data and returns how many bytes they used up.
func (c *conn) split(session *device.Session, data []byte) (used int, err error) {
	frames := 0
	defer func() { c.transport.metrics.framesIn.Add(float64(frames)) }()
	for used < len(data) {
		advance, frame, err := c.transport.framing.Split(data[used:])
		if err != nil {
			return used, err
		}
		if advance == 0 {
			break
		}
		used += advance
		if frame == nil {
			continue
		}
		frames++
		if err := session.Data(frame); err != nil {
			return used, err
		}
		if err := c.hold(session); err != nil {
			return used, err
		}
	}
	return used, nil
}

// addr returns the peer's address, IPv4 as IPv4.
func (c *conn) addr() netip.AddrPort {
	addr := c.socket.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// shut closes the socket.
func (c *conn) shut() {
	if err := c.link.Close(); err != nil {
		c.transport.env.Logger.Debug("closing a connection", "peer", c.socket.RemoteAddr(), "err", err)
	}
}
