package circuitbreaker

import (
	"container/list"
	"sync"
	"time"
)

// outcome is what the end of a run says about its key.
type outcome int

const (
	succeeded outcome = iota
	failed
	undecided
)

// change is what the end of a run did to its circuit.
type change int

const (
	unchanged change = iota
	opened
	closed
)

// circuits has the circuits of the keys whose last message failed. The circuit of any other key is
// closed. It is safe for concurrent use.
type circuits struct {
	failures int
	open     time.Duration
	maxKeys  int

	mu    sync.Mutex
	byKey map[string]*list.Element
	// failed has all circuits, the one with the newest failure in front.
	failed *list.List
	// opened is how many circuits are open or half-open.
	opened int
}

// circuit is the circuit of one key. If failures has reached the limit, the circuit is open or
// half-open. Otherwise it is closed.
type circuit struct {
	key      string
	failures int
	// until is when an open circuit becomes half-open. probing says that a probe runs.
	until   time.Time
	probing bool
}

// try is one run of a message.
type try struct {
	key string
	// probe is the circuit that the run probes. It is nil if the circuit was closed when the run
	// began.
	probe *circuit
}

func newCircuits(c *Config) *circuits {
	return &circuits{failures: c.Failures, open: c.Open, maxKeys: c.MaxKeys, byKey: map[string]*list.Element{}, failed: list.New()}
}

// beginRun begins a run, which endRun must end. It returns nil if the message is refused. In this
// case the duration is the time until a message may be tried, or 0 if that time isn't known.
func (c *circuits) beginRun(key string, now time.Time) (*try, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.circuitOf(key)
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

// endRun ends a run.
func (c *circuits) endRun(t *try, o outcome, now time.Time) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.probe != nil {
		return c.endProbe(t.probe, o, now)
	}
	k := c.circuitOf(t.key)
	if o == undecided || k != nil && k.failures >= c.failures {
		return unchanged // the run began before the circuit opened
	}
	if o == succeeded {
		c.removeCircuit(k)
		return unchanged
	}
	if k == nil {
		k = &circuit{key: t.key}
	}
	c.moveToFront(k)
	if k.failures++; k.failures < c.failures {
		return unchanged
	}
	k.until = now.Add(c.open)
	c.opened++
	return opened
}

// endProbe ends the probe of a half-open circuit.
func (c *circuits) endProbe(k *circuit, o outcome, now time.Time) change {
	k.probing = false
	switch {
	case c.circuitOf(k.key) != k: // it was removed during the probe
		return unchanged
	case o == succeeded:
		c.removeCircuit(k)
		return closed
	case o == failed:
		k.until = now.Add(c.open)
		c.moveToFront(k)
	}
	return unchanged
}

// circuitOf returns the circuit of a key, or nil.
func (c *circuits) circuitOf(key string) *circuit {
	if e, ok := c.byKey[key]; ok {
		return e.Value.(*circuit)
	}
	return nil
}

// moveToFront records that a circuit, which may be new, has the newest failure.
func (c *circuits) moveToFront(k *circuit) {
	if e, ok := c.byKey[k.key]; ok {
		c.failed.MoveToFront(e)
		return
	}
	if len(c.byKey) >= c.maxKeys {
		c.removeCircuit(c.failed.Back().Value.(*circuit))
	}
	c.byKey[k.key] = c.failed.PushFront(k)
}

// removeCircuit removes a circuit, so that it is closed. k may be nil.
func (c *circuits) removeCircuit(k *circuit) {
	if k == nil {
		return
	}
	c.failed.Remove(c.byKey[k.key])
	delete(c.byKey, k.key)
	if k.failures >= c.failures {
		c.opened--
	}
}

// countOpen returns how many circuits are open or half-open.
func (c *circuits) countOpen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}
