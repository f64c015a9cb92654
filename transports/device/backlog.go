package device

import (
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// backlog is the queue of the records of one topic that one consumer hasn't taken yet. Records are
// in the order of publication. A backlog has bounds. At a bound it drops records, or it makes the
// publisher wait for room. feed.mu guards it.
type backlog struct {
	bounds  bounds
	all     chain
	n       int
	devices map[string]*deviceBacklog
	last    uint64 // the order number of the newest item
	// changed is signalled when the consumer may find a record, and when it must stop.
	changed *sync.Cond
	// room is closed when the backlog as a whole has room again. The first publisher that waits
	// makes it.
	room chan struct{}
	// drained means that no more records will be added.
	drained bool
}

// bounds limit a backlog. A zero bound doesn't limit it.
type bounds struct {
	// coalesce is a number of waiting records. If that many wait, a new record replaces the older
	// ones of its device.
	coalesce int
	// At most device records of one device may wait, and at most total records in all.
	device, total int
	// bytes is the budget of the bytes of all waiting records; nil means no limit. An empty
	// backlog takes a record even if the budget is used up, so that each consumer makes progress.
	bytes *transports.Budget
	// drop means that the oldest records are dropped at a bound. Otherwise the publisher waits.
	drop bool
}

// deviceBacklog is the part of a backlog that belongs to one device.
type deviceBacklog struct {
	own  chain
	n    int
	room chan struct{} // like backlog.room
}

// item is one record in a backlog.
type item struct {
	record      record
	order       uint64
	redelivered bool // an earlier delivery of it was nacked

	all, own links // of backlog.all and of deviceBacklog.own
}

// newBacklog returns an empty backlog, which mu guards.
func newBacklog(b bounds, mu sync.Locker) *backlog {
	return &backlog{bounds: b, devices: map[string]*deviceBacklog{}, changed: sync.NewCond(mu)}
}

// checkRoom returns nil if a record of the device can be added now. Otherwise it returns a channel
// that is closed when the caller should try again.
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
			if b.bounds.bytes.Limit() > 0 {
				b.recheckRoom(b.room)
			}
		}
		return b.room
	}
	return nil
}

// recheckRoom checks for room at intervals until room is closed. The reason is the budget: its
// other users can give bytes back while this backlog's consumer takes nothing. Without the checks,
// a publisher could then wait too long.
func (b *backlog) recheckRoom(room chan struct{}) {
	time.AfterFunc(transports.RecheckTime, func() {
		b.changed.L.Lock()
		defer b.changed.L.Unlock()
		if b.room != room {
			return
		}
		if b.offerRoom(); b.room == room {
			b.recheckRoom(room)
		}
	})
}

// offerRoom wakes the publishers that wait for room once the backlog is at most half full and its
// budget isn't used up. So they have room for more than one record.
func (b *backlog) offerRoom() {
	if b.room != nil && (b.n <= b.bounds.total/2 || b.bounds.total == 0) && !b.overBudget() {
		close(b.room)
		b.room = nil
	}
}

// overBudget reports whether records wait and the budget of bytes is used up.
func (b *backlog) overBudget() bool { return b.n > 0 && b.bounds.bytes.Full() }

// addRecord appends r. It returns how many older records of the same device r replaced, and how
// many records were dropped at a bound.
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

// takeFirst removes and returns the first item. It returns nil if the backlog is empty.
func (b *backlog) takeFirst() *item {
	it := b.all.head
	if it != nil {
		b.removeItem(it)
	}
	return it
}

// insertItem inserts the item at the place that its order gives. A new item goes to the end, and a
// redelivered one near the front.
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

// removeItem removes the item and wakes the publishers that wait for room: see offerRoom.
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
	b.offerRoom()
	if d.n == 0 && d.room == nil {
		delete(b.devices, device)
	}
}

// discard returns the bytes to the budget and wakes all publishers that wait for room. The
// backlog's consumer is gone, so nothing is taken from it any more.
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
