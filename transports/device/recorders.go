package device

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file has the recordings. A recording gets a copy of what passes through one connection.
//
// A recording waits for the connection of one device. The device of a new connection isn't known
// yet. So while any recording waits, each new connection gets a capture, which keeps its first
// bytes. When the device is known, the recordings that wait for it get the kept bytes, and then
// everything that follows. If no recording waits for it, the connection loses its capture.
//
// The invariants:
//   - Without recordings, no connection has a capture. A read or write then costs one comparison.
//   - A capture keeps at most keptBytes, all captures together at most keptTotal.
//   - Nothing waits for a recording. A recording that doesn't keep up ends with an error.
//   - In a recording, the host's bytes come before the device's answer to them, because a capture
//     is locked while the host writes.
//
// Locks are taken in the order Recorders.mu, capture.mu, Recording.mu.

const (
	// keptBytes is how much a capture keeps while the device isn't known. keptTotal is how much
	// all captures of one transport keep.
	keptBytes = 64 << 10
	keptTotal = 4 << 20
	// keptCost is what one entry costs in addition to its bytes, roughly.
	keptCost = 64
	// recordedEntries and recordedBytes are how much may wait for the reader of a recording. There
	// is room for everything that a capture keeps.
	recordedEntries = 2048
	recordedBytes   = 8 << 20
	// longestEntry is how many bytes one entry has at most.
	longestEntry = 16 << 10
)

// The reasons for a recording's end.
var (
	errNotKept = fmt.Errorf("the first bytes of the connection are missing: the host keeps %d bytes of a connection whose device isn't known yet, and %d of all such connections", keptBytes, keptTotal)
	errTooSlow = errors.New("bytes are missing: they weren't read as fast as they came")
)

// Recorder is implemented by transports that can record the connections of their devices.
type Recorder interface {
	// Record returns a recording of the device's connection, until ctx ends. The recording begins
	// with the current connection, or with the next one if the device is offline or next is true.
	// A unit's name stands for its device. The error is of kind ErrDevice.
	Record(ctx context.Context, device string, next bool) (*Recording, error)
}

// Recorded is one entry of a recording. The first entry has Connection. The last one has Ended,
// unless the recording ends early. Those between have Bytes.
type Recorded struct {
	Time       time.Time
	Connection *RecordedConnection
	// FromHost says who sent Bytes: the host or the device.
	FromHost bool
	Bytes    []byte
	// Ended is why the session ended.
	Ended Reason
}

// RecordedConnection describes the connection of a recording.
type RecordedConnection struct {
	Device      string
	RemoteAddr  string
	Epoch       uint64
	ConnectedAt time.Time
	// Whole says that the recording has the connection's first bytes.
	Whole bool
}

// Recording gives one reader the entries of one connection.
type Recording struct {
	device string
	next   bool

	entries chan Recorded
	waiting atomic.Int64 // the bytes in entries

	mu    sync.Mutex
	ended bool
	err   error
}

// Entries returns the recording's entries as they come. If the recording ends early because of an
// error, the error comes last. Only one goroutine may read the entries.
func (r *Recording) Entries() iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		for e := range r.entries {
			r.waiting.Add(-int64(len(e.Bytes)))
			if !yield(e, nil) {
				return
			}
		}
		r.mu.Lock()
		err := r.err
		r.mu.Unlock()
		if err != nil {
			yield(Recorded{}, err)
		}
	}
}

// add adds an entry. If there is no room for it, the recording ends.
func (r *Recording) add(e Recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	if r.waiting.Add(int64(len(e.Bytes))) <= recordedBytes {
		select {
		case r.entries <- e:
			return
		default:
		}
	}
	r.end(errTooSlow)
}

// finish ends the recording.
func (r *Recording) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(err)
}

// end ends the recording. r.mu is locked.
func (r *Recording) end(err error) {
	if !r.ended {
		r.ended, r.err = true, err
		close(r.entries)
	}
}

func (r *Recording) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// Recorders has the recordings of one transport. The zero value has none.
type Recorders struct {
	kept atomic.Int64 // the cost of what captures keep

	// waits is len(waiting).
	waits atomic.Int32

	mu      sync.Mutex
	waiting []*Recording
}

// Wait returns a recording of the device's next connection, until ctx ends. After calling Wait,
// the transport looks for a current connection, unless next is true.
func (rs *Recorders) Wait(ctx context.Context, device string, next bool) *Recording {
	r := &Recording{device: device, next: next, entries: make(chan Recorded, recordedEntries)}
	rs.mu.Lock()
	rs.setWaiting(append(rs.waiting, r))
	rs.mu.Unlock()
	context.AfterFunc(ctx, func() {
		rs.mu.Lock()
		rs.setWaiting(slices.DeleteFunc(rs.waiting, func(o *Recording) bool { return o == r }))
		rs.mu.Unlock()
		r.finish(nil)
	})
	return r
}

// setWaiting sets the recordings that wait. rs.mu is locked.
func (rs *Recorders) setWaiting(waiting []*Recording) {
	rs.waiting = waiting
	rs.waits.Store(int32(len(waiting)))
}

// IsAnyWaiting reports whether any recording waits for a connection.
func (rs *Recorders) IsAnyWaiting() bool { return rs.waits.Load() > 0 }

// Begin is called for a new connection, before anything is read from it.
func (rs *Recorders) Begin(c *Recordable) { rs.begin(c, true) }

// BeginLate is Begin for a connection whose first bytes may not be recorded. It is called before
// the connection has become a session.
func (rs *Recorders) BeginLate(c *Recordable) { rs.begin(c, false) }

func (rs *Recorders) begin(c *Recordable, whole bool) {
	if rs.waits.Load() > 0 {
		c.capture.Store(&capture{recorders: rs, owner: c, began: time.Now(), fresh: true, whole: whole})
	}
}

// Identify is called when the connection has become the session of a device. Wait may be called at
// the same time. So after Wait, the transport calls Identify again for the session of that device.
func (rs *Recorders) Identify(c *Recordable, s *Session) {
	if rs.waits.Load() == 0 && c.capture.Load() == nil {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k := c.capture.Load()
	var mine, others []*Recording
	for _, r := range rs.waiting {
		if r.device == s.Device() && (!r.next || k != nil && k.isFresh()) {
			mine = append(mine, r)
		} else {
			others = append(others, r)
		}
	}
	if len(mine) == 0 {
		if k != nil && k.isFresh() {
			k.forget()
			c.capture.Store(nil)
		}
		return
	}
	rs.setWaiting(others)
	if k == nil {
		k = &capture{recorders: rs, owner: c, began: time.Now()}
	}
	k.attach(mine, s)
	c.capture.Store(k)
	if c.over.Load() { // End may have found no capture
		c.End(s.Reason())
	}
}

// Recordable is the part of a connection that recordings need. Its zero value is a connection that
// isn't recorded.
type Recordable struct {
	capture atomic.Pointer[capture]
	over    atomic.Bool // the connection has ended
}

// IsRecorded reports whether the connection has a capture.
func (c *Recordable) IsRecorded() bool { return c.capture.Load() != nil }

// AddRead records bytes that were read from the device.
func (c *Recordable) AddRead(p []byte) {
	if k := c.capture.Load(); k != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.add(false, p)
	}
}

// Write calls write with p and records the bytes that it has written.
func (c *Recordable) Write(p []byte, write func(p []byte) (n int, err error)) (n int, err error) {
	k := c.capture.Load()
	if k == nil {
		return write(p)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n, err = write(p)
	k.add(true, p[:n])
	return n, err
}

// End is called when the connection has ended. It ends the recordings of the connection. reason is
// why the session ended.
func (c *Recordable) End(reason Reason) {
	c.over.Store(true)
	if k := c.capture.Swap(nil); k != nil {
		k.end(reason)
	}
}

// capture passes what one connection reads and writes to the recordings of the connection.
type capture struct {
	recorders *Recorders
	owner     *Recordable
	began     time.Time

	mu    sync.Mutex
	fresh bool // it began before the session
	whole bool // nothing of the connection is missing
	known bool // the device is known
	// first has what passed before the device was known, and cost is the memory that first takes.
	// If first would take too much, it is empty and notKept is set.
	first      []Recorded
	cost       int
	notKept    bool
	recordings []*Recording
}

// now returns the time. It never goes back, even if the machine's clock does.
func (k *capture) now() time.Time { return k.began.Add(time.Since(k.began)) }

// add records bytes. k.mu is locked.
func (k *capture) add(fromHost bool, p []byte) {
	now := k.now()
	for part := range slices.Chunk(p, longestEntry) {
		e := Recorded{Time: now, FromHost: fromHost}
		switch {
		case k.known:
			e.Bytes = slices.Clone(part)
			for _, r := range k.recordings {
				r.add(e)
			}
		case !k.keep(len(part) + keptCost):
			return
		default:
			e.Bytes = slices.Clone(part)
			k.first = append(k.first, e)
		}
	}
	if !k.known {
		return
	}
	k.recordings = slices.DeleteFunc(k.recordings, (*Recording).hasEnded)
	if len(k.recordings) == 0 {
		k.owner.capture.CompareAndSwap(k, nil)
	}
}

// keep reports whether there is room for a further entry of a connection without a device. If so,
// it takes the room.
func (k *capture) keep(cost int) bool {
	if k.notKept {
		return false
	}
	if k.cost+cost > keptBytes || k.recorders.kept.Load()+int64(cost) > keptTotal {
		k.forgetFirst()
		k.notKept = true
		return false
	}
	k.cost += cost
	k.recorders.kept.Add(int64(cost))
	return true
}

// forgetFirst forgets what is kept. k.mu is locked.
func (k *capture) forgetFirst() {
	k.recorders.kept.Add(-int64(k.cost))
	k.first, k.cost = nil, 0
}

func (k *capture) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetFirst()
}

// isFresh reports whether the capture began before the session and has no recording yet.
func (k *capture) isFresh() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh && !k.known
}

// attach gives recordings what was kept, and then everything that follows.
func (k *capture) attach(recordings []*Recording, s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	whole := k.whole && !k.known
	began := k.now()
	if k.fresh && !k.known {
		began = k.began
	}
	for _, r := range recordings {
		r.add(Recorded{Time: began, Connection: &RecordedConnection{
			Device: s.Device(), RemoteAddr: s.remote, Epoch: s.epoch, ConnectedAt: s.connectedAt, Whole: whole,
		}})
		if k.notKept {
			r.finish(errNotKept)
		}
		for _, e := range k.first {
			r.add(e)
		}
	}
	k.forgetFirst()
	k.known = true
	k.recordings = append(k.recordings, recordings...)
}

func (k *capture) end(reason Reason) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetFirst()
	for _, r := range k.recordings {
		r.add(Recorded{Time: k.now(), Ended: reason})
		r.finish(nil)
	}
	k.recordings = nil
}
