package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/stdio"
)

// child is one run of the program.
type child struct {
	h      *handler
	cmd    *exec.Cmd
	stdin  *outbox
	stdout *os.File
	// heard is how many bytes it has written.
	heard atomic.Int64
	began time.Time
	hello pluginHello
	// maxLine is the longest line that it takes.
	maxLine int
	// started gets nil when it is ready, or why it won't be; ended is closed when the process and all that reads it has ended.
	started chan error
	exited  chan struct{} // the process alone
	ended   chan struct{}

	// Guarded by h.mu.
	readyAt     time.Time
	window      int // most requests at a time
	open, bytes int // requests that it has or is about to have, and their bytes
	alone       bool
	answered    bool // at least one of them
	again       bool
	quiet       time.Time // since when it has none, if it has none

	mu       sync.Mutex
	requests map[int64]*request
	lastID   int64
	// clock calls overdue at clockAt, the first time that is over; it is nil while none is waited for.
	clock    *time.Timer
	clockAt  time.Time
	reason   error // why it ends; nil while it lives
	innocent bool  // none of its messages is why
	ready    bool
	retiring bool // it gets no more requests
	drained  chan struct{}
	pinged   int64 // the id of the ping that isn't answered, or 0
	pingedAt time.Time
	unknown  map[string]bool // types of lines that were complained about
}

// request is one on its way.
type request struct {
	id     int64
	uuid   string
	size   int
	answer chan answer // gets one
	// until is when its timeout is over, and then its grace.
	until   time.Time
	overdue bool
	// heard is how many bytes the program had written before.
	heard int64
	// late says that the answer is told already, or that nobody waits for it.
	late bool
}

type answer struct {
	messages []*message.Message
	err      error
}

// tell answers who waits, if nobody did before. c.mu is held.
func (r *request) tell(a answer) {
	if !r.late {
		r.late = true
		r.answer <- a
	}
}

// begin writes a request for which there was room.
func (c *child) begin(uuid string, text []byte) (*request, error) {
	if len(text)+requestFrame > c.maxLine {
		c.release(len(text))
		return nil, handlers.Permanent(fmt.Errorf("the message is a line of %d bytes, and the plugin takes %d", len(text)+requestFrame, c.maxLine))
	}
	r := &request{uuid: uuid, size: len(text), answer: make(chan answer, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil || c.retiring {
		go c.release(r.size)
		return nil, errEnded
	}
	c.lastID++
	r.id = c.lastID
	c.requests[r.id] = r
	r.heard = c.heard.Load()
	c.stdin.request(r.id, c.h.config.Timeout, text)
	r.until = time.Now().Add(c.h.config.Timeout)
	if c.clock == nil || r.until.Before(c.clockAt) {
		c.wind(r.until)
	}
	return r, nil
}

// wind sets the one clock of all requests. c.mu is held.
func (c *child) wind(at time.Time) {
	if c.clock != nil {
		c.clock.Stop()
	}
	c.clock, c.clockAt = time.AfterFunc(time.Until(at), c.overdue), at
}

// requestFrame is about what a request has around its message.
const requestFrame = 80

// release gives the room of a request back.
func (c *child) release(size int) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.giveBack(size, time.Now())
	c.h.dispatch()
}

// overdue deals with the requests whose time is over.
func (c *child) overdue() {
	c.mu.Lock()
	now, hung := time.Now(), false
	var next time.Time
	for _, r := range c.requests {
		switch over := !now.Before(r.until); {
		case over && r.overdue:
			hung = true
		case over:
			r.overdue, r.until = true, now.Add(c.h.config.Grace)
			r.tell(answer{err: fmt.Errorf("the plugin had no response within %v%s", c.h.config.Timeout, c.silence(r.heard))})
			c.cancel(r)
		}
		if next.IsZero() || r.until.Before(next) {
			next = r.until
		}
	}
	switch c.clock = nil; {
	case hung:
		c.innocent = true // the one that hung has its error
	case !next.IsZero():
		c.wind(next)
	}
	c.mu.Unlock()
	if hung {
		c.kill(fmt.Errorf("it had no response for %v, %v after its time was over", c.h.config.Timeout+c.h.config.Grace, c.h.config.Grace))
	}
}

// silence is what to say of a program that has written no more than so many bytes.
func (c *child) silence(heard int64) string {
	if c.heard.Load() > heard {
		return ""
	}
	return ", and wrote nothing: did it flush its standard output?"
}

// output is the program's standard output, whose bytes are counted.
type output struct{ *child }

func (o output) Read(p []byte) (int, error) {
	n, err := o.stdout.Read(p)
	o.heard.Add(int64(n))
	return n, err
}

// abandon says that nobody waits for a request any more. It keeps its room until it is answered.
func (c *child) abandon(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.late = true
	if c.requests[r.id] == r {
		c.cancel(r)
	}
}

// cancel tells the program that a request needs no more work. c.mu is held.
func (c *child) cancel(r *request) {
	if c.has("cancel") {
		c.stdin.line(fmt.Appendf(nil, "{\"type\":\"cancel\",\"id\":%d}\n", r.id))
	}
}

func (c *child) has(feature string) bool { return slices.Contains(c.hello.Features, feature) }

// read takes the program's lines until they end, or are none of the protocol.
func (c *child) read() {
	in := stdio.NewReader(output{c}, stdio.StartMaxLine)
	err := c.greeted(in)
	if err == nil {
		c.mu.Lock()
		c.ready = true
		c.mu.Unlock()
		c.started <- nil
		for err == nil {
			err = c.next(in)
		}
	}
	if !errors.Is(err, io.EOF) {
		c.kill(err)
		return
	}
	c.without(errOutput)
}

// without kills a program that has closed its input or output, unless that was its end.
func (c *child) without(reason error) {
	select {
	case <-c.exited:
	case <-time.After(partingTime):
		c.kill(reason)
	}
}

var (
	errInput  = errors.New("it closed its standard input")
	errOutput = errors.New("it closed its standard output")
)

// next deals with one line.
func (c *child) next(in *stdio.Reader) error {
	text, err := in.Text()
	switch {
	case errors.Is(err, io.EOF):
		return err
	case err != nil:
		return fmt.Errorf("it wrote %w", err)
	case stdio.Blank(text):
		return nil
	}
	l, err := parse(text)
	if err != nil {
		return err
	}
	switch l.kind {
	case "response":
		c.respond(&l)
	case "log":
		c.h.stderr.log(text)
	case "pong":
		c.mu.Lock()
		if c.pinged == l.id {
			c.pinged = 0
		}
		c.mu.Unlock()
	case "drained":
		c.mu.Lock()
		if c.retiring {
			closeOnce(c.drained)
		}
		c.mu.Unlock()
	case "hello", "ready", "refuse":
		return fmt.Errorf("it wrote a second %s, or one after it was ready", l.kind)
	default:
		c.complain(l.kind)
	}
	return nil
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// respond settles a request.
func (c *child) respond(l *line) {
	messages, err := l.outcome(c.h.destinations)
	now := time.Now()
	c.mu.Lock()
	r := c.requests[l.id]
	if r != nil {
		delete(c.requests, l.id)
		r.tell(answer{messages, err})
		c.pingedAt = now // it lives; a ping that waits has its time from here
	}
	c.mu.Unlock()
	if r == nil {
		c.complain("a response that nobody waits for")
		return
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.answered = true
	c.h.cleared(r.uuid)
	c.giveBack(r.size, now)
	c.h.dispatch()
}

// complain says once of a kind of line that it isn't understood.
func (c *child) complain(kind string) {
	kind = cut(kind, mostName)
	c.mu.Lock()
	const kinds = 10
	again := c.unknown[kind] || len(c.unknown) == kinds
	if !again {
		c.unknown[kind] = true
	}
	c.mu.Unlock()
	if !again {
		c.h.env.Logger.Warn("the plugin writes lines that mean nothing here; they are ignored", "type", kind, "plugin", c.hello.Name)
	}
}
