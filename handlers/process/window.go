package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// ticket is a message that waits in the queue until the process has room for it.
type ticket struct {
	size    int
	suspect bool
	// granted receives one grant.
	granted chan grant
}

// grant is the permission to send one request to a process, or the error of the message.
type grant struct {
	child *child
	err   error
}

// admit waits until the process has room for a message of this size, and returns the process. A
// suspect waits until it can have the process to itself. For each process that it returns,
// returnRoom must be called once.
func (h *handler) admit(ctx context.Context, uuid string, size int) (*child, error) {
	h.mu.Lock()
	if err := h.crashError(uuid, h.config.Crashes); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	if c := h.current; c != nil && len(h.queue) == 0 && len(h.suspects) == 0 && c.hasRoom(size) {
		h.countRequest(size)
		h.mu.Unlock()
		return c, nil
	}
	t := &ticket{size: size, suspect: h.isSuspect(uuid), granted: make(chan grant, 1)}
	h.queue = append(h.queue, t)
	h.dispatch()
	h.mu.Unlock()
	select {
	case g := <-t.granted:
		return g.child, g.err
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.queue, t); i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
	} else if g := <-t.granted; g.err == nil {
		g.child.returnRoom(t.size, time.Now())
	}
	h.dispatch()
	return nil, context.Cause(ctx)
}

// dispatch grants the tickets that the process has room for, in order. The caller has locked h.mu.
// It must call dispatch after each change of h.current, h.down, the queue or the room.
func (h *handler) dispatch() {
	c := h.current
	if c == nil {
		if h.down != nil {
			for _, t := range h.queue {
				t.granted <- grant{err: h.unavailableError()}
			}
			h.queue = nil
		}
		return
	}
	if c.exclusive {
		return
	}
	// A suspect comes first, if the process has run for settlingTime. Until then the other tickets
	// go on.
	if i := slices.IndexFunc(h.queue, func(t *ticket) bool { return t.suspect }); i >= 0 {
		if wait := time.Until(c.readyAt.Add(settlingTime)); wait > 0 {
			c.dispatchAfter(wait)
		} else {
			if c.open == 0 {
				c.exclusive = true
				h.grantTicket(i)
			}
			return
		}
	}
	for i := 0; i < len(h.queue); {
		t := h.queue[i]
		switch {
		case t.suspect:
			i++
		case c.hasRoom(t.size):
			h.grantTicket(i)
		default:
			return
		}
	}
}

// settlingTime is how long a process must have run before a suspect is tried in it alone. Without
// this time, the fault of an earlier message could look like the suspect's.
const settlingTime = 250 * time.Millisecond

// grantTicket removes ticket i from the queue and grants it. The caller has locked h.mu.
func (h *handler) grantTicket(i int) {
	t := h.queue[i]
	h.queue = slices.Delete(h.queue, i, i+1)
	h.countRequest(t.size)
	t.granted <- grant{child: h.current}
}

// hasRoom returns whether the process can take one more message of this size. The caller has
// locked h.mu.
func (c *child) hasRoom(size int) bool {
	return !c.exclusive && c.open < c.window && (c.open == 0 || c.bytes+size <= c.h.config.WindowBytes)
}

// countRequest counts one more open request of the current process. The caller has locked h.mu.
func (h *handler) countRequest(size int) {
	h.current.open++
	h.current.bytes += size
	h.metrics.requests.Inc()
}

// unavailableError returns the error of messages while there is no process. The caller has locked
// h.mu.
func (h *handler) unavailableError() error {
	return handlers.RetryAfter(handlers.Unavailable(h.down), time.Until(h.next))
}

// returnRoom subtracts an open request of this size from the counts. The caller has locked h.mu.
func (c *child) returnRoom(size int, now time.Time) {
	c.open--
	c.bytes -= size
	c.exclusive = false
	c.idleSince = now
	c.h.metrics.requests.Dec()
}

// dispatchAfter plans a dispatch after this time, if none is planned. The caller has locked h.mu.
func (c *child) dispatchAfter(wait time.Duration) {
	if c.dispatchPlanned {
		return
	}
	c.dispatchPlanned = true
	time.AfterFunc(wait, func() {
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		c.dispatchPlanned = false
		c.h.dispatch()
	})
}

// suspicions records the suspects: messages that a process had when it ended. A suspect that a
// process handles is cleared. A suspect that has ended `crashes` processes, each time as the only
// message, gets a permanent error.
type suspicions struct {
	suspects map[string]*suspect
	order    []string // the ids in the order of their first suspicion; cleared ones may remain
}

// suspect is one message that may cause processes to end.
type suspect struct {
	// crashes is how many processes ended while this was their only message.
	crashes int
	last    error
}

// maxSuspects limits the suspects that are remembered, because the source may never redeliver some
// of them.
const maxSuspects = 20_000

func newSuspicions() suspicions { return suspicions{suspects: map[string]*suspect{}} }

func (s *suspicions) isSuspect(uuid string) bool { return s.suspects[uuid] != nil }

// addSuspects records the messages of a process that ended.
func (s *suspicions) addSuspects(uuids []string, why error) {
	for _, uuid := range uuids {
		known := s.suspects[uuid]
		if known == nil {
			known = &suspect{}
			s.suspects[uuid] = known
			s.order = append(s.order, uuid)
		}
		if known.last = why; len(uuids) == 1 {
			known.crashes++
		}
	}
	for len(s.order) > maxSuspects {
		delete(s.suspects, s.order[0])
		s.order = s.order[1:]
	}
}

// clearSuspect removes a message that was handled.
func (s *suspicions) clearSuspect(uuid string) {
	if len(s.suspects) == 0 {
		return
	}
	if delete(s.suspects, uuid); len(s.suspects) == 0 {
		s.order = nil
	}
}

// crashError returns the permanent error of a message that has ended at least this many processes
// as their only message. It returns nil for any other message.
func (s *suspicions) crashError(uuid string, crashes int) error {
	known := s.suspects[uuid]
	if known == nil || known.crashes < crashes {
		return nil
	}
	s.clearSuspect(uuid)
	return handlers.Permanent(fmt.Errorf("the plugin ended %d times with this message alone in it, the last time: %w", known.crashes, known.last))
}

// errEnded is the response to a request whose process ended. The message is then sent to another
// process.
var errEnded = errors.New("the plugin ended while it had the message")
