package device

import (
	"testing"
	"testing/synctest"
	"time"
)

// interrupted is a connection whose process is interrupted each time that SilentFor is called.
type interrupted struct {
	*pipe
	heard     time.Time
	times     int
	took, off time.Duration // the length of the interruption, and when in it the silence is read
}

func (c *interrupted) SilentFor() time.Duration {
	if c.times == 0 {
		return time.Since(c.heard)
	}
	c.times--
	time.Sleep(c.off)
	silent := time.Since(c.heard)
	time.Sleep(c.took - c.off)
	return silent
}

// Whatever time passes between two looks at the clock, an epoch is of when the device was heard.
func TestTheDirectoryLooksAtTheClockOnce(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	d := NewDirectory(func() time.Time {
		now = now.Add(50 * time.Millisecond)
		return now
	})
	heard := now.Add(time.Minute)
	now = heard.Add(time.Second)
	if epoch, err := d.Claim(t.Context(), "a", heard); err != nil || epoch != uint64(heard.UnixMilli()) {
		t.Errorf("heard at %d, the epoch is %d, %v", heard.UnixMilli(), epoch, err)
	}
}

// The epoch is the time when the device was heard, even if the process is interrupted between
// reading the clock and reading the silence.
func TestAnEpochIsOfWhenTheDeviceWasHeard(t *testing.T) {
	for name, c := range map[string]*interrupted{
		"at once":                       {},
		"interrupted before the answer": {times: 3, took: 50 * time.Millisecond, off: 50 * time.Millisecond},
		"interrupted after the answer":  {times: 3, took: 50 * time.Millisecond},
		"interrupted at both":           {times: 19, took: 50 * time.Millisecond, off: 25 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := testRegistry(t, nil)
				time.Sleep(time.Minute)
				c.pipe, c.heard = newPipe(100), time.Now()
				time.Sleep(time.Second)
				if epoch := connect(t, r, "a", c).Epoch(); epoch != uint64(c.heard.UnixMilli()) {
					t.Errorf("heard at %d, the epoch is %d", c.heard.UnixMilli(), epoch)
				}
			})
		})
	}
}
