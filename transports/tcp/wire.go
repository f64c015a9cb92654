package tcp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file runs crypto/tls on a connection whose goroutine waits in the runtime until the
// descriptor has bytes.
//
// A tls.Conn reads and writes records on a net.Conn. Here that is a wire, which never waits after
// the handshake:
//   - Read returns EAGAIN if the kernel has no bytes. A tls.Conn keeps the part of a record that
//     it has and can be called again, because EAGAIN is a temporary net.Error.
//   - Write only appends to a buffer. flush passes the buffer to the kernel. A wire has a buffer
//     only until the kernel has taken everything.
//
// Two goroutines write. The writer of the device's queue writes records with data. The reader
// writes TLS's own messages: alerts, and new keys if the device asks for them. A tls.Conn encrypts
// under a lock of its own and calls Write under that lock. So the buffer has the records in the
// order of their encryption.
//
// A record with data is at most recordSize bytes of the queue. It is taken once the kernel has its
// last byte, because the device can't read a part of a record. While the kernel has only a part of
// it, the record is begun. The invariants:
//   - At most one record with data is in the buffer. If that record is begun and TryWrite has
//     returned, only the next TryWrite passes the buffer to the kernel. So TryWrite sees each
//     record that is taken.
//   - Close drops a record that is begun. So the device never gets a record that TryWrite hasn't
//     reported as taken.
//
// wire.mu is the innermost lock. A tls.Conn is never called under it.

const (
	// recordSize is how many bytes one record carries. Commands in a record can't be withdrawn. So
	// if a device doesn't read, larger records would mean more commands that can't be withdrawn.
	recordSize = 4 << 10
	// maxUnsent is how many bytes may wait for the kernel before Write refuses further ones. One
	// record with data is much smaller. So the rest are answers to a device that asks for new keys
	// and doesn't read.
	maxUnsent = 32 << 10
)

var (
	errTLS       = errors.New("the device broke the rules of TLS")
	errTruncated = errors.New("the connection ended without TLS's close_notify: the end of the data may be missing")
	errUnsent    = errors.New("the device makes TLS answer and reads nothing")
)

// cipherBuffers has the buffers of wires that have bytes for the kernel.
var cipherBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, recordSize+256)
	return &b
}}

// wire is the net.Conn below a tls.Conn.
type wire struct {
	conn *conn
	tls  *tls.Conn

	// Only the goroutine that reads uses these.
	fd      int   // the descriptor, while it is locked for reading
	readErr error // the last error of the kernel, or io.EOF
	// drained says that neither the tls.Conn nor the kernel had bytes when drainTLS looked.
	drained bool
	// computing has a place for each handshake that may compute. slot says that this one has one.
	computing chan struct{}
	slot      bool

	// handshaking says that Read waits. It changes before other goroutines use the wire.
	handshaking bool

	mu   sync.Mutex
	out  *[]byte // from cipherBuffers; nil if the kernel has taken everything
	from int     // the kernel has out[:from]
	// appended counts all bytes that were ever in out. flushed counts those of them that the
	// kernel has. recordEnd is the value of appended at the end of the last record with data.
	appended, flushed, recordEnd int64
	// begun is how many plaintext bytes the last record with data has. It is 0 once the record is
	// taken.
	begun  int
	closed bool
}

// Read implements net.Conn for the tls.Conn.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.handshaking {
		n, err = w.awaitBytes(p)
	} else {
		n, err = readOnce(w.fd, p)
	}
	if err != nil && err != unix.EAGAIN {
		w.readErr = err
	}
	return n, err
}

// readOnce reads what the kernel has. At the end of the stream the error is io.EOF.
func readOnce(fd int, p []byte) (n int, err error) {
	for {
		n, err = unix.Read(fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// readPlain reads decrypted bytes. The error is EAGAIN if there are none, io.EOF if the device has
// closed its side with close_notify, and errTruncated if the device has closed its side without
// close_notify.
func (w *wire) readPlain(fd int, p []byte) (int, error) {
	w.fd = fd
	n, err := w.tls.Read(p)
	w.flushAnswers(fd)
	switch remote := (*net.OpError)(nil); {
	case n > 0:
		return n, nil
	case errors.Is(w.readErr, io.EOF):
		return 0, errTruncated
	case w.readErr != nil, err == io.EOF, errors.Is(err, unix.EAGAIN):
		return 0, err
	case errors.As(err, &remote) && remote.Op == "remote error":
		return 0, fmt.Errorf("the device ended TLS: %w", err)
	default:
		return 0, fmt.Errorf("%w: %w", errTLS, err)
	}
}

// drainTLS reads what has arrived with the handshake, and finds out whether that is all. If so,
// the goroutine that waits for more needs no call of TLS before it waits. Such a call would double
// its stack, for as long as the device says nothing.
func (c *conn) drainTLS() {
	if c.wire == nil {
		return
	}
	c.err = nil
	_ = c.raw.Control(func(fd uintptr) { c.readReady(fd) }) // the next read has the error, too
	c.wire.drained = errors.Is(c.err, unix.EAGAIN)
	if c.n > 0 {
		c.noteRead()
		c.keepRest()
	}
}

// isDrained reports whether nothing has arrived since drainTLS found nothing.
func (w *wire) isDrained(fd int) bool {
	if !w.drained {
		return false
	}
	w.drained = false
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}

// Write implements net.Conn for the tls.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return len(p), nil // nobody waits for it
	case w.out == nil:
		w.out, w.from = cipherBuffers.Get().(*[]byte), 0
	case !w.handshaking && len(*w.out)-w.from > maxUnsent:
		return 0, errUnsent
	}
	*w.out = append(*w.out, p...)
	w.appended += int64(len(p))
	return len(p), nil
}

// flush passes the buffer to the kernel, as much of it as the kernel takes. w.mu is locked.
func (w *wire) flush(fd int) error {
	if w.out == nil {
		return nil
	}
	n, err := writeOnce(fd, (*w.out)[w.from:])
	w.from += n
	w.flushed += int64(n)
	if w.from == len(*w.out) {
		w.drop()
	}
	return err
}

// drop forgets the bytes that the kernel doesn't have. w.mu is locked.
func (w *wire) drop() {
	if w.out != nil {
		*w.out = (*w.out)[:0]
		cipherBuffers.Put(w.out)
		w.out = nil
	}
}

// flushAnswers passes TLS's own messages to the kernel. If a record is begun, its writer does
// that.
func (w *wire) flushAnswers(fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun == 0 && !w.closed {
		_ = w.flush(fd) // the next read or write has the error, too
	}
}

// tryWrite implements device.Conn.TryWrite.
func (w *wire) tryWrite(fd int, p []byte) (taken, begun int, err error) {
	for {
		var done bool
		if taken, begun, done, err = w.settle(fd, taken); done || taken == len(p) {
			return taken, begun, err
		}
		record := p[taken:min(len(p), taken+recordSize)]
		if _, err := w.tls.Write(record); err != nil {
			return taken, taken, fmt.Errorf("encrypting: %w", err)
		}
		w.mu.Lock()
		w.begun, w.recordEnd = len(record), w.appended
		w.mu.Unlock()
	}
}

// settle flushes the buffer and adds the record with data to taken if the kernel has it. done says
// that no further record can be written now.
func (w *wire) settle(fd, taken int) (_, begun int, done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		err = net.ErrClosed
	} else {
		err = w.flush(fd)
	}
	if w.flushed >= w.recordEnd {
		taken += w.begun
		w.begun = 0
	}
	return taken, taken + w.begun, err != nil || w.out != nil, err
}

// closeWrite tells the device with close_notify that nothing follows, if the kernel takes that at
// once. It drops a record that is begun.
func (w *wire) closeWrite(raw syscall.RawConn) {
	_ = w.tls.CloseWrite() // it fails only if the wire does, and the connection is closed anyway
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun == 0 {
		_ = raw.Control(func(fd uintptr) { _ = w.flush(int(fd)) })
	}
	w.drop()
	w.closed = true
}

// awaitBytes is Read during the handshake. While it waits, other handshakes may compute.
func (w *wire) awaitBytes(p []byte) (n int, err error) {
	w.leaveSlot()
	if err := w.sendAll(); err != nil {
		return 0, err
	}
	waited := w.conn.raw.Read(func(fd uintptr) bool {
		n, err = readOnce(int(fd), p)
		return err != unix.EAGAIN
	})
	if waited != nil {
		return 0, waited
	}
	if err != nil {
		return 0, err
	}
	return n, w.enterSlot()
}

// sendAll writes the buffer during the handshake. It waits until the kernel has taken everything.
func (w *wire) sendAll() error {
	for deadline := time.Now().Add(w.conn.transport.config.WriteTimeout); ; {
		var rest bool
		var err error
		closed := w.conn.raw.Control(func(fd uintptr) {
			w.mu.Lock()
			defer w.mu.Unlock()
			err = w.flush(int(fd))
			rest = w.out != nil
		})
		if err = errors.Join(closed, err); err != nil || !rest {
			return err
		}
		if err := w.conn.WaitWritable(deadline); err != nil {
			return err
		}
	}
}

// enterSlot waits until the handshake may compute.
func (w *wire) enterSlot() error {
	t := w.conn.transport
	select {
	case w.computing <- struct{}{}:
		w.slot = true
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

func (w *wire) leaveSlot() {
	if w.slot {
		<-w.computing
		w.slot = false
	}
}

// The other methods of net.Conn. A tls.Conn sets deadlines only around writes, which don't wait.

func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return w.conn.socket.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.conn.socket.RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
