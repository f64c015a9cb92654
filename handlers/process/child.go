package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
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
	began  time.Time
	hello  pluginHello
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
	timer  *time.Timer // timeout, and then grace
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
	c.stdin.request(r.id, c.h.config.Timeout, text)
	r.timer = time.AfterFunc(c.h.config.Timeout, func() { c.overdue(r) })
	return r, nil
}

// requestFrame is about what a request has around its message.
const requestFrame = 80

// release gives the room of a request back.
func (c *child) release(size int) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.giveBack(size)
	c.h.dispatch()
}

// overdue is called when a request's time is over.
func (c *child) overdue(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests[r.id] != r {
		return
	}
	r.tell(answer{err: fmt.Errorf("the plugin had no response within %v", c.h.config.Timeout)})
	c.cancel(r)
	r.timer = time.AfterFunc(c.h.config.Grace, func() {
		c.mu.Lock()
		_, still := c.requests[r.id]
		if still {
			c.innocent = true // the one that hung has its error
		}
		c.mu.Unlock()
		if still {
			c.kill(fmt.Errorf("it had no response for %v, %v after its time was over", c.h.config.Timeout+c.h.config.Grace, c.h.config.Grace))
		}
	})
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
	in := stdio.NewReader(c.stdout, stdio.StartMaxLine)
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
	select {
	case <-c.exited:
	case <-time.After(leftover):
		c.kill(errOutput) // it is of no use without
	}
}

var errOutput = errors.New("it closed its standard output")

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
	c.mu.Lock()
	r := c.requests[l.id]
	delete(c.requests, l.id)
	c.mu.Unlock()
	if r == nil {
		c.complain("a response that nobody waits for")
		return
	}
	r.timer.Stop()
	messages, err := l.outcome(c.h.destinations)
	c.mu.Lock()
	r.tell(answer{messages, err})
	c.mu.Unlock()
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.answered = true
	c.h.cleared(r.uuid)
	c.giveBack(r.size)
	c.h.dispatch()
}

// complain says once of a kind of line that it isn't understood.
func (c *child) complain(kind string) {
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

// kill ends the program, with all that it started.
func (c *child) kill(reason error) {
	c.leave(reason)
	c.stdin.close()
	killGroup(c.cmd.Process, killSignal)
}

// leave says why the program ends, and that it gets no more messages. The first reason counts.
func (c *child) leave(reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = reason
	}
	c.mu.Unlock()
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.h.current == c {
		c.h.current = nil
	}
}

// wait is where a child's end is dealt with, whoever wanted it.
func (c *child) wait(reading <-chan struct{}) {
	err := c.cmd.Wait()
	close(c.exited)
	// Others that it started may hold its standard output: what it wrote itself is there already.
	_ = c.stdout.SetReadDeadline(time.Now().Add(leftover))
	c.leave(exitReason(err))
	killGroup(c.cmd.Process, killSignal)
	<-reading
	_ = c.stdout.Close()
	c.stdin.close()

	c.mu.Lock()
	lost := slices.Collect(maps.Values(c.requests))
	clear(c.requests)
	reason, innocent, asked, ready := c.reason, c.innocent, c.retiring, c.ready
	c.mu.Unlock()

	if !ready {
		c.started <- reason
	}
	h := c.h
	h.mu.Lock()
	var uuids []string
	for _, r := range lost {
		uuids = append(uuids, r.uuid)
		c.giveBack(r.size)
	}
	if !innocent {
		h.suspect(uuids, reason)
	}
	h.mu.Unlock()
	// They run again, and are known by now.
	c.mu.Lock()
	for _, r := range lost {
		r.timer.Stop()
		r.tell(answer{err: errEnded})
	}
	c.mu.Unlock()
	if ready && (!asked || len(lost) > 0) {
		h.metrics.ends.Inc()
		h.env.Logger.Warn("the plugin's process ended", "plugin", c.hello.Name, "reason", reason, "messages", len(lost), "after", time.Since(c.began).Round(time.Millisecond))
	}
	close(c.ended)
}

// leftover is how long what a process wrote is read after its end, if somebody else still holds the other end.
const leftover = 100 * time.Millisecond

func exitReason(err error) error {
	if err == nil {
		return errors.New("it exited with status 0")
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New("it ended: " + e.Error())
	}
	return err
}

// retire has the program finish what it has and end, for at most its messages' time.
func (c *child) retire() {
	c.mu.Lock()
	c.retiring = true
	if c.has("drain") {
		c.stdin.line([]byte("{\"type\":\"drain\"}\n"))
	}
	c.mu.Unlock()
	patience := time.NewTimer(c.h.config.Timeout + c.h.config.Grace)
	defer patience.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	closed := c.h.life.Done()
	for waiting := true; waiting; {
		select {
		case <-c.drained:
			waiting = false
		case <-c.ended:
			return
		case <-patience.C:
			waiting = false
		case <-closed: // nobody waits for its messages
			closed = nil
			patience.Reset(c.h.config.Grace)
		case <-tick.C:
			waiting = c.busy() || c.has("drain")
		}
	}
	c.finish()
}

// busy says whether somebody waits for one of its requests.
func (c *child) busy() bool {
	c.h.mu.Lock()
	coming := c.open
	c.h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	waited := coming - len(c.requests)
	for _, r := range c.requests {
		if !r.late {
			waited++
		}
	}
	return waited > 0
}

// finish closes the program's standard input, and kills it step by step if that isn't enough.
func (c *child) finish() {
	c.stdin.close()
	for _, step := range []struct {
		wait time.Duration
		do   func()
	}{
		{time.Second, func() { killGroup(c.cmd.Process, termSignal) }},
		{500 * time.Millisecond, func() { c.kill(errors.New("it didn't end when its input did")) }},
	} {
		select {
		case <-c.ended:
			return
		case <-time.After(step.wait):
			step.do()
		}
	}
	<-c.ended
}

// watch looks after a program that is ready: whether it answers, and how large it is.
func (c *child) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
		if most := c.h.config.Memory; most > 0 {
			size, err := groupMemory(c.cmd.Process.Pid)
			if err == nil {
				c.h.metrics.memory.Set(float64(size))
			}
			if size > most {
				c.kill(fmt.Errorf("it needs %d bytes of memory, more than %d", size, most))
				return
			}
		}
		c.ping()
	}
}

const (
	// pingAfter is how long a program is left alone before it is asked whether it is there, and how long it may take to say so.
	pingAfter = 10 * time.Second
)

// ping asks a program that has no request whether it is there.
func (c *child) ping() {
	c.h.mu.Lock()
	idle := c.open == 0 && time.Since(c.quiet) >= pingAfter
	c.h.mu.Unlock()
	c.mu.Lock()
	silent := false
	switch {
	case c.retiring:
	case c.pinged != 0:
		silent = time.Since(c.pingedAt) > pingAfter && len(c.requests) == 0
	case idle && time.Since(c.pingedAt) >= pingAfter:
		c.lastID++
		c.pinged, c.pingedAt = c.lastID, time.Now()
		c.stdin.line(fmt.Appendf(nil, "{\"type\":\"ping\",\"id\":%d}\n", c.pinged))
	}
	c.mu.Unlock()
	if silent {
		c.kill(fmt.Errorf("it didn't answer a ping for %v", pingAfter))
	}
}
