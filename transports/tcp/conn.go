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
	"github.com/pentrough/pentrough/transports/protocol"
)

// readSize is the most bytes that one read takes.
const readSize = 4 << 10

// readBuffers has the buffers of connections that have bytes to handle.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// conn is one connection. Its goroutine reads. Frames are written by other goroutines (see
// write.go).
type conn struct {
	transport *transport
	link      *listen.Conn
	socket    *net.TCPConn // the socket of link
	raw       syscall.RawConn
	wire      *wire   // nil without TLS
	target    *target // nil if the connection was accepted

	session  atomic.Pointer[device.Session] // nil until the device is known
	began    int64                          // when it was accepted, on the transport's clock
	lastRead atomic.Int64                   // when bytes last arrived, on the transport's clock
	alertAt  int64                          // when Heard found what may be close_notify; 0: never
	handling atomic.Bool                    // bytes are being read or handled
	named    atomic.Bool                    // the device is known, and Connect may have to wait
	timedOut atomic.Bool                    // the first frame didn't arrive in time

	recordable device.Recordable

	// Only the goroutine that reads uses the rest.
	fill   func(fd uintptr) bool // c.readReady
	heard  bool                  // bytes have arrived
	buffer *[readSize]byte       // nil while it has no bytes
	n      int                   // how many bytes it has
	err    error                 // the error of the read
	rest   []byte                // the beginning of an incomplete frame
	seen   int                   // how many bytes of rest Split has seen without finding a frame
	flood  flood
	dialog *device.Dialog
	// first is the frame that identified the device, and verdict what it means. first is nil if
	// there is no such frame, or if it is handled.
	first   []byte
	verdict *protocol.Verdict
	secret  *secret // nil without a token
}

// newConn returns an accepted connection, or a dialed one if target isn't nil.
func newConn(t *transport, link *listen.Conn, target *target) (*conn, error) {
	socket := link.Conn.(*net.TCPConn)
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reaching the socket: %w", err)
	}
	c := &conn{transport: t, link: link, socket: socket, raw: raw, target: target, began: t.clock.Load()}
	c.lastRead.Store(c.began)
	c.fill = c.readReady
	if !c.needsToken() { // else see authenticate
		t.recorders.Begin(&c.recordable)
	}
	return c, nil
}

// begin reads the PROXY header, if there must be one, and goes on with the TLS handshake or the
// session.
func (c *conn) begin() {
	switch err := c.readHeader(); {
	case err != nil:
		c.refuse(refusedAuth, err)
	case c.endpointTLS() != nil:
		c.beginTLS()
	default:
		c.beginSession()
	}
}

// beginSession identifies the device and makes a session of the connection.
func (c *conn) beginSession() {
	t := c.transport
	c.dialog = t.newDialog(c)
	name, err := c.identify()
	refusal := refusedAuth
	var session *device.Session
	if err == nil {
		err = c.checkName(name)
	}
	if errors.Is(err, errCertificate) {
		refusal = refusedCertificate
	}
	if err == nil && !t.isAllowed(name) {
		refusal, err = refusedUnknown, errUnknownDevice(name)
	}
	if err == nil {
		refusal, err = c.authenticate(name)
	}
	if err == nil {
		c.link.Keep()
	}
	if c.link.Displaced() {
		refusal, err = refusedDisplaced, errDisplaced
	}
	if err == nil {
		c.drainTLS()
		c.named.Store(true)
		if c.target != nil {
			c.target.identified()
		}
		c.handling.Store(true) // Connect may have to wait
		refusal = refusedTurn
		session, err = t.registry.Connect(t.ctx, name, c.peerAddr().String(), c, t.sessionDialog(c))
		switch {
		case errors.Is(err, device.ErrNewName):
			refusal = refusedName
		case errors.Is(err, device.ErrBanned):
			refusal = refusedBanned
		}
	}
	if err != nil {
		c.refuse(refusal, err)
		return
	}
	c.lastRead.Store(t.clock.Load())
	c.session.Store(session)
	t.recorders.Identify(&c.recordable, session)
	if !t.isAllowed(name) { // the inventory may have changed
		session.Kick(notListed)
	}
	if c.target != nil {
		c.target.began()
	}
	t.env.Logger.Debug("device connected", "device", name, "epoch", session.Epoch(), "peer", c.link.RemoteAddr())
	// A new goroutine has a small stack. It waits for the life of the connection, so the saving
	// counts.
	t.running.Go(c.readFrames)
}

// refuse ends a connection that doesn't become a session.
func (c *conn) refuse(refusal string, err error) {
	c.releaseBuffer()
	c.recordable.End("")
	c.closeSocket()
	c.transport.removeConn(c)
	if c.target != nil {
		c.target.fail(refusal, err)
		return
	}
	c.transport.refuseConn(refusal, c.link, err)
}

// readFrames reads until the session ends.
func (c *conn) readFrames() {
	session := c.session.Load()
	c.dialog = session.Dialog()
	err := c.handleFirst(session)
	for err == nil {
		err = c.deliverFrames(session) // first the bytes behind the first frame
		if err == nil {
			err = c.readBytes()
		}
	}
	c.releaseBuffer()
	c.reportTail(session, err)
	if c.transport.config.HalfClose && errors.Is(err, io.EOF) {
		err = c.awaitEnd(session)
	}
	c.endConn(session, err)
}

func (c *conn) endConn(session *device.Session, err error) {
	err = c.hideError(err)
	attrs := []any{"device", session.Device(), "epoch", session.Epoch()}
	if session.Reason() == "" {
		attrs = append(attrs, "err", err)
	}
	session.End(reasonOf(err))
	c.noteError(session, err)
	if errors.Is(err, device.ErrEnded) {
		c.discardInput()
	}
	c.recordRest()
	c.recordable.End(session.Reason())
	c.closeSocket()
	t := c.transport
	t.removeConn(c)
	if isHeaderError(err) {
		t.metrics.refused.WithLabelValues(refusedHeader).Inc()
	}
	level := slog.LevelDebug
	switch session.Reason() {
	case device.IdleTimeout, device.ProtocolError, device.Kicked: // the device is the cause
		if session.Reason() == device.ProtocolError && c.target == nil {
			t.gate.NoteFault(c.link.RemoteAddr())
		}
		t.complaints.Do(func() { level = slog.LevelInfo })
	}
	t.env.Logger.Log(t.ctx, level, "device disconnected", append(attrs, "reason", session.Reason())...)
	if c.target != nil {
		c.target.ended(session)
	}
}

// noteError records the error with which the session ended, if it ended with one. If err is
// ErrEnded, another goroutine has ended the session.
func (c *conn) noteError(session *device.Session, err error) {
	switch session.Reason() {
	case device.IdleTimeout:
		err = errIdle
	case device.ProtocolError, device.ConnectionLost:
		if errors.Is(err, device.ErrEnded) {
			return
		}
	default:
		return
	}
	c.transport.registry.NoteError(session.Device(), err.Error())
}

// discardInput reads and drops what the device still sends. It returns when the device has closed
// its side or lingerTime has passed.
func (c *conn) discardInput() {
	for c.readBytes() == nil {
		c.releaseBuffer()
	}
}

var errDisplaced = errors.New("too many connections: this one was closed for a newer one before its device was known")

var errIdle = errors.New("nothing arrived for longer than idle_timeout")

// reasonOf returns the reason for a session that ends because of an error while reading.
func reasonOf(err error) device.Reason {
	switch {
	case errors.Is(err, io.EOF):
		return device.ClientClosed
	case errors.Is(err, codec.ErrFrame), errors.Is(err, errFlood), errors.Is(err, device.ErrRefused), errors.Is(err, errTLS), isHeaderError(err):
		return device.ProtocolError
	default:
		return device.ConnectionLost
	}
}

// readBytes waits until there are bytes and reads them into the buffer. The poller reports only
// changes. If bytes and the end of the stream arrive together, it reports both as one change. So
// the caller calls readBytes until the kernel has no more.
func (c *conn) readBytes() error {
	if err := c.raw.Read(c.fill); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	c.noteRead()
	if !c.heard {
		c.heard = true
		return c.checkForHeader(c.buffer[:c.n])
	}
	return nil
}

// noteRead counts and records the bytes in the buffer.
func (c *conn) noteRead() {
	c.lastRead.Store(c.transport.clock.Load())
	c.transport.metrics.bytesIn.Add(float64(c.n))
	c.recordRead(c.buffer[:c.n])
}

// readReady is called when there may be bytes. It returns false if the caller has to wait for
// more.
func (c *conn) readReady(fd uintptr) bool {
	if c.wire != nil && c.wire.isDrained(int(fd)) {
		c.handling.Store(false)
		return false
	}
	c.buffer = readBuffers.Get().(*[readSize]byte)
	c.handling.Store(true)
	if c.wire != nil {
		c.n, c.err = c.wire.readPlain(int(fd), c.buffer[:])
	} else {
		c.n, c.err = readOnce(int(fd), c.buffer[:])
	}
	if c.n > 0 {
		return true
	}
	c.handling.Store(false)
	c.releaseBuffer()
	return c.err != unix.EAGAIN
}

func (c *conn) releaseBuffer() {
	if c.buffer != nil {
		readBuffers.Put(c.buffer)
		c.buffer = nil
	}
}

// keepRest moves what was read to the rest.
func (c *conn) keepRest() {
	if c.n > 0 {
		c.rest = append(c.rest, c.buffer[:c.n]...)
		c.n = 0
	}
	c.releaseBuffer()
}

// deliverFrames publishes every whole frame and keeps the rest.
func (c *conn) deliverFrames(session *device.Session) error {
	if len(c.rest) > 0 {
		c.keepRest()
		used, err := c.splitFrames(session, c.rest, c.seen)
		if used > 0 {
			c.rest = append([]byte(nil), c.rest[used:]...)
		}
		return err
	}
	if c.n == 0 {
		return nil
	}
	data := c.buffer[:c.n]
	used, err := c.splitFrames(session, data, 0)
	if used < len(data) {
		c.rest = append([]byte(nil), data[used:]...)
	}
	c.n = 0
	c.releaseBuffer()
	return err
}

// splitFrames handles the whole frames in data and returns how many bytes they used up. Split has
// seen the first seen bytes of data.
func (c *conn) splitFrames(session *device.Session, data []byte, seen int) (used int, err error) {
	frames := 0
	defer func() { c.transport.metrics.framesIn.Add(float64(frames)) }()
	for used < len(data) {
		advance, frame, err := c.dialog.Split(data[used:], seen)
		if err != nil {
			return used, err
		}
		if advance == 0 {
			break
		}
		used += advance
		seen = 0
		found := 0
		if frame != nil {
			found = 1
			frames++
			if err := c.handleFrame(session, frame); err != nil {
				return used, err
			}
		}
		if err := c.checkRate(session, found, advance); err != nil {
			return used, err
		}
	}
	c.seen = len(data) - used
	return used, nil
}

// peerAddr returns the device's address. An IPv4 address has its short form, without "::ffff:".
func (c *conn) peerAddr() netip.AddrPort {
	addr := c.link.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// closeSocket closes the socket.
func (c *conn) closeSocket() {
	if err := c.link.Close(); err != nil {
		c.transport.env.Logger.Debug("closing a connection", "peer", c.link.RemoteAddr(), "err", err)
	}
}
