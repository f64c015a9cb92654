package process

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// outbox writes lines to a program's standard input. Whoever has a line doesn't wait for that: a program may read when it likes. What waits is
// bounded by the program's window.
type outbox struct {
	file *os.File
	// broken is told that the program's input takes nothing any more, though it isn't closed.
	broken func()

	mu      sync.Mutex
	waiting []byte
	spare   []byte
	news    chan struct{}
	closed  bool
	ended   chan struct{}
}

func newOutbox(file *os.File, broken func()) *outbox {
	o := &outbox{file: file, broken: broken, news: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o
}

func (o *outbox) request(id int64, remaining time.Duration, msg []byte) {
	o.put(func(b []byte) []byte { return appendRequest(b, id, remaining, msg) })
}

func (o *outbox) line(line []byte) {
	o.put(func(b []byte) []byte { return append(b, line...) })
}

func (o *outbox) put(add func([]byte) []byte) {
	o.mu.Lock()
	if !o.closed {
		o.waiting = add(o.waiting)
	}
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// close ends the program's input when what waits is written, or at once if it doesn't read.
func (o *outbox) close() {
	o.mu.Lock()
	first := !o.closed
	o.closed = true
	o.mu.Unlock()
	if first {
		_ = o.file.SetWriteDeadline(time.Now().Add(lastWords))
		select {
		case o.news <- struct{}{}:
		default:
		}
	}
}

// lastWords is how long what waits at the end may take.
const lastWords = 100 * time.Millisecond

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
					o.broken()
				}
				return
			}
		}
		o.mu.Lock()
		if cap(batch) <= mostSpare {
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
		<-o.news
		runtime.Gosched() // others may have lines, too
	}
}

// mostSpare is how much room for lines is kept for the next.
const mostSpare = 1 << 20
