package amqp

import (
	"net"
	"sync"
	"time"
)

const (
	// lastWords is how long a closing connection may take to send what it still has.
	flushTime = 200 * time.Millisecond
	// keptBuffer is the largest buffer that is kept for the next write.
	keptBuffer = 1 << 20
)

// wire is a connection that reads through frames, and whose Write never blocks: it gathers, and one goroutine hands what has gathered
// to the kernel. The AMQP library flushes every frame under a lock of its connection. So frames that come together cost one system call,
// and a broker that stops reading holds up nobody who has a deadline. What gathers is bounded by the confirm window and the acks of the
// prefetched.
type wire struct {
	net.Conn
	frames *frames

	mu      sync.Mutex
	pending []byte
	err     error

	wake    chan struct{}
	closing chan struct{}
	closed  sync.Once
	done    chan struct{}
}

func newWire(conn net.Conn, emptied func(), c *consumers) *wire {
	w := &wire{
		Conn:    conn,
		frames:  newFrames(conn, emptied, c),
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go w.run()
	return w
}

// Read reads what the broker sent, in a form that the library can take.
func (w *wire) Read(p []byte) (int, error) { return w.frames.Read(p) }

// Write takes p and returns the error of an earlier one.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return 0, w.err
	}
	w.pending = append(w.pending, p...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// Close sends what has gathered, if that is possible at once, and closes the connection.
func (w *wire) Close() error {
	w.closed.Do(func() {
		// The deadline also ends a write that hangs.
		_ = w.SetWriteDeadline(time.Now().Add(flushTime))
		close(w.closing)
	})
	<-w.done
	return nil
}

func (w *wire) run() {
	defer close(w.done)
	defer w.Conn.Close()
	var buf []byte
	for open := true; open; {
		select {
		case <-w.wake:
		case <-w.closing:
			open = false
		}
		w.mu.Lock()
		buf, w.pending = w.pending, buf[:0]
		w.mu.Unlock()
		if len(buf) > 0 {
			if _, err := w.Conn.Write(buf); err != nil {
				w.mu.Lock()
				w.err = err
				w.pending = nil
				w.mu.Unlock()
				return
			}
		}
		if cap(buf) > keptBuffer {
			buf = nil
		}
	}
	w.mu.Lock()
	w.err = net.ErrClosed
	w.mu.Unlock()
}
