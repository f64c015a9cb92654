package device

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports/codec"
)

// ErrSuperseded is what Connect returns when a newer session of the device came first.
var ErrSuperseded = errors.New("a newer session of the device came first")

// ErrClosing is what Connect returns when the host stops.
var ErrClosing = errors.New("the host stops")

// Options are what a Registry is made of. All limits must be set.
type Options struct {
	// Host is the host's name.
	Host string
	// Framing turns payloads into frames.
	Framing codec.Framing
	// Canonical returns the one form of a device's name, or an error of kind ErrDevice.
	Canonical func(device string) (string, error)
	// Directory gives out epochs.
	Directory Directory
	// FlappingAdvice is logged when several connections claim to be one device.
	FlappingAdvice string

	Limits
	NewNames NameLimit
	Feed     FeedOptions

	Logger *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Limits bound the ways to devices.
type Limits struct {
	// QueueCount and QueueBytes are how much may wait for one device.
	QueueCount, QueueBytes int
	// WriteTimeout is how long a device may take nothing before its session ends.
	WriteTimeout time.Duration
}

const shards = 64

// Registry knows the live session of each device of one transport. It implements [Devices], and gives the transport's
// subscribers. It is safe for concurrent use.
type Registry struct {
	framing   codec.Framing
	canonical func(string) (string, error)
	directory Directory
	advice    string
	limits    Limits
	log       *slog.Logger
	now       func() time.Time
	metrics   *metrics
	feed      *feed
	host      hostEvents
	newcomers *newcomers

	seed   maphash.Seed
	shards [shards]shard

	writers sync.WaitGroup // goroutines that wait for a slow device

	watching sync.Mutex // of Watch
	watchers atomic.Pointer[[]func(device string)]
}

// shard is a part of the registry. Locks are taken in the order shard, slot, feed.
type shard struct {
	mu       sync.RWMutex
	slots    map[string]*slot
	flapping map[string]*flapping
	closing  bool
}

// NewRegistry returns an empty registry.
func NewRegistry(o Options) (*Registry, error) {
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		framing: o.Framing, canonical: o.Canonical, directory: o.Directory, advice: o.FlappingAdvice, limits: o.Limits, log: o.Logger, now: o.Now,
		metrics: m, feed: newFeed(o.Host, uint64(o.Now().UnixMilli()), o.Feed, o.Now, m, o.Logger), seed: maphash.MakeSeed(),
		newcomers: newNewcomers(o.NewNames),
	}
	for i := range r.shards {
		r.shards[i].slots = map[string]*slot{}
		r.shards[i].flapping = map[string]*flapping{}
	}
	return r, nil
}

func (r *Registry) shardOf(device string) *shard {
	return &r.shards[maphash.String(r.seed, device)%shards]
}

// CheckName returns an error of kind ErrDevice if name can't name a device. The rules are those of ids too: see
// docs/messages.md.
func CheckName(name string) error {
	if err := printable.CheckName(name); err != nil {
		return fmt.Errorf("%w: the name %w", ErrDevice, err)
	}
	return nil
}

// Canonical implements [Devices].
func (r *Registry) Canonical(device string) (string, error) { return r.canonical(device) }

// Check implements [Devices].
func (r *Registry) Check(payload []byte) error {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	_, err := r.framing.Append((*buf)[:0], payload)
	return payloadError(err)
}

func payloadError(err error) error {
	if err == nil || errors.Is(err, ErrPayload) {
		return err
	}
	return &refused{err}
}

// refused is a framing's refusal of a payload. It reads as the framing said it, and is of both kinds.
type refused struct{ error }

func (e *refused) Unwrap() []error { return []error{ErrPayload, e.error} }

// Enqueue implements [Devices].
func (r *Registry) Enqueue(device string, payload []byte, o EnqueueOptions) (Write, error) {
	f := newFrame(o)
	for {
		s, err := r.findSlot(device)
		if err != nil {
			return nil, err
		}
		if f.data == nil {
			if f.data, err = r.framing.Append(make([]byte, 0, len(payload)+8), payload); err != nil {
				return nil, payloadError(err)
			}
		}
		f.slot = s
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
	s, err := r.findSlot(device)
	if err != nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return 0
	}
	return s.session.epoch
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

// arrived tells those who watch of a device that got a session.
func (r *Registry) notifyWatchers(device string) {
	if all := r.watchers.Load(); all != nil {
		for _, f := range *all {
			f(device)
		}
	}
}

// find returns the slot of a device by any of its names.
func (r *Registry) findSlot(device string) (*slot, error) {
	if s := r.slotOf(device); s != nil {
		return s, nil
	}
	name, err := r.canonical(device)
	if err != nil {
		return nil, err
	}
	if name != device {
		if s := r.slotOf(name); s != nil {
			return s, nil
		}
	}
	return nil, ErrOffline
}

func (r *Registry) slotOf(device string) *slot {
	sh := r.shardOf(device)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.slots[device]
}

// Recognise says whose names are never new: those of devices that an inventory lists. It is called
// before the first Connect.
func (r *Registry) SetListed(listed func(device string) bool) { r.newcomers.listed = listed }

// Connect makes conn the newest session of device, which must be in its canonical form. An older session ends as replaced, and what it
// hadn't begun to write is written to the new one. While a device flaps, Connect blocks (see the transport's page); it returns an error
// if ctx ends, conn is gone, too many wait already, a newer session came first, the host stops, or the
// device's name is one new name too many ([ErrNewName]); the caller closes conn then.
func (r *Registry) Connect(ctx context.Context, device, remote string, conn Conn) (*Session, error) {
	if !r.newcomers.admitName(device, r.now()) {
		return nil, fmt.Errorf("%w, such as %q; new_names allows %d a second, or list the devices in the inventory", ErrNewName, device, r.newcomers.limit.Rate)
	}
	if err := r.awaitTakeover(ctx, device, conn); err != nil {
		return nil, err
	}
	epoch, err := r.directory.Claim(ctx, device, r.lastHeard(conn))
	if err != nil {
		r.passTurn(device)
		return nil, fmt.Errorf("claiming device %q: %w", device, err)
	}
	session := &Session{conn: conn, epoch: epoch, remote: remote, connectedAt: r.now(), seq: 1}
	old, err := r.installSession(device, session)
	if err != nil {
		r.passTurn(device)
		r.releaseEpoch(device, epoch)
		return nil, err
	}
	if old != nil {
		r.closeConn(old)
		// What waited for the old one's answer is the new one's to be written.
		session.slot.mu.Lock()
		session.slot.resumeWriting()
	}
	r.notifyWatchers(device)
	return session, nil
}

// hesitation is the longest that reading a connection's silence may take before it is read again.
const maxReadTime = 2 * time.Millisecond

// heard returns when the last sign of life came from conn's peer. The clock and the connection are
// read one after the other. If the host was interrupted in between, heard reads both again.
func (r *Registry) lastHeard(conn Conn) time.Time {
	for tries := 1; ; tries++ {
		before := r.now()
		silent := conn.SilentFor()
		if took := r.now().Sub(before); took <= maxReadTime || tries == 20 {
			return before.Add(-silent)
		}
	}
}

// install puts session into its slot and returns the one that was replaced.
func (r *Registry) installSession(device string, session *Session) (old *Session, err error) {
	sh := r.shardOf(device)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closing {
		return nil, ErrClosing
	}
	s := sh.slots[device]
	if s == nil {
		s = &slot{registry: r, device: device}
		sh.slots[device] = s
		r.metrics.addSessions(1)
	}
	session.slot = s
	s.mu.Lock()
	defer s.mu.Unlock()
	if old = s.session; old != nil {
		if old.epoch > session.epoch {
			return nil, ErrSuperseded
		}
		old.markEnded(Replaced)
		s.endRequests(old)
	}
	s.session = session
	r.feed.publishPresence(session, Connected)
	return old, nil
}

// end ends a session, unless it has ended.
func (r *Registry) endSession(session *Session, reason Reason) {
	s := session.slot
	sh := r.shardOf(s.device)
	sh.mu.Lock()
	s.mu.Lock()
	if s.session != session {
		s.mu.Unlock()
		sh.mu.Unlock()
		return
	}
	delete(sh.slots, s.device)
	r.metrics.addSessions(-1)
	s.session = nil
	session.markEnded(reason)
	s.endRequests(session)
	s.finishUnwritten(session)
	s.mu.Unlock()
	sh.wakeFirst(s.device)
	sh.mu.Unlock()
	r.closeConn(session)
	r.releaseEpoch(s.device, session.epoch)
}

// broken ends a session whose connection failed while writing.
func (r *Registry) endBroken(session *Session, err error) {
	r.log.Debug("writing to a device", "device", session.Device(), "epoch", session.epoch, "err", err)
	r.endSession(session, ConnectionLost)
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
		r.log.Warn("giving a device up in the directory", "device", device, "epoch", epoch, "err", err)
	}
}

// live returns the live sessions.
func (r *Registry) liveSessions() []*Session {
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
