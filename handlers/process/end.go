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

// kill kills the process and everything in its process group.
func (c *child) kill(reason error) {
	c.markEnding(reason)
	c.stdin.close()
	signalGroup(c.cmd.Process, killSignal)
}

// markEnding records why the process ends, and stops new requests for it. Only the first reason
// counts.
func (c *child) markEnding(reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = reason
	}
	c.mu.Unlock()
	c.stopDispatch()
}

// stopDispatch makes the handler give the process no more requests.
func (c *child) stopDispatch() {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.h.current == c {
		c.h.current = nil
	}
}

// awaitExit waits until the process has exited, for whatever reason, and cleans up. It reads the
// rest of the output, records the open messages as suspects, and fails their requests with
// errEnded.
func (c *child) awaitExit(reading <-chan struct{}) {
	err := c.cmd.Wait()
	close(c.exited)
	// Standard output may stay open in a process that this one started. But everything that this
	// process wrote is in the pipe already.
	_ = c.stdout.SetReadDeadline(time.Now().Add(leftoverTime))
	c.stopDispatch()
	signalGroup(c.cmd.Process, killSignal)
	<-reading
	c.markEnding(exitReason(err)) // unless its last lines gave another reason
	_ = c.stdout.Close()
	c.stdin.close()

	c.mu.Lock()
	lost := slices.Collect(maps.Values(c.requests))
	clear(c.requests)
	if c.timer != nil {
		c.timer.Stop()
	}
	reason, blameless, retiring, ready := c.reason, c.blameless, c.retiring, c.ready
	c.mu.Unlock()

	if !ready {
		c.started <- reason
	}
	h := c.h
	h.mu.Lock()
	var uuids []string
	for _, r := range lost {
		uuids = append(uuids, r.uuid)
		c.returnRoom(r.size, time.Now())
	}
	if !blameless {
		h.addSuspects(uuids, reason)
	}
	h.mu.Unlock()
	// The callers send the messages again. By now the suspects among them are recorded.
	c.mu.Lock()
	for _, r := range lost {
		r.complete(response{err: errEnded})
	}
	c.mu.Unlock()
	if ready && (!retiring || len(lost) > 0) {
		h.metrics.ends.Inc()
		h.env.Logger.Warn("the plugin's process ended", "plugin", c.hello.Name, "reason", reason, "messages", len(lost), "after", time.Since(c.startedAt).Round(time.Millisecond))
	}
	close(c.ended)
}

// leftoverTime is how long the host still reads the output of an exited process, if another
// process keeps the pipe open. It is long enough for a reader that gets the CPU late on a busy
// machine.
const leftoverTime = time.Second

// exitTime is how long a process may run after it closed its input or output.
const exitTime = time.Second

// exitReason returns the error of cmd.Wait as the reason of an end.
func exitReason(err error) error {
	if err == nil {
		return errors.New("it exited with status 0")
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New("it ended: " + e.Error())
	}
	return err
}

// retire lets the process finish its open requests and then ends it. It waits no longer than the
// timeout and the grace period of a request.
func (c *child) retire() {
	c.mu.Lock()
	c.retiring = true
	if c.hasFeature("drain") {
		c.stdin.writeLine([]byte("{\"type\":\"drain\"}\n"))
	}
	c.mu.Unlock()
	limit := time.NewTimer(c.h.config.Timeout + c.h.config.Grace)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	closed := c.h.life.Done()
	for waiting := true; waiting; {
		select {
		case <-c.drained:
			waiting = false
		case <-c.ended:
			return
		case <-limit.C:
			waiting = false
		case <-closed: // the handler is closed: its callers have stopped waiting
			closed = nil
			limit.Reset(c.h.config.Grace)
		case <-tick.C:
			waiting = c.hasAwaitedRequests() || c.hasFeature("drain")
		}
	}
	c.closeInput()
}

// hasAwaitedRequests returns whether a caller waits for one of its open requests. An admitted
// request that isn't written yet counts, too.
func (c *child) hasAwaitedRequests() bool {
	c.h.mu.Lock()
	open := c.open
	c.h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	awaited := open - len(c.requests)
	for _, r := range c.requests {
		if !r.completed {
			awaited++
		}
	}
	return awaited > 0
}

// closeInput closes standard input and waits for the exit. It sends SIGTERM if that takes longer
// than a second, and SIGKILL half a second later.
func (c *child) closeInput() {
	c.stdin.close()
	for _, step := range []struct {
		wait time.Duration
		do   func()
	}{
		{time.Second, func() { signalGroup(c.cmd.Process, termSignal) }},
		{500 * time.Millisecond, func() { c.kill(errors.New("it didn't exit after the end of its input")) }},
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

// watchHealth checks every second, while the process is ready, how much memory it uses and whether
// it answers pings. It kills a process that fails a check.
func (c *child) watchHealth(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if most := c.h.config.Memory; most > 0 {
			size, err := readGroupMemory(c.cmd.Process.Pid)
			if err == nil {
				c.h.metrics.memory.Set(float64(size))
			}
			if size > most {
				c.kill(fmt.Errorf("it uses %d bytes of memory, more than %d", size, most))
				return
			}
		}
		c.pingIfIdle()
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
	// pingAfter is how long a process must be idle before the host sends it a ping. It is also how
	// long the pong may take.
	pingAfter = 10 * time.Second
)

// pingIfIdle sends a ping to an idle process, or kills it if its pong is late. A pong can't be
// late while a request is open, because a plugin without threads answers pings only between
// messages.
func (c *child) pingIfIdle() {
	c.h.mu.Lock()
	idle := c.open == 0 && time.Since(c.idleSince) >= pingAfter
	c.h.mu.Unlock()
	c.mu.Lock()
	late := false
	switch {
	case c.retiring:
	case c.pingID != 0:
		late = time.Since(c.pingAt) > pingAfter && len(c.requests) == 0
	case idle && time.Since(c.pingAt) >= pingAfter:
		c.lastID++
		c.pingID, c.pingAt = c.lastID, time.Now()
		c.stdin.writeLine(fmt.Appendf(nil, "{\"type\":\"ping\",\"id\":%d}\n", c.pingID))
	}
	c.mu.Unlock()
	if late {
		c.kill(fmt.Errorf("it didn't answer a ping for %v", pingAfter))
	}
}
