package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"time"
)

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
	c.dismiss()
}

// dismiss sees that the program gets no more messages.
func (c *child) dismiss() {
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
	c.dismiss()
	killGroup(c.cmd.Process, killSignal)
	<-reading
	c.leave(exitReason(err)) // unless its last words said why
	_ = c.stdout.Close()
	c.stdin.close()

	c.mu.Lock()
	lost := slices.Collect(maps.Values(c.requests))
	clear(c.requests)
	if c.clock != nil {
		c.clock.Stop()
	}
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
		c.giveBack(r.size, time.Now())
	}
	if !innocent {
		h.suspect(uuids, reason)
	}
	h.mu.Unlock()
	// They run again, and are known by now.
	c.mu.Lock()
	for _, r := range lost {
		r.tell(answer{err: errEnded})
	}
	c.mu.Unlock()
	if ready && (!asked || len(lost) > 0) {
		h.metrics.ends.Inc()
		h.env.Logger.Warn("the plugin's process ended", "plugin", c.hello.Name, "reason", reason, "messages", len(lost), "after", time.Since(c.began).Round(time.Millisecond))
	}
	close(c.ended)
}

// leftover is how long the output of an ended process is still read, if another process holds the
// pipe. It is long enough for a reader that gets the CPU late on a busy machine.
const leftover = time.Second

// partingTime is how long a process may live after it closed its input or output.
const partingTime = time.Second

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
		case <-c.exited:
			<-c.ended
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
		select {
		case <-tick.C:
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
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
