package device

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/printable"
)

// An operator can end the session of a device (kick), and keep a device from connecting (ban).
// This file does both.
//
// Invariant: a banned device has no session. Ban adds the ban before it looks for the device's
// session, and installSession checks the bans while it has locked the shard. So if both run at the
// same time, Ban finds the session or installSession finds the ban.

// MaxBans is how many devices of one transport may be banned at the same time.
const MaxBans = 10_000

var (
	// ErrBanned is what Connect returns for a banned device.
	ErrBanned = errors.New("the device is banned")
	// ErrNotBanned is what Unban returns if the device isn't banned.
	ErrNotBanned = errors.New("the device isn't banned")
	// ErrManyBans is what Ban returns if MaxBans devices are banned.
	ErrManyBans = fmt.Errorf("%d devices are banned already", MaxBans)
	// ErrReason means that the text of an operator can't be the detail of an event.
	ErrReason = errors.New("the reason can't be used")
)

// Gatekeeper is implemented by [Devices] whose devices an operator can disconnect. A name needn't
// be canonical, and a unit's name stands for its device. Each method that takes a name returns an
// error of kind ErrDevice if the name can't name a device. The methods are safe for concurrent
// use.
type Gatekeeper interface {
	// Kick ends the device's session as Kicked and returns what it was. reason is the Detail of
	// the event; it may be empty. The error is of kind ErrOffline or ErrReason.
	Kick(device, reason string) (Live, error)
	// Ban bans a device and ends its session as Kicked. A new ban replaces the one before. A Since
	// of zero means now. The error is of kind ErrReason or ErrManyBans.
	Ban(b Ban) (Banned, error)
	// Unban ends a ban and returns it. The error is of kind ErrNotBanned.
	Unban(device string) (Ban, error)
	// Bans returns the bans in force, sorted by device.
	Bans() []Ban
}

// Ban says that a device may not connect.
type Ban struct {
	Device string
	// Since is when the ban began, and Until when it ends. A zero Until means never.
	Since, Until time.Time
	// Reason is the operator's text. It may be empty. The rules of names apply to it.
	Reason string
}

// isOver reports whether the ban has ended.
func (b Ban) isOver(now time.Time) bool { return !b.Until.IsZero() && !now.Before(b.Until) }

// detail is the Detail of the event when the ban ends a session.
func (b Ban) detail() string {
	if b.Reason == "" {
		return "banned"
	}
	return "banned: " + b.Reason
}

// Banned says what a call of Ban did.
type Banned struct {
	Ban
	// Replaced says that the device was banned already.
	Replaced bool
	// Kicked says that the ban ended a session.
	Kicked bool
}

// bans has the bans of a registry. Those that are over stay until list or count is called or their
// place is needed.
type bans struct {
	mu  sync.RWMutex // no other lock is taken while it is locked
	all map[string]Ban
}

// check returns an error of kind ErrBanned if the device is banned.
func (b *bans) check(device string, now time.Time) error {
	b.mu.RLock()
	ban, ok := b.all[device]
	b.mu.RUnlock()
	switch {
	case !ok || ban.isOver(now):
		return nil
	case ban.Until.IsZero():
		return fmt.Errorf("%w: %q", ErrBanned, device)
	default:
		return fmt.Errorf("%w: %q, until %s", ErrBanned, device, ban.Until.UTC().Format(time.RFC3339))
	}
}

// add adds a ban. replaced says that it replaces one.
func (b *bans) add(ban Ban, now time.Time) (replaced bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, has := b.all[ban.Device]
	if !has && len(b.all) >= MaxBans {
		b.forgetOver(now)
		if len(b.all) >= MaxBans {
			return false, ErrManyBans
		}
	}
	if b.all == nil {
		b.all = map[string]Ban{}
	}
	b.all[ban.Device] = ban
	return has && !old.isOver(now), nil
}

func (b *bans) remove(device string, now time.Time) (Ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ban, ok := b.all[device]
	delete(b.all, device)
	return ban, ok && !ban.isOver(now)
}

func (b *bans) list(now time.Time) []Ban {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetOver(now)
	return slices.SortedFunc(maps.Values(b.all), func(x, y Ban) int { return cmp.Compare(x.Device, y.Device) })
}

// count returns how many bans are in force.
func (b *bans) count(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetOver(now)
	return len(b.all)
}

// forgetOver removes the bans that are over. b.mu is locked.
func (b *bans) forgetOver(now time.Time) {
	maps.DeleteFunc(b.all, func(_ string, ban Ban) bool { return ban.isOver(now) })
}

// baseName returns the canonical name of a device, or of a unit's device.
func (r *Registry) baseName(name string) (string, error) { return r.Canonical(r.Base(name)) }

func checkReason(reason string) error {
	if reason == "" {
		return nil
	}
	if err := printable.CheckName(reason); err != nil {
		return fmt.Errorf("%w: it %w", ErrReason, err)
	}
	return nil
}

// Kick implements [Gatekeeper].
func (r *Registry) Kick(device, reason string) (Live, error) {
	name, err := r.baseName(device)
	if err == nil {
		err = checkReason(reason)
	}
	if err != nil {
		return Live{}, err
	}
	return r.endCurrent(name, reason)
}

// endCurrent ends the device's session as Kicked and returns what it was.
func (r *Registry) endCurrent(device, detail string) (Live, error) {
	for {
		s := r.slotOf(device)
		if s == nil {
			return Live{}, ErrOffline
		}
		s.mu.Lock()
		session := s.session
		if session == nil {
			s.mu.Unlock()
			return Live{}, ErrOffline
		}
		was := session.describe()
		s.mu.Unlock()
		if r.endSession(session, Kicked, detail) {
			return was, nil
		}
		// The session has just ended by itself. Perhaps a newer one took its place.
	}
}

// Ban implements [Gatekeeper].
func (r *Registry) Ban(b Ban) (Banned, error) {
	name, err := r.baseName(b.Device)
	if err == nil {
		err = checkReason(b.Reason)
	}
	if err != nil {
		return Banned{}, err
	}
	now := r.now()
	b.Device = name
	if b.Since.IsZero() {
		b.Since = now
	}
	replaced, err := r.bans.add(b, now)
	if err != nil {
		return Banned{}, err
	}
	_, err = r.endCurrent(name, b.detail())
	return Banned{Ban: b, Replaced: replaced, Kicked: err == nil}, nil
}

// Unban implements [Gatekeeper].
func (r *Registry) Unban(device string) (Ban, error) {
	name, err := r.baseName(device)
	if err != nil {
		return Ban{}, err
	}
	b, ok := r.bans.remove(name, r.now())
	if !ok {
		return Ban{}, fmt.Errorf("%w: %q", ErrNotBanned, name)
	}
	return b, nil
}

// CheckBan returns an error of kind ErrBanned if the device is banned. device is its canonical
// name.
func (r *Registry) CheckBan(device string) error { return r.bans.check(device, r.now()) }

// Bans implements [Gatekeeper].
func (r *Registry) Bans() []Ban { return r.bans.list(r.now()) }
