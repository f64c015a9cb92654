package device

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pentrough/pentrough/internal/listen"
)

// This file decides which connection gets the session of a device if several claim it. Two kinds
// of trouble are possible:
//
//   - A connection that doesn't belong to the device takes the session. It may be the health check
//     of a balancer, or come from a stranger who knows the name. So the policy ([Takeover]) says
//     which connections may replace a session. No policy lets a silent connection replace one.
//     Every policy lets any connection replace a session whose peer doesn't respond.
//   - Several devices have one name, such as devices behind one NAT that are identified by their
//     address. They would take the session over from each other for ever. So at most maxTakeovers
//     takeovers of a device happen in flapPeriod.
//
// A connection that may not replace the session now waits. It checks again after each recheckTime,
// and when the device goes offline. At most one connection from each network waits for a device: a
// newer one displaces it. The policy decides which of them may replace the session. Among those,
// the one that has waited longest has the first turn, but a connection from the network that has
// the session has the last. So someone who always connects again can't keep a device out.
//
// The lock of the device's shard guards all of this.
const (
	maxTakeovers = 3
	flapPeriod   = 10 * time.Second
	maxWaiting   = 8
	recheckTime  = time.Second
	// probeTime is how long the peer of a session has to respond to a probe.
	probeTime = 10 * time.Second
)

// Takeover says which connections may replace the session of their device.
type Takeover string

// The policies. A connection may always replace a session whose peer doesn't respond.
const (
	// TakeoverNewest lets every connection that has sent a byte replace a session.
	TakeoverNewest Takeover = "newest"
	// TakeoverIdle lets no connection replace a session whose peer responds.
	TakeoverIdle Takeover = "idle"
	// TakeoverAuthenticated lets authenticated connections that have sent a byte replace a
	// session. Other connections that have sent a byte may only replace a session that isn't
	// authenticated.
	TakeoverAuthenticated Takeover = "authenticated"
)

// ErrFlapping means that too many connections of the device wait already, or that a newer
// connection from the same network waits instead.
var ErrFlapping = errors.New("too many connections claim to be this device")

// ErrGone means that the connection was closed while it waited.
var ErrGone = errors.New("the connection was closed while it waited for its turn")

// contest has the takeovers of a device and the connections that wait for it.
type contest struct {
	times   [maxTakeovers]time.Time // when the last takeovers happened; times[next] is the oldest
	next    int
	waiting []*contender
	// going is the contender whose turn it is, until its session begins or it gives up.
	going  *contender
	warned time.Time // when the log last had a warning about the takeovers
	// probed is the session whose peer was last probed, at probedAt.
	probed   *Session
	probedAt time.Time
}

// contender is a connection that claims to be a device's.
type contender struct {
	network       string // of the peer
	authenticated bool
	heard         bool // the peer has sent a byte
	may           bool // it may replace the session, apart from the limit of takeovers
	displaced     bool
	// turn gets a value when the contender should check again at once.
	turn chan struct{}
}

// newContender returns a contender for a connection.
func newContender(conn Conn, remote string) *contender {
	return &contender{network: networkOf(remote), authenticated: conn.Authenticated(), heard: conn.Heard(), turn: make(chan struct{}, 1)}
}

// networkOf returns the network of a peer's address: see listen.Network.
func networkOf(remote string) string {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	return listen.Network(addr.Addr().Unmap().WithZone("")).String()
}

func (c *contest) recordTakeover(now time.Time) {
	c.times[c.next] = now
	c.next = (c.next + 1) % maxTakeovers
}

// takeoverWait returns the time until the limit allows a further takeover. If the result is 0 or
// less, the limit allows it now.
func (c *contest) takeoverWait(now time.Time) time.Duration {
	if oldest := c.times[c.next]; !oldest.IsZero() {
		return oldest.Add(flapPeriod).Sub(now)
	}
	return 0
}

// first returns the contender that has the first turn: one of those that wait, or w. network is
// the one that has the session. Its contenders have their turns last.
func (c *contest) first(w *contender, network string) *contender {
	all := slices.DeleteFunc(c.with(w), func(o *contender) bool { return !o.may })
	if i := slices.IndexFunc(all, func(o *contender) bool { return o.network != network }); i >= 0 {
		return all[i]
	}
	return all[0]
}

// with returns the contenders that wait, with w among them. w takes the position of a contender
// from the same network. Otherwise newer contenders could displace the first one again and again,
// before its turn. Then no contender would ever have its turn.
func (c *contest) with(w *contender) []*contender {
	all := slices.Clone(c.waiting)
	if i := slices.IndexFunc(all, func(o *contender) bool { return o.network == w.network }); i >= 0 {
		all[i] = w
		return all
	}
	return append(all, w)
}

// remove removes a contender that waits.
func (c *contest) remove(w *contender) {
	if c == nil {
		return
	}
	if i := slices.Index(c.waiting, w); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
}

// add adds a contender that has to wait, unless it waits already. It returns an error if there is
// no room.
func (c *contest) add(w *contender) error {
	all := c.with(w)
	if len(all) > maxWaiting {
		return ErrFlapping
	}
	for _, o := range c.waiting {
		if o != w && o.network == w.network {
			o.displaced = true
			o.wake()
		}
	}
	c.waiting = all
	return nil
}

// wake makes a contender check again at once.
func (w *contender) wake() {
	select {
	case w.turn <- struct{}{}:
	default:
	}
}

// wakeAll makes all contenders check again at once.
func (c *contest) wakeAll() {
	for _, w := range c.waiting {
		w.wake()
	}
}

// awaitTakeover blocks until w may begin a new session of device, which replaces the current one
// if there is one. After that, the caller calls endTurn.
func (r *Registry) awaitTakeover(ctx context.Context, device string, w *contender, conn Conn) error {
	sh := r.shardOf(device)
	for waited := false; ; waited = true {
		heard, gone := w.heard, false
		if waited {
			heard, gone = conn.Heard(), conn.Gone()
		}
		sh.mu.Lock()
		w.heard = heard
		pause, flaps, err := r.takeOver(sh, device, w)
		switch c := sh.contests[device]; {
		case gone:
			err = ErrGone
			fallthrough
		case pause <= 0 || err != nil:
			c.remove(w)
		default:
			err = c.add(w)
		}
		sh.mu.Unlock()
		if gone {
			r.passTurn(device)
		}
		if flaps {
			r.log.Warn(r.advice, "device", device, "replaced", maxTakeovers, "within", flapPeriod)
		}
		if pause <= 0 || err != nil {
			return err
		}
		if err := r.awaitTurn(ctx, sh, device, w, pause); err != nil {
			return err
		}
	}
}

// endTurn lets the next contender have its turn, because the turn of w is over.
func (r *Registry) endTurn(device string, w *contender) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.contests[device]; c != nil && c.going == w {
		c.going = nil
		c.wakeAll()
	}
}

// tryTakeover is awaitTakeover for an attached device. It doesn't block, and reports whether the
// session may begin now.
func (r *Registry) tryTakeover(device string, w *contender) bool {
	sh := r.shardOf(device)
	sh.mu.Lock()
	pause, flaps, err := r.takeOver(sh, device, w)
	sh.mu.Unlock()
	if flaps {
		r.log.Warn(r.advice, "device", device, "replaced", maxTakeovers, "within", flapPeriod)
	}
	return pause <= 0 && err == nil
}

// takeOver returns 0 if the contender may begin its session now. Otherwise it returns how long the
// contender waits until it checks again. If a session has to be replaced, takeOver counts the
// takeover. flaps says that the caller should log a warning. sh.mu is locked.
func (r *Registry) takeOver(sh *shard, device string, w *contender) (pause time.Duration, flaps bool, err error) {
	now := r.now()
	c := sh.contests[device]
	if sh.closing {
		return 0, false, ErrClosing
	}
	current := sh.sessionOf(device)
	if current == nil {
		return 0, false, nil
	}
	if c == nil {
		sh.forgetExpired(now)
		c = &contest{}
		sh.contests[device] = c
	}
	if w.may = r.mayReplace(current, w) || c.isDead(current, now); !w.may {
		return recheckTime, false, nil
	}
	if pause = c.takeoverWait(now); pause > 0 {
		flaps = c.warned.IsZero() || now.Sub(c.warned) >= time.Minute
		if flaps {
			c.warned = now
		}
		return min(pause, recheckTime), flaps, nil
	}
	if c.going != nil || c.first(w, networkOf(current.remote)) != w {
		return recheckTime, false, nil
	}
	c.recordTakeover(now)
	c.going = w
	return 0, false, nil
}

// mayReplace reports whether the policy lets the contender replace a session whose peer responds.
func (r *Registry) mayReplace(current *Session, w *contender) bool {
	switch r.takeover {
	case TakeoverIdle:
		return false
	case TakeoverAuthenticated:
		return w.heard && (w.authenticated || !current.authenticated)
	default:
		return w.heard
	}
}

// isDead reports whether the peer of the session didn't respond to a probe. It begins a probe if
// none is under way.
func (c *contest) isDead(current *Session, now time.Time) bool {
	if c.probed == current && now.Sub(c.probedAt) < probeTime {
		return false
	}
	dead := c.probed == current && current.conn.SilentFor() >= probeTime
	if !dead {
		c.probed, c.probedAt = current, now
		current.conn.Probe()
	}
	return dead
}

// sessionOf returns the session of a device, or nil. sh.mu is locked.
func (sh *shard) sessionOf(device string) *Session {
	s := sh.slots[device]
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// awaitTurn blocks until the contender is woken or pause has passed. It returns an error if ctx
// ends or the contender is displaced.
func (r *Registry) awaitTurn(ctx context.Context, sh *shard, device string, w *contender, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var err error
	select {
	case <-w.turn:
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case w.displaced:
		return fmt.Errorf("%w: a newer one from the same network waits", ErrFlapping)
	case err == nil:
		return nil
	}
	sh.contests[device].remove(w)
	if len(w.turn) > 0 {
		sh.wakeFirst(device) // this connection doesn't take its turn
	}
	return err
}

// passTurn wakes the next connection that waits, because the caller doesn't take its turn.
func (r *Registry) passTurn(device string) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.slots[device] == nil {
		sh.wakeFirst(device)
	}
}

// wakeFirst wakes the first connection that waits, because the device is offline. sh.mu is locked.
func (sh *shard) wakeFirst(device string) {
	if c := sh.contests[device]; c != nil && len(c.waiting) > 0 {
		c.waiting[0].wake()
	}
}

// forgetExpired deletes contests that no longer limit anything. It checks only four contests in
// each call. That is enough to keep the number of contests close to the number of devices with
// several connections.
func (sh *shard) forgetExpired(now time.Time) {
	looked := 0
	for device, c := range sh.contests {
		last := c.times[(c.next+maxTakeovers-1)%maxTakeovers]
		if len(c.waiting) == 0 && c.going == nil && now.Sub(last) >= flapPeriod && now.Sub(c.probedAt) >= 2*probeTime {
			delete(sh.contests, device)
		}
		if looked++; looked == 4 {
			return
		}
	}
}
