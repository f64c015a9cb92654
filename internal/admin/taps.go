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
	// maxTaps is how many taps may be open, and maxTapsOfOne how many of one client's address.
	maxTaps      = 64
	maxTapsOfOne = 16
)

// taps has the open taps. A new tap is never refused. If there are too many, the one that has
// shown nothing for the longest time ends. If the new tap's client has too many, one of that
// client's taps ends instead. So no client can keep others out with open taps.
type taps struct {
	mu   sync.Mutex
	open []*openTap
}

type openTap struct {
	client string
	active time.Time // when it last showed a message, or began
	end    context.CancelFunc
}

// addTap adds a tap, and ends another one if there are too many. It calls end when a newer tap
// takes the place of this one.
func (t *taps) addTap(r *nethttp.Request, end context.CancelFunc) *openTap {
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

// endIdle ends the tap that has shown nothing for the longest time.
func (t *taps) endIdle(among []*openTap) {
	idle := slices.MinFunc(among, func(a, b *openTap) int { return a.active.Compare(b.active) })
	idle.end()
	t.removeTap(idle)
}

func (t *taps) removeTap(tap *openTap) {
	t.open = slices.DeleteFunc(t.open, func(o *openTap) bool { return o == tap })
}

// markActive records that a tap has shown a message.
func (t *taps) markActive(tap *openTap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tap.active = time.Now()
}

// endTap removes a tap.
func (t *taps) endTap(tap *openTap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeTap(tap)
}
