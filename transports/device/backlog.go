package device

import (
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// backlog is what one consumer of one topic hasn't taken yet, in order. It is guarded by feed.mu.
type backlog struct {
	bounds  bounds
	all     chain
	n       int
	devices map[string]*deviceBacklog
	last    uint64 // order of the newest item
	// changed is signalled when there may be something to take, or nothing any more.
	changed *sync.Cond
	// room is closed when the backlog as a whole has room again; made by who waits.
	room chan struct{}
	// drained says that nothing will be added any more.
	drained bool
}

// bounds are how much a backlog keeps. A zero bound doesn't bind.
type bounds struct {
	// coalesce is how many items may wait before only the newest of each device is kept.
	coalesce int
	// device and total are how many may wait for one device, and in all.
	device, total int
	// bytes is the budget of all that waits; nil doesn't bind. A backlog takes one record in any case, so
	// that it goes on whatever others have taken.
	bytes *transports.Budget
	// drop says that at a bound the oldest make room. Otherwise nothing is added then, and the caller waits.
	drop bool
}

// deviceBacklog is the part of a backlog that one device has.
type deviceBacklog struct {
	own  chain
	n    int
	room chan struct{} // as backlog.room
}

// item is a place in a backlog.
type item struct {
	record      record
	order       uint64
	redelivered bool // it was handed out before

	all, own links // in backlog.all and deviceBacklog.own
}

// newBacklog returns a backlog that mu guards.
func newBacklog(b bounds, mu sync.Locker) *backlog {
	return &backlog{bounds: b, devices: map[string]*deviceBacklog{}, changed: sync.NewCond(mu)}
}

// full returns nil if a record of device can be added, or a channel that is closed when it is worth another try.
func (b *backlog) checkRoom(device string) <-chan struct{} {
	if b.bounds.drop {
		return nil
	}
	if d := b.devices[device]; d != nil && b.bounds.device > 0 && d.n >= b.bounds.device {
		if d.room == nil {
			d.room = make(chan struct{})
		}
		return d.room
	}
	if b.bounds.total > 0 && b.n >= b.bounds.total || b.overBudget() {
		if b.room == nil {
			b.room = make(chan struct{})
		}
		return b.room
	}
	return nil
}

// heavy reports whether what waits takes as many bytes as it may.
func (b *backlog) overBudget() bool { return b.n > 0 && b.bounds.bytes.Full() }

// add appends r and returns how many older records it pushed out: those that it makes needless, and those that were lost.
func (b *backlog) addRecord(r record) (coalesced, lost int) {
	device := r.deviceName()
	d := b.devices[device]
	if b.bounds.coalesce > 0 && b.n >= b.bounds.coalesce {
		for d != nil && d.own.head != nil {
			b.removeItem(d.own.head)
			d = b.devices[device]
			coalesced++
		}
	}
	if b.bounds.drop {
		if d != nil && b.bounds.device > 0 && d.n >= b.bounds.device {
			b.removeItem(d.own.head)
			lost++
		}
		for b.bounds.total > 0 && b.n >= b.bounds.total || b.overBudget() {
			b.removeItem(b.all.head)
			lost++
		}
	}
	b.last++
	b.insertItem(&item{record: r, order: b.last})
	return coalesced, lost
}

// take removes and returns the first item, or nil.
func (b *backlog) takeFirst() *item {
	it := b.all.head
	if it != nil {
		b.removeItem(it)
	}
	return it
}

// insert puts it where its order says, which for new items is the end and for those that come back near the front.
func (b *backlog) insertItem(it *item) {
	device := it.record.deviceName()
	d := b.devices[device]
	if d == nil {
		d = &deviceBacklog{}
		b.devices[device] = d
	}
	b.all.insertItem(it, allLinks)
	d.own.insertItem(it, ownLinks)
	b.n++
	d.n++
	b.bounds.bytes.Add(it.record.size())
	b.changed.Broadcast()
}

// remove takes it out and lets those go on who waited for room. They are called at half of the bound, so that they find
// room for more than one record.
func (b *backlog) removeItem(it *item) {
	device := it.record.deviceName()
	d := b.devices[device]
	b.all.removeItem(it, allLinks)
	d.own.removeItem(it, ownLinks)
	b.n--
	d.n--
	b.bounds.bytes.Give(it.record.size())
	if d.room != nil && d.n <= b.bounds.device/2 {
		close(d.room)
		d.room = nil
	}
	if b.room != nil && (b.n <= b.bounds.total/2 || b.bounds.total == 0) && !b.overBudget() {
		close(b.room)
		b.room = nil
	}
	if d.n == 0 && d.room == nil {
		delete(b.devices, device)
	}
}

// release lets everybody go on who waits for room: the backlog's consumer is gone.
func (b *backlog) discard() {
	for it := b.all.head; it != nil; it = it.all.next {
		b.bounds.bytes.Give(it.record.size())
	}
	b.bounds.bytes = nil
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
	for _, d := range b.devices {
		if d.room != nil {
			close(d.room)
			d.room = nil
		}
	}
}
