package process

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// outbox writes lines to the standard input of a process. A caller never waits for the process to
// read: it adds its line to a buffer, and one goroutine writes the buffer. The process's window
// limits the size of the buffer.
type outbox struct {
	file *os.File
	// onBroken is called when a write fails before close, because the process has closed its
	// input.
	onBroken func()

	mu      sync.Mutex
	waiting []byte        // lines to write
	spare   []byte        // an empty buffer for the next lines
	wake    chan struct{} // has a value if there are lines, or if closed has changed
	closed  bool
	ended   chan struct{} // closed when run has returned
}

func newOutbox(file *os.File, onBroken func()) *outbox {
	o := &outbox{file: file, onBroken: onBroken, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o
}

func (o *outbox) writeRequest(id int64, remaining time.Duration, msg []byte) {
	o.appendLines(func(b []byte) []byte { return appendRequest(b, id, remaining, msg) })
}

func (o *outbox) writeLine(line []byte) {
	o.appendLines(func(b []byte) []byte { return append(b, line...) })
}

func (o *outbox) appendLines(add func([]byte) []byte) {
	o.mu.Lock()
	if !o.closed {
		o.waiting = add(o.waiting)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close closes the standard input of the process once the waiting lines are written. If they can't
// be written within closeTime, they are dropped.
func (o *outbox) close() {
	o.mu.Lock()
	first := !o.closed
	o.closed = true
	o.mu.Unlock()
	if first {
		_ = o.file.SetWriteDeadline(time.Now().Add(closeTime))
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// closeTime is how long the last lines may take after close.
const closeTime = 100 * time.Millisecond

func (o *outbox) run() {
	defer close(o.ended)
	defer o.file.Close()
	for {
		o.mu.Lock()
		batch, closed := o.waiting, o.closed
		o.waiting, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		if len(batch) > 0 {
			if _, err := o.file.Write(batch); err != nil {
				if !closed {
					o.onBroken()
				}
				return
			}
		}
		o.mu.Lock()
		if cap(batch) <= maxSpare {
			o.spare = batch
		}
		more := len(o.waiting) > 0
		o.mu.Unlock()
		if more {
			continue
		}
		if closed {
			return
		}
		<-o.wake
		runtime.Gosched() // let other goroutines add their lines to the same write
	}
}

// maxSpare is the greatest capacity of a buffer that is kept for the next lines.
const maxSpare = 1 << 20
