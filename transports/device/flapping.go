package device

import (
	"context"
	"errors"
	"time"
)

// Several devices that claim one identity, such as those behind one NAT with identity by address, would evict each other for ever.
// So a live session may be replaced only takeovers times in flapWindow; who comes then waits until the current session
// ends or the window has room again.
const (
	maxTakeovers   = 3
	flapWindow     = 10 * time.Second
	maxFlapWaiting = 8
)

// ErrFlapping is what Connect returns when too many connections of one device wait already.
var ErrFlapping = errors.New("too many connections claim to be this device")

// ErrGone is what Connect returns when the connection ended while it waited.
var ErrGone = errors.New("the connection ended while it waited for its turn")

// flapping is the record of a device whose live session was replaced. It is guarded by its shard's lock.
type flapping struct {
	times   [maxTakeovers]time.Time // of the last takeovers; times[next] is the oldest
	next    int
	waiting []chan struct{}
	warned  time.Time
}

func (f *flapping) recordTakeover(now time.Time) {
	f.times[f.next] = now
	f.next = (f.next + 1) % maxTakeovers
}

// full returns how long no live session may be replaced.
func (f *flapping) takeoverWait(now time.Time) time.Duration {
	if oldest := f.times[f.next]; !oldest.IsZero() {
		return oldest.Add(flapWindow).Sub(now)
	}
	return 0
}

// admit blocks while a new session of device isn't allowed to replace the live one.
func (r *Registry) awaitTakeover(ctx context.Context, device string, conn Conn) error {
	sh := r.shardOf(device)
	for waited := false; ; waited = true {
		if waited && conn.Gone() {
			r.passTurn(device)
			return ErrGone
		}
		sh.mu.Lock()
		f := sh.flapping[device]
		now := r.now()
		switch s := sh.slots[device]; {
		case sh.closing:
			sh.mu.Unlock()
			return ErrClosing
		case s == nil:
			sh.mu.Unlock()
			return nil
		case f == nil:
			sh.forgetExpired(now)
			f = &flapping{}
			sh.flapping[device] = f
		}
		pause := f.takeoverWait(now)
		if pause <= 0 {
			f.recordTakeover(now)
			sh.mu.Unlock()
			return nil
		}
		if len(f.waiting) >= maxFlapWaiting {
			sh.mu.Unlock()
			return ErrFlapping
		}
		turn := make(chan struct{})
		f.waiting = append(f.waiting, turn)
		warn := f.warned.IsZero() || now.Sub(f.warned) >= time.Minute
		if warn {
			f.warned = now
		}
		sh.mu.Unlock()
		if warn {
			r.log.Warn(r.advice, "device", device, "replaced", maxTakeovers, "within", flapWindow)
		}
		if err := r.awaitTurn(ctx, sh, f, turn, pause); err != nil {
			return err
		}
	}
}

// await blocks until it is the newcomer's turn, for pause at most.
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
		f.wakeFirst() // the turn was given to somebody who leaves
	}
	return err
}

// pass gives the turn to the next newcomer that waits, as the caller doesn't take it.
func (r *Registry) passTurn(device string) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.slots[device] == nil {
		sh.wakeFirst(device)
	}
}

// wake gives the first newcomer its turn, as the device has no session any more. sh.mu is held.
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

// forgetCalm drops some of the records that say nothing any more, so that there are never many more than devices that flap.
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
