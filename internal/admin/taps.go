package admin

import (
	"context"
	"net"
	nethttp "net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxTaps is how many taps there may be at a time, and maxTapsOfOne how many of one client's
	// address.
	maxTaps      = 64
	maxTapsOfOne = 16
)

// taps are the taps that are open. A new one is never refused: the one that has shown nothing for
// the longest time ends instead, one of the same client if that has its share. So nobody can keep
// others out by opening taps.
type taps struct {
	mu   sync.Mutex
	open []*openTap
}

type openTap struct {
	client string
	active time.Time // when it began, or showed a message
	end    context.CancelFunc
}

// begin makes room for a tap. end is called when another one takes its place.
func (t *taps) begin(r *nethttp.Request, end context.CancelFunc) *openTap {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	tap := &openTap{client: client, active: time.Now(), end: end}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := slices.DeleteFunc(slices.Clone(t.open), func(o *openTap) bool { return o.client != client })
	switch {
	case len(own) >= maxTapsOfOne:
		t.endIdle(own)
	case len(t.open) >= maxTaps:
		t.endIdle(t.open)
	}
	t.open = append(t.open, tap)
	return tap
}

// endIdle ends the tap that has been idle for the longest time.
func (t *taps) endIdle(among []*openTap) {
	idle := slices.MinFunc(among, func(a, b *openTap) int { return a.active.Compare(b.active) })
	idle.end()
	t.remove(idle)
}

func (t *taps) remove(tap *openTap) {
	t.open = slices.DeleteFunc(t.open, func(o *openTap) bool { return o == tap })
}

// shown notes that a tap showed a message.
func (t *taps) shown(tap *openTap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tap.active = time.Now()
}

// ended gives up a tap's place.
func (t *taps) ended(tap *openTap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(tap)
}
