package device

import (
	"context"
	"sync"
	"time"
)

// rememberTime is the age at which a released epoch is forgotten. An epoch is a time, so it has an
// age. Claim subtracts the device's silence from the clock, but at most rememberTime. So an epoch
// that Claim returns later is greater than a forgotten one.
const rememberTime = 5 * time.Minute

// NewDirectory returns a directory in memory, for a host that works alone. An epoch is the time of
// the device's last sign of life, in Unix milliseconds, and no earlier than the creation of the
// directory. So epochs grow over restarts although they aren't stored.
func NewDirectory(now func() time.Time) Directory {
	return &memoryDirectory{now: now, born: uint64(now().UnixMilli()), last: map[string]uint64{}}
}

// memoryDirectory computes epochs from the clock. It remembers a device's last epoch until every
// epoch from the clock is greater (see rememberTime).
type memoryDirectory struct {
	now  func() time.Time
	born uint64 // the least epoch

	mu       sync.Mutex
	latest   uint64 // the latest time that the clock has shown; the clock may be set back
	last     map[string]uint64
	released []claim // in the order of their release
}

type claim struct {
	device string
	epoch  uint64
}

func (d *memoryDirectory) Claim(_ context.Context, device string, heard time.Time) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.forgetReleased(now)
	silent := max(0, min(now.Sub(heard), rememberTime))
	at := d.latest - min(d.latest, uint64(silent.Milliseconds()))
	epoch := max(d.last[device]+1, d.born, at)
	d.last[device] = epoch
	return epoch, nil
}

func (d *memoryDirectory) IsNewest(device string, epoch uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last[device] == epoch
}

func (d *memoryDirectory) Release(_ context.Context, device string, epoch uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last[device] == epoch {
		d.released = append(d.released, claim{device, epoch})
	}
	d.forgetReleased(d.now())
	return nil
}

// forgetReleased forgets the released epochs that are more than rememberTime before the clock.
func (d *memoryDirectory) forgetReleased(now time.Time) {
	d.latest = max(d.latest, uint64(now.UnixMilli()))
	n := 0
	for n < len(d.released) && d.released[n].epoch+uint64(rememberTime.Milliseconds()) < d.latest {
		if c := d.released[n]; d.last[c.device] == c.epoch {
			delete(d.last, c.device)
		}
		n++
	}
	d.released = d.released[n:]
	if len(d.released) == 0 {
		d.released = nil
	}
}
