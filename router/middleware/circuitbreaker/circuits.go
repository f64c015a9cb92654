package circuitbreaker

import (
	"container/list"
	"sync"
	"time"
)

// outcome is what the end of a run tells of its key.
type outcome int

const (
	worked outcome = iota
	failed
	undecided
)

// change is what the end of a run changed.
type change int

const (
	unchanged change = iota
	opened
	closed
)

// circuits are the keys whose messages failed last. A key that isn't among them works. It is safe for concurrent use.
type circuits struct {
	failures int
	open     time.Duration
	most     int

	mu    sync.Mutex
	byKey map[string]*list.Element
	// failed has the circuit that failed last at its front.
	failed *list.List
	// opened counts those of byKey that are.
	opened int
}

// circuit is one key. It is open when failures has reached the limit.
type circuit struct {
	key      string
	failures int
	// until is when a probe may run, if the circuit is open; probing: one runs.
	until   time.Time
	probing bool
}

// try is one run of a message of a key.
type try struct {
	key string
	// probe is the open circuit that the run probes; nil: it was closed when the run began.
	probe *circuit
}

func newCircuits(c *Config) *circuits {
	return &circuits{failures: c.Failures, open: c.Open, most: c.MaxKeys, byKey: map[string]*list.Element{}, failed: list.New()}
}

// enter begins a run; leave must follow. It returns nil if the key's messages aren't tried now, and in how long one may be, if that is known.
func (c *circuits) enter(key string, now time.Time) (*try, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(key)
	switch {
	case k == nil || k.failures < c.failures:
		return &try{key: key}, 0
	case now.Before(k.until):
		return nil, k.until.Sub(now)
	case k.probing:
		return nil, 0
	}
	k.probing = true
	return &try{key, k}, 0
}

// leave ends a run.
func (c *circuits) leave(t *try, o outcome, now time.Time) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.probe != nil {
		return c.probed(t.probe, o, now)
	}
	k := c.of(t.key)
	if o == undecided || k != nil && k.failures >= c.failures {
		return unchanged // the run began before the circuit was opened
	}
	if o == worked {
		c.forget(k)
		return unchanged
	}
	if k == nil {
		k = &circuit{key: t.key}
	}
	c.failedLast(k)
	if k.failures++; k.failures < c.failures {
		return unchanged
	}
	k.until = now.Add(c.open)
	c.opened++
	return opened
}

// probed ends the probe of an open circuit.
func (c *circuits) probed(k *circuit, o outcome, now time.Time) change {
	k.probing = false
	switch {
	case c.of(k.key) != k: // forgotten meanwhile
		return unchanged
	case o == worked:
		c.forget(k)
		return closed
	case o == failed:
		k.until = now.Add(c.open)
		c.failedLast(k)
	}
	return unchanged
}

func (c *circuits) of(key string) *circuit {
	if e, ok := c.byKey[key]; ok {
		return e.Value.(*circuit)
	}
	return nil
}

// failedLast puts a circuit, which may be new, in front of the others.
func (c *circuits) failedLast(k *circuit) {
	if e, ok := c.byKey[k.key]; ok {
		c.failed.MoveToFront(e)
		return
	}
	if len(c.byKey) >= c.most {
		c.forget(c.failed.Back().Value.(*circuit))
	}
	c.byKey[k.key] = c.failed.PushFront(k)
}

// forget forgets a circuit, which may be nil: it is closed.
func (c *circuits) forget(k *circuit) {
	if k == nil {
		return
	}
	c.failed.Remove(c.byKey[k.key])
	delete(c.byKey, k.key)
	if k.failures >= c.failures {
		c.opened--
	}
}

// openNow is how many circuits are open.
func (c *circuits) openNow() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}
