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

// child is one process of the program. The keeper starts it (see keeper.go for its states).
//
// Two locks guard a child. The handler's mu guards the fields that decide which process gets the
// next request. The child's own mu guards its requests. No goroutine has both locks at a time.
type child struct {
	h      *handler
	cmd    *exec.Cmd
	stdin  *outbox
	stdout *os.File
	// bytesRead is the number of bytes that the process has written to its standard output.
	bytesRead atomic.Int64
	startedAt time.Time
	hello     pluginHello
	// maxLine is the longest line that the process accepts, in bytes.
	maxLine int
	// started receives nil when the process is ready, or the reason why it never will be.
	started chan error
	exited  chan struct{} // closed when the process has exited
	ended   chan struct{} // closed at the end of awaitExit

	// The handler's mu guards the next fields.
	readyAt time.Time
	window  int // the greatest number of open requests
	// the number of open requests and their bytes; admitted requests that aren't written yet
	// count, too
	open, bytes     int
	exclusive       bool      // its only open request is a suspect, so the process gets no other
	answered        bool      // it has responded to at least one request
	dispatchPlanned bool      // dispatchAfter's timer runs
	idleSince       time.Time // since when it has no open request

	// mu guards the next fields.
	mu       sync.Mutex
	requests map[int64]*request
	lastID   int64
	// timer calls expireRequests at timerAt, the earliest until of the requests. It is nil before
	// the first request, and after a call of expireRequests that left no request to wait for.
	timer     *time.Timer
	timerAt   time.Time
	reason    error           // why it ends; nil while it runs
	blameless bool            // its open requests didn't cause its end
	ready     bool            // the handshake is complete
	retiring  bool            // it gets no more requests
	drained   chan struct{}   // closed when it has answered `drain`
	pingID    int64           // the id of the ping without a pong, or 0
	pingAt    time.Time       // when the ping was written, or when the last response came
	warned    map[string]bool // the types of lines that the log has a warning about
}

// request is one message that the process has and hasn't responded to. A request is open until its
// response comes or the process ends, even if its caller has stopped waiting.
type request struct {
	id       int64
	uuid     string
	size     int
	response chan response // receives one value at most
	// until is the end of the timeout. After that it is the end of the grace period, and timedOut
	// is set.
	until    time.Time
	timedOut bool
	// readBefore is the number of bytes that the process had written before this request.
	readBefore int64
	// completed is set if the caller has its response or has stopped waiting.
	completed bool
}

// response is what Handle returns for a request.
type response struct {
	messages []*message.Message
	err      error
}

// complete passes the response to the caller, unless the request is completed. The caller has
// locked the child's mu.
func (r *request) complete(a response) {
	if !r.completed {
		r.completed = true
		r.response <- a
	}
}

// sendRequest writes a request that admit has counted. If it fails, it also releases the room of
// the request: its share of the process's window.
func (c *child) sendRequest(uuid string, text []byte) (*request, error) {
	if len(text)+requestFrame > c.maxLine {
		c.releaseRoom(len(text))
		return nil, handlers.Permanent(fmt.Errorf("the message is a line of %d bytes; the plugin accepts %d", len(text)+requestFrame, c.maxLine))
	}
	r := &request{uuid: uuid, size: len(text), response: make(chan response, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil || c.retiring {
		go c.releaseRoom(r.size)
		return nil, errEnded
	}
	c.lastID++
	r.id = c.lastID
	c.requests[r.id] = r
	r.readBefore = c.bytesRead.Load()
	c.stdin.writeRequest(r.id, c.h.config.Timeout, text)
	r.until = time.Now().Add(c.h.config.Timeout)
	if c.timer == nil || r.until.Before(c.timerAt) {
		c.setTimer(r.until)
	}
	return r, nil
}

// setTimer sets the one timer of all requests. The caller has locked the child's mu.
func (c *child) setTimer(at time.Time) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer, c.timerAt = time.AfterFunc(time.Until(at), c.expireRequests), at
}

// requestFrame is about the number of bytes that a request line has in addition to its message.
const requestFrame = 80

// releaseRoom returns the room of a request, and admits messages that wait for room.
func (c *child) releaseRoom(size int) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.returnRoom(size, time.Now())
	c.h.dispatch()
}

// expireRequests fails the requests whose timeout is over. It kills the process if a request still
// has no response at the end of its grace period.
func (c *child) expireRequests() {
	c.mu.Lock()
	now, hung := time.Now(), false
	var next time.Time
	for _, r := range c.requests {
		switch over := !now.Before(r.until); {
		case over && r.timedOut:
			hung = true
		case over:
			r.timedOut, r.until = true, now.Add(c.h.config.Grace)
			r.complete(response{err: fmt.Errorf("the plugin had no response within %v%s", c.h.config.Timeout, c.silenceHint(r.readBefore))})
			c.sendCancel(r)
		}
		if next.IsZero() || r.until.Before(next) {
			next = r.until
		}
	}
	switch c.timer = nil; {
	case hung:
		// The cause is the request that hung, which has failed already. So there are no suspects.
		c.blameless = true
	case !next.IsZero():
		c.setTimer(next)
	}
	c.mu.Unlock()
	if hung {
		c.kill(fmt.Errorf("it had no response for %v: the timeout and a grace period of %v are over", c.h.config.Timeout+c.h.config.Grace, c.h.config.Grace))
	}
}

// silenceHint returns a hint for an error text, or "". It returns the hint if the process still
// hasn't written more than readBefore bytes.
func (c *child) silenceHint(readBefore int64) string {
	if c.bytesRead.Load() > readBefore {
		return ""
	}
	return ", and wrote nothing: did it flush its standard output?"
}

// output reads the standard output of the process and counts its bytes.
type output struct{ *child }

func (o output) Read(p []byte) (int, error) {
	n, err := o.stdout.Read(p)
	o.bytesRead.Add(int64(n))
	return n, err
}

// stopWaiting records that the caller doesn't need the response any more. The request keeps its
// room until the process responds.
func (c *child) stopWaiting(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.completed = true
	if c.requests[r.id] == r {
		c.sendCancel(r)
	}
}

// sendCancel writes `cancel`, so that the process can stop its work for a request. The caller
// has locked the child's mu.
func (c *child) sendCancel(r *request) {
	if c.hasFeature("cancel") {
		c.stdin.writeLine(fmt.Appendf(nil, "{\"type\":\"cancel\",\"id\":%d}\n", r.id))
	}
}

func (c *child) hasFeature(feature string) bool { return slices.Contains(c.hello.Features, feature) }

// readLines reads and handles lines until the output ends or a line breaks the protocol. Then it
// kills the process, unless the process exits by itself.
func (c *child) readLines() {
	in := stdio.NewReader(output{c}, stdio.StartMaxLine)
	err := c.handshake(in)
	if err == nil {
		c.mu.Lock()
		c.ready = true
		c.mu.Unlock()
		c.started <- nil
		for err == nil {
			err = c.handleLine(in)
		}
	}
	if !errors.Is(err, io.EOF) {
		c.kill(err)
		return
	}
	c.killUnlessExited(errOutputClosed)
}

// killUnlessExited kills a process that has closed its input or output, unless it exits within
// exitTime.
func (c *child) killUnlessExited(reason error) {
	select {
	case <-c.exited:
	case <-time.After(exitTime):
		c.kill(reason)
	}
}

var (
	errInputClosed  = errors.New("it closed its standard input")
	errOutputClosed = errors.New("it closed its standard output")
)

// handleLine reads one line and acts on it. An error means that the output has ended or that the
// line breaks the protocol.
func (c *child) handleLine(in *stdio.Reader) error {
	text, err := in.ReadLine()
	switch {
	case errors.Is(err, io.EOF):
		return err
	case err != nil:
		return fmt.Errorf("it wrote %w", err)
	case stdio.IsBlank(text):
		return nil
	}
	l, err := parse(text)
	if err != nil {
		return err
	}
	switch l.kind {
	case "response":
		c.handleResponse(&l)
	case "log":
		c.h.stderr.forwardLine(text)
	case "pong":
		c.mu.Lock()
		if c.pingID == l.id {
			c.pingID = 0
		}
		c.mu.Unlock()
	case "drained":
		c.mu.Lock()
		if c.retiring {
			closeOnce(c.drained)
		}
		c.mu.Unlock()
	case "hello", "ready", "refuse":
		return fmt.Errorf("it wrote %s after it was ready", l.kind)
	default:
		c.warnUnknown(l.kind)
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

// handleResponse completes the request that a response line names.
func (c *child) handleResponse(l *line) {
	messages, err := l.parseResponse(c.h.destinations)
	now := time.Now()
	c.mu.Lock()
	r := c.requests[l.id]
	if r != nil {
		delete(c.requests, l.id)
		r.complete(response{messages, err})
		c.pingAt = now // the process works: the time for the pong starts again from here
	}
	c.mu.Unlock()
	if r == nil {
		c.warnUnknown("response with an unknown id")
		return
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.answered = true
	c.h.clearSuspect(r.uuid)
	c.returnRoom(r.size, now)
	c.h.dispatch()
}

// warnUnknown logs once that the host ignores lines of this type. It warns about ten types at
// most.
func (c *child) warnUnknown(kind string) {
	kind = truncate(kind, maxName)
	c.mu.Lock()
	const kinds = 10
	ignored := c.warned[kind] || len(c.warned) == kinds
	if !ignored {
		c.warned[kind] = true
	}
	c.mu.Unlock()
	if !ignored {
		c.h.env.Logger.Warn("ignoring lines that the host doesn't expect", "type", kind, "plugin", c.hello.Name)
	}
}
