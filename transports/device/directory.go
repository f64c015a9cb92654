package device

import (
	"context"
	"sync"
	"time"
)

// remembered is how long after its clock has passed it a device's last epoch is remembered, and how long a device may have been silent.
const rememberTime = 5 * time.Minute

// NewDirectory returns the directory of a host that is alone: it lives in memory. An epoch is the time of the device's last sign of life in the clock's
// Unix milliseconds and not before the directory's own beginning, so epochs keep growing over restarts without being stored.
func NewDirectory(now func() time.Time) Directory {
	return &memoryDirectory{now: now, born: uint64(now().UnixMilli()), last: map[string]uint64{}}
}

// memoryDirectory remembers a device's last epoch only as long as the clock alone couldn't be trusted to give a greater one.
type memoryDirectory struct {
	now  func() time.Time
	born uint64

	mu       sync.Mutex
	latest   uint64 // the latest that the clock ever said, should it be set back
	last     map[string]uint64
	released []claim // in the order of release
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

func (d *memoryDirectory) Release(_ context.Context, device string, epoch uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last[device] == epoch {
		d.released = append(d.released, claim{device, epoch})
	}
	d.forgetReleased(d.now())
	return nil
}

// forget drops released devices whose epoch the clock has passed for long enough.
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
