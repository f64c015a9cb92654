package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// ticket is a message that waits until the program may have it.
type ticket struct {
	size    int
	suspect bool
	// granted gets what came of it, once.
	granted chan grant
}

// grant is the right to begin one request.
type grant struct {
	child *child
	err   error
}

// admit waits until there is room for a message of that size in the program's window. A suspect waits until it has the program to itself.
func (h *handler) admit(ctx context.Context, uuid string, size int) (*child, error) {
	h.mu.Lock()
	if err := h.convicted(uuid, h.config.Crashes); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	if c := h.current; c != nil && len(h.queue) == 0 && len(h.suspects) == 0 && c.hasRoom(size) {
		h.take(size)
		h.mu.Unlock()
		return c, nil
	}
	t := &ticket{size: size, suspect: h.suspected(uuid), granted: make(chan grant, 1)}
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
		g.child.giveBack(t.size, time.Now())
	}
	h.dispatch()
	return nil, context.Cause(ctx)
}

// dispatch lets those begin for whom there is room. h.mu is held.
func (h *handler) dispatch() {
	c := h.current
	if c == nil {
		if h.down != nil {
			for _, t := range h.queue {
				t.granted <- grant{err: h.unavailable()}
			}
			h.queue = nil
		}
		return
	}
	if c.alone {
		return
	}
	// Suspects come first, on a program that has stood for a while; until then the others go on.
	if i := slices.IndexFunc(h.queue, func(t *ticket) bool { return t.suspect }); i >= 0 {
		if wait := time.Until(c.readyAt.Add(settling)); wait > 0 {
			c.lookAgain(wait)
		} else {
			if c.open == 0 {
				c.alone = true
				h.grant(i)
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
			h.grant(i)
		default:
			return
		}
	}
}

// settling is how long a program must have stood before a message that was in one that ended is tried alone.
const settling = 250 * time.Millisecond

// grant lets the ticket at that place begin. h.mu is held.
func (h *handler) grant(i int) {
	t := h.queue[i]
	h.queue = slices.Delete(h.queue, i, i+1)
	h.take(t.size)
	t.granted <- grant{child: h.current}
}

// hasRoom says whether the program may have one more message, of that size. h.mu is held.
func (c *child) hasRoom(size int) bool {
	return !c.alone && c.open < c.window && (c.open == 0 || c.bytes+size <= c.h.config.WindowBytes)
}

// take makes a message one that the program has. h.mu is held.
func (h *handler) take(size int) {
	h.current.open++
	h.current.bytes += size
	h.metrics.requests.Inc()
}

// unavailable is the error of messages for which there is no program. h.mu is held.
func (h *handler) unavailable() error {
	return handlers.RetryAfter(handlers.Unavailable(h.down), time.Until(h.next))
}

// giveBack ends a grant of that size. h.mu is held.
func (c *child) giveBack(size int, now time.Time) {
	c.open--
	c.bytes -= size
	c.alone = false
	c.quiet = now
	c.h.metrics.requests.Dec()
}

// lookAgain dispatches after a while, once. h.mu is held.
func (c *child) lookAgain(wait time.Duration) {
	if c.again {
		return
	}
	c.again = true
	time.AfterFunc(wait, func() {
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		c.again = false
		c.h.dispatch()
	})
}

// suspicions are the messages that were in programs when those ended.
type suspicions struct {
	suspects map[string]*suspect
	order    []string // of their first suspicion; may name some that are cleared
}

// suspect is a message that may be why programs end.
type suspect struct {
	// alone is how often one ended that had no other message.
	alone int
	last  error
}

// mostSuspects bounds what is remembered: messages that were given back to their source may never come again.
const mostSuspects = 20_000

func newSuspicions() suspicions { return suspicions{suspects: map[string]*suspect{}} }

func (s *suspicions) suspected(uuid string) bool { return s.suspects[uuid] != nil }

// suspect remembers the messages of a program that ended.
func (s *suspicions) suspect(uuids []string, why error) {
	for _, uuid := range uuids {
		known := s.suspects[uuid]
		if known == nil {
			known = &suspect{}
			s.suspects[uuid] = known
			s.order = append(s.order, uuid)
		}
		if known.last = why; len(uuids) == 1 {
			known.alone++
		}
	}
	for len(s.order) > mostSuspects {
		delete(s.suspects, s.order[0])
		s.order = s.order[1:]
	}
}

// cleared forgets a message that was handled.
func (s *suspicions) cleared(uuid string) {
	if len(s.suspects) == 0 {
		return
	}
	if delete(s.suspects, uuid); len(s.suspects) == 0 {
		s.order = nil
	}
}

// convicted returns the error of a message that programs ended of, so many times; nil if it isn't known to be one.
func (s *suspicions) convicted(uuid string, crashes int) error {
	known := s.suspects[uuid]
	if known == nil || known.alone < crashes {
		return nil
	}
	s.cleared(uuid)
	return handlers.Permanent(fmt.Errorf("the plugin ended %d times with this message alone in it, the last time: %w", known.alone, known.last))
}

// errEnded is the answer to a request whose program ended. It runs again.
var errEnded = errors.New("the plugin ended while it had the message")
