package device

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports/protocol"
)

// This file is the registry: which devices are online, and with which session.
//
// Every online device has a slot. The slot has the device's current session, its queue (queue.go)
// and its open requests (request.go). The slots are spread over shards, so that devices rarely
// wait for each other's locks.
//
// A device has these states:
//   - offline: it has no slot. Enqueue returns ErrOffline.
//   - online: it has a slot, and slot.session is its session.
//   - detached: a goroutine still has the slot of a device that went offline. The slot isn't
//     in its shard any more, or will leave it soon, and slot.session is nil. A new session gets a
//     new slot.
//
// Connect makes a connection the device's session in five steps: the bans (bans.go), the limit of
// new names (newcomers.go), the policy of takeovers (takeover.go), the claim of an epoch
// (Directory), and installSession. Each step can refuse the connection. installSession checks the
// bans once more, because a ban may have been added since the first step.
//
// Invariants:
//   - A device has at most one session on this host, the one with the greatest epoch.
//   - A session ends once. Its disconnected event is its last one, and it comes before the
//     connected event of the next session.
//   - The events of a device are published in order. The device's slot.mu is locked while an event
//     is published. At the beginning of a session, shard.mu is locked, too.
//
// Locks are taken in the order shard.mu, slot.mu, feed.mu. Only one lock of each kind is taken at
// a time. The locks of the memory directory and of bans may be taken after shard.mu. The lock of
// newcomers is never taken after another lock.

// ErrSuperseded is what Connect returns when a newer session of the device was registered first.
var ErrSuperseded = errors.New("a newer session of the device was registered first")

// ErrClosing is what Connect returns when the host stops.
var ErrClosing = errors.New("the host is stopping")

// Options configure a Registry. All limits must be set.
type Options struct {
	// Host is the host's name.
	Host string
	// Protocol makes frames of commands.
	Protocol protocol.Protocol
	// Named means that frames name devices. A frame can then name another device than that of its
	// connection.
	Named bool
	// Canonical returns the one form of a device's name, or an error of kind ErrDevice. The name
	// has no unit.
	Canonical func(device string) (string, error)
	// Dialed has the addresses of the devices that the host dials, by their names. The limit of
	// new names doesn't apply to these devices.
	Dialed map[string]string
	// Directory gives each session its epoch.
	Directory Directory
	// Takeover says which connections may replace a session. "" means TakeoverNewest.
	Takeover Takeover
	// FlappingAdvice is the message that is logged when several connections claim to be one
	// device.
	FlappingAdvice string

	Limits
	NewNames NameLimit
	Feed     FeedOptions

	Logger *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
	// Registerer registers the metrics; nil means no metrics.
	Registerer prometheus.Registerer
}

// Limits limit the resources that one device may use.
type Limits struct {
	// QueueCount and QueueBytes are the most frames and bytes that may wait for one device.
	QueueCount, QueueBytes int
	// WriteTimeout is the time after which a session ends if bytes wait and the kernel takes none.
	WriteTimeout time.Duration
	// Attached is the most devices that may be attached to one device's connection.
	Attached int
}

const shards = 64

// Registry has the sessions of the devices of one transport. It implements [Devices], and it has
// the consumers of the topics events and data. It is safe for concurrent use.
type Registry struct {
	protocol  protocol.Protocol
	units     bool    // the protocol has units
	keyed     bool    // the protocol gives commands keys
	plain     *Dialog // for all sessions if the protocol is only a framing
	named     bool    // see Options
	canonical func(string) (string, error)
	dialed    map[string]string // see Options
	directory Directory
	takeover  Takeover
	advice    string
	limits    Limits
	log       *slog.Logger
	now       func() time.Time
	metrics   *metrics
	feed      *feed
	host      hostEvents
	newcomers *newcomers
	// listedOnly means that devices that the inventory doesn't list may not be attached.
	listedOnly bool
	// unattachable reports whether a device may never be attached; nil means that all may be.
	unattachable func(device string) bool
	bans         *bans
	failures     failures

	seed   maphash.Seed
	shards [shards]shard

	writers sync.WaitGroup // the goroutines that write to slow devices

	watching sync.Mutex // taken by Watch alone
	watchers atomic.Pointer[[]func(device string)]
}

// shard has the slots of a part of the devices, by the hash of the name.
type shard struct {
	mu       sync.RWMutex
	slots    map[string]*slot // of the online devices
	contests map[string]*contest
	closing  bool // no session begins any more
}

// NewRegistry returns an empty registry.
func NewRegistry(o Options) (*Registry, error) {
	bans := &bans{}
	m, err := newMetrics(o.Registerer, func() int { return bans.count(o.Now()) })
	if err != nil {
		return nil, err
	}
	r := &Registry{
		bans:     bans,
		protocol: o.Protocol, plain: NewDialog(o.Protocol, netip.AddrPort{}, ""), named: o.Named, canonical: o.Canonical, dialed: o.Dialed, directory: o.Directory, takeover: o.Takeover, advice: o.FlappingAdvice, limits: o.Limits, log: o.Logger, now: o.Now,
		metrics: m, feed: newFeed(o.Host, uint64(o.Now().UnixMilli()), o.Feed, o.Now, m, o.Logger), seed: maphash.MakeSeed(),
		newcomers: newNewcomers(o.NewNames),
	}
	if u, ok := o.Protocol.(protocol.Units); ok {
		r.units = u.HasUnits()
	}
	if k, ok := o.Protocol.(protocol.Keyed); ok {
		r.keyed = k.HasKeys()
	}
	for i := range r.shards {
		r.shards[i].slots = map[string]*slot{}
		r.shards[i].contests = map[string]*contest{}
	}
	return r, nil
}

func (r *Registry) shardOf(device string) *shard {
	return &r.shards[maphash.String(r.seed, device)%shards]
}

// Enqueue implements [Devices].
func (r *Registry) Enqueue(device string, payload []byte, o EnqueueOptions) (Write, error) {
	f := newFrame(o, r.plain.plain)
	for last := (*slot)(nil); ; {
		s, unit, err := r.findSlot(device)
		switch {
		case err != nil:
			return nil, err
		case s == last: // its session has ended, and it will leave its shard soon
			return nil, ErrOffline
		}
		last = s
		c := protocol.Command{Device: s.device, Unit: unit, ID: o.ID, Payload: payload}
		switch {
		case !r.plain.plain:
			f.command = &c // encoded when it is written
			f.forgetEncoding(r.keyed)
		case f.data == nil:
			if f.data, _, err = r.plain.encode(make([]byte, 0, len(payload)+8), c); err != nil {
				return nil, payloadError(err)
			}
		}
		s.mu.Lock()
		live, err := s.enqueueFrame(f)
		switch {
		case err != nil:
			if errors.Is(err, ErrBusy) {
				r.metrics.countBusy()
			}
			return nil, err
		case live:
			return f, nil
		}
	}
}

// Epoch implements [Devices].
func (r *Registry) Epoch(device string) uint64 {
	if s := r.SessionOf(device); s != nil {
		return s.epoch
	}
	return 0
}

// SessionOf returns the current session of a device, or nil if the device is offline.
func (r *Registry) SessionOf(device string) *Session {
	s, _, err := r.findSlot(device)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// Watch implements [Devices].
func (r *Registry) Watch(f func(device string)) {
	r.watching.Lock()
	defer r.watching.Unlock()
	old := r.watchers.Load()
	var all []func(string)
	if old != nil {
		all = append(all, *old...)
	}
	all = append(all, f)
	r.watchers.Store(&all)
}

// notifyWatchers calls the functions that Watch registered.
func (r *Registry) notifyWatchers(device string) {
	if all := r.watchers.Load(); all != nil {
		for _, f := range *all {
			f(device)
		}
	}
}

// findSlot returns the slot of a device or of a unit's device. The name may have any form. If the
// device is offline, it returns ErrOffline.
func (r *Registry) findSlot(device string) (s *slot, unit string, err error) {
	if s := r.slotOf(device); s != nil {
		return s, "", nil
	}
	name, err := r.Canonical(device)
	if err != nil {
		return nil, "", err
	}
	base, unit := r.splitUnit(name)
	if base != device {
		if s := r.slotOf(base); s != nil {
			return s, unit, nil
		}
	}
	return nil, "", ErrOffline
}

func (r *Registry) slotOf(device string) *slot {
	sh := r.shardOf(device)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.slots[device]
}

// Connect makes conn the newest session of device, whose name must be in its canonical form.
// dialog is the protocol's state of the connection; it may be nil if the protocol is plain. An
// older session ends as Replaced, and its frames of which no byte is written are written in the
// new one.
//
// While too many connections claim to be the device, Connect blocks (see takeover.go). It returns
// an error in these cases, and then the caller closes conn:
//
//   - ctx ended, conn is closed, or the host stops.
//   - Too many connections wait for the device already.
//   - The directory returned an error.
//   - A newer session was registered first.
//   - The name is new and the limit of new names is reached ([ErrNewName]).
//   - An operator has banned the device ([ErrBanned]).
func (r *Registry) Connect(ctx context.Context, device, remote string, conn Conn, dialog *Dialog) (*Session, error) {
	if err := r.checkDevice(device); err != nil {
		return nil, err
	}
	if dialog == nil {
		dialog = r.plain
	}
	if err := r.bans.check(device, r.now()); err != nil {
		return nil, err
	}
	if _, dialed := r.dialed[device]; !dialed && !r.newcomers.admitName(device, r.now()) {
		return nil, r.newNameError(device)
	}
	turn := newContender(conn, remote)
	if err := r.awaitTakeover(ctx, device, turn, conn); err != nil {
		return nil, err
	}
	defer r.endTurn(device, turn)
	epoch, err := r.directory.Claim(ctx, device, r.lastHeard(conn))
	if err != nil {
		r.passTurn(device)
		return nil, fmt.Errorf("claiming device %q: %w", device, err)
	}
	session := &Session{conn: conn, dialog: dialog, epoch: epoch, remote: remote, connectedAt: r.now(), authenticated: turn.authenticated, seq: 1}
	return session, r.startSession(device, session, nil)
}

func (r *Registry) newNameError(device string) error {
	return fmt.Errorf("%w, such as %q; new_names allows %d a second, or list the devices in the inventory", ErrNewName, device, r.newcomers.limit.Rate)
}

// startSession makes the session the current one of the device. carrier is nil if the session has
// its own connection. After an error, the session hasn't begun.
func (r *Registry) startSession(device string, session, carrier *Session) error {
	ended, err := r.installSession(device, session, carrier)
	r.finishEnd(ended)
	if err != nil {
		r.passTurn(device)
		r.releaseEpoch(device, session.epoch)
		return err
	}
	r.notifyWatchers(device)
	return nil
}

// maxReadTime is how long lastHeard may take. If it takes longer, the process was interrupted.
const maxReadTime = 2 * time.Millisecond

// lastHeard returns the time of the last sign of life of conn's peer. It reads the clock and then
// the connection's silence. If the process was interrupted in between, the result would be wrong,
// so lastHeard reads both once more.
func (r *Registry) lastHeard(conn Conn) time.Time {
	for tries := 1; ; tries++ {
		before := r.now()
		silent := conn.SilentFor()
		if took := r.now().Sub(before); took <= maxReadTime || tries == 20 {
			return before.Add(-silent)
		}
	}
}

// installSession puts the session into its slot. It returns the sessions that this ended. The last
// one is that of the device itself; the others were attached to it.
func (r *Registry) installSession(device string, session, carrier *Session) (ended []*Session, err error) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closing {
		return nil, ErrClosing
	}
	if err := r.bans.check(device, session.connectedAt); err != nil {
		return nil, err
	}
	if !r.directory.IsNewest(device, session.epoch) { // the newer session may have ended already
		return nil, ErrSuperseded
	}
	if carrier != nil && carrier.Reason() != "" { // the device keeps its current session
		return nil, ErrEnded
	}
	s := sh.slots[device]
	if s != nil {
		s.mu.Lock()
		switch old := s.session; {
		case old == nil:
		case s.carrier == nil && carrier == nil:
			// The new session takes over the slot and its queue.
			ended = s.endSession(Replaced, "", keepQueue)
			s.beginSession(session)
			s.mu.Unlock()
			return ended, nil
		default:
			ended = s.endSession(Replaced, "", endQueue)
		}
		s.mu.Unlock()
	}
	s = newSlot(r, device)
	if carrier != nil {
		s.carrier, s.mu = carrier.slot, carrier.slot.mu
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if carrier != nil {
		if s.carrier.session != carrier {
			return ended, ErrEnded
		}
		s.carrier.addAttached(s)
	}
	sh.slots[device] = s
	s.beginSession(session)
	return ended, nil
}

// endSession ends a session and returns true. If the session has ended already, it returns false.
// detail is the Detail of the event.
func (r *Registry) endSession(session *Session, reason Reason, detail string) bool {
	s := session.slot
	s.mu.Lock()
	if s.session != session {
		s.mu.Unlock()
		return false
	}
	ended := s.endSession(reason, detail, endQueue)
	s.mu.Unlock()
	r.finishEnd(ended)
	return true
}

// finishEnd does for ended sessions what has to wait until the caller's locks are unlocked. It
// removes their slots, releases their epochs, closes their connection, and resumes the writing.
// The last session is that of the device itself; the others were attached to it.
func (r *Registry) finishEnd(ended []*Session) {
	if len(ended) == 0 {
		return
	}
	for _, session := range ended {
		r.removeSlot(session.slot)
		r.releaseEpoch(session.Device(), session.epoch)
	}
	last := ended[len(ended)-1]
	line := last.slot.line()
	if line == last.slot {
		r.closeConn(last)
	}
	// The open requests of the sessions have ended, so writing may go on.
	line.mu.Lock()
	line.resumeWriting()
}

// removeSlot removes a slot without a session from its shard. It wakes the first connection that
// waits for the device.
func (r *Registry) removeSlot(s *slot) {
	sh := r.shardOf(s.device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.slots[s.device] == s && s.session == nil {
		delete(sh.slots, s.device)
		sh.wakeFirst(s.device)
	}
}

// endBroken ends a session because writing to its connection failed.
func (r *Registry) endBroken(session *Session, err error) {
	r.log.Debug("a session ends because writing to its device failed", "device", session.Device(), "epoch", session.epoch, "err", err)
	if r.endSession(session, ConnectionLost, "") {
		r.NoteError(session.Device(), err.Error())
	}
}

func (r *Registry) closeConn(session *Session) {
	if err := session.conn.Close(); err != nil {
		r.log.Debug("closing a device's connection", "device", session.Device(), "epoch", session.epoch, "err", err)
	}
}

func (r *Registry) releaseEpoch(device string, epoch uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.directory.Release(ctx, device, epoch); err != nil {
		r.log.Warn("releasing a device's epoch in the directory", "device", device, "epoch", epoch, "err", err)
	}
}

// Sessions returns the current session of each online device.
func (r *Registry) Sessions() []*Session {
	var sessions []*Session
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.RLock()
		for _, s := range sh.slots {
			s.mu.Lock()
			if s.session != nil {
				sessions = append(sessions, s.session)
			}
			s.mu.Unlock()
		}
		sh.mu.RUnlock()
	}
	return sessions
}
