package amqp

import (
	"net"
	"sync"
	"time"
)

const (
	// flushTime is how long a closing connection may take to write its buffer.
	flushTime = 200 * time.Millisecond
	// keptBuffer is the largest buffer that is kept for the next write.
	keptBuffer = 1 << 20
)

// wire is a connection whose Write never blocks. It reads through frames.
//
// Write appends to a buffer, and one goroutine passes the buffer to the kernel. The AMQP library
// writes every frame under a lock of its connection. So frames of many callers share one system
// call, and a broker that stops reading delays no caller that has a deadline. The confirm windows,
// and the acks of prefetched messages, bound the buffer.
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

// newWire returns the wire of a connection and starts its goroutine. Close ends it.
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

// Read reads what the broker sent, filtered by frames.
func (w *wire) Read(p []byte) (int, error) { return w.frames.Read(p) }

// Write buffers p. It returns the error of an earlier write.
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

// Close writes the buffer, for at most flushTime, and closes the connection.
func (w *wire) Close() error {
	w.closed.Do(func() {
		// The deadline also ends a write that blocks.
		_ = w.SetWriteDeadline(time.Now().Add(flushTime))
		close(w.closing)
	})
	<-w.done
	return nil
}

// run writes the buffer whenever it isn't empty, until Close.
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
