package device

import (
	"context"
	"errors"
	"time"
)

// Several connections can claim to be one device. An example is devices behind one NAT that are
// identified by their address. Without a limit, they would take the session over from each other
// for ever.
//
// So at most maxTakeovers takeovers of a device may happen in flapWindow. After that, its current
// session stays, and further connections wait in a queue of at most maxFlapWaiting. The first one
// gets its turn when the session ends, or when flapWindow has passed since the oldest takeover.
//
// The lock of the device's shard guards all of this.
const (
	maxTakeovers   = 3
	flapWindow     = 10 * time.Second
	maxFlapWaiting = 8
)

// ErrFlapping is what Connect returns when too many connections of one device wait already.
var ErrFlapping = errors.New("too many connections claim to be this device")

// ErrGone is what Connect returns when the connection was closed while it waited.
var ErrGone = errors.New("the connection was closed while it waited for its turn")

// flapping has the takeovers of a device and the connections that wait. Its shard's lock guards
// it.
type flapping struct {
	times   [maxTakeovers]time.Time // when the last takeovers happened; times[next] is the oldest
	next    int
	waiting []chan struct{}
	warned  time.Time // when this was last logged
}

func (f *flapping) recordTakeover(now time.Time) {
	f.times[f.next] = now
	f.next = (f.next + 1) % maxTakeovers
}

// takeoverWait returns the time until the device's session may be replaced. If the result is 0 or
// less, it may be replaced now.
func (f *flapping) takeoverWait(now time.Time) time.Duration {
	if oldest := f.times[f.next]; !oldest.IsZero() {
		return oldest.Add(flapWindow).Sub(now)
	}
	return 0
}

// awaitTakeover blocks until a new session of device may replace the current one.
func (r *Registry) awaitTakeover(ctx context.Context, device string, conn Conn) error {
	sh := r.shardOf(device)
	for waited := false; ; waited = true {
		if waited && conn.Gone() {
			r.passTurn(device)
			return ErrGone
		}
		sh.mu.Lock()
		now := r.now()
		f, pause, err := sh.takeOver(device, now)
		if pause <= 0 || err != nil {
			sh.mu.Unlock()
			return err
		}
		if len(f.waiting) >= maxFlapWaiting {
			sh.mu.Unlock()
			return ErrFlapping
		}
		turn := make(chan struct{})
		f.waiting = append(f.waiting, turn)
		warn := f.warnNow(now)
		sh.mu.Unlock()
		if warn {
			r.warnFlapping(device)
		}
		if err := r.awaitTurn(ctx, sh, f, turn, pause); err != nil {
			return err
		}
	}
}

// tryTakeover is awaitTakeover for an attached device. It doesn't block, and reports whether the
// session may be replaced now.
func (r *Registry) tryTakeover(device string) bool {
	sh := r.shardOf(device)
	sh.mu.Lock()
	now := r.now()
	f, pause, err := sh.takeOver(device, now)
	warn := pause > 0 && f.warnNow(now)
	sh.mu.Unlock()
	if warn {
		r.warnFlapping(device)
	}
	return pause <= 0 || err != nil
}

// takeOver counts a takeover of the device's session if one may happen now. Otherwise it returns
// how long the device's current session stays, and the device's record. sh.mu is locked.
func (sh *shard) takeOver(device string, now time.Time) (f *flapping, pause time.Duration, err error) {
	switch {
	case sh.closing:
		return nil, 0, ErrClosing
	case sh.slots[device] == nil:
		return nil, 0, nil
	}
	if f = sh.flapping[device]; f == nil {
		sh.forgetExpired(now)
		f = &flapping{}
		sh.flapping[device] = f
	}
	if pause = f.takeoverWait(now); pause <= 0 {
		f.recordTakeover(now)
	}
	return f, pause, nil
}

// warnNow reports whether the log should have a warning now: at most one a minute.
func (f *flapping) warnNow(now time.Time) bool {
	if !f.warned.IsZero() && now.Sub(f.warned) < time.Minute {
		return false
	}
	f.warned = now
	return true
}

func (r *Registry) warnFlapping(device string) {
	r.log.Warn(r.advice, "device", device, "replaced", maxTakeovers, "within", flapWindow)
}

// awaitTurn blocks until turn is closed or pause has passed. It returns an error if ctx ends.
func (r *Registry) awaitTurn(ctx context.Context, sh *shard, f *flapping, turn chan struct{}, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var err error
	select {
	case <-turn:
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i, w := range f.waiting {
		if w == turn {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			return err
		}
	}
	if err != nil {
		f.wakeFirst() // this connection doesn't take its turn
	}
	return err
}

// passTurn wakes the next waiting connection, because the caller doesn't take its turn.
func (r *Registry) passTurn(device string) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.slots[device] == nil {
		sh.wakeFirst(device)
	}
}

// wakeFirst wakes the first waiting connection, because the device is offline. sh.mu is locked.
func (sh *shard) wakeFirst(device string) {
	if f := sh.flapping[device]; f != nil {
		f.wakeFirst()
	}
}

func (f *flapping) wakeFirst() {
	if len(f.waiting) > 0 {
		close(f.waiting[0])
		f.waiting = f.waiting[1:]
	}
}

// forgetExpired deletes some records that don't limit anything any more. It looks at four records
// per call, so that there are never many more records than flapping devices.
func (sh *shard) forgetExpired(now time.Time) {
	looked := 0
	for device, f := range sh.flapping {
		last := f.times[(f.next+maxTakeovers-1)%maxTakeovers]
		if len(f.waiting) == 0 && now.Sub(last) >= flapWindow {
			delete(sh.flapping, device)
		}
		if looked++; looked == 4 {
			return
		}
	}
}
