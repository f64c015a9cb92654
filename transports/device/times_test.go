package device

import (
	"testing"
	"testing/synctest"
	"time"
)

// The kernel takes the first byte after 2 s and the last after 3 s. The device answers after 3.5
// s.
func TestTimes(t *testing.T) {
	askingDevice(t, func(a *asking) {
		a.pipe.mu.Lock()
		a.pipe.room = 0
		a.pipe.mu.Unlock()
		var times Times
		o := next(5 * time.Second)
		o.Times = &times
		ended := a.ask("question", o)
		pause := func(d time.Duration, f func()) {
			time.Sleep(d)
			f()
			synctest.Wait()
		}
		pause(2*time.Second, func() { a.pipe.grant(3) })
		pause(time.Second, func() { a.pipe.grant(100) })
		pause(500*time.Millisecond, func() { a.says("answer") })
		a.ends(ended, Answered, "answer", "")
		for what, c := range map[string]struct {
			at   time.Time
			want time.Duration
		}{
			"begun": {times.Begun, 2 * time.Second}, "written": {times.Written, 3 * time.Second}, "answered": {times.Answered, 3500 * time.Millisecond},
		} {
			if got := c.at.Sub(a.begun); got != c.want {
				t.Errorf("%s after %s, want %s", what, got, c.want)
			}
		}
	})
}

// What it doesn't come to has no time.
func TestTimesOfTheUnwritten(t *testing.T) {
	askingDevice(t, func(a *asking) {
		var first, second Times
		o := next(time.Second)
		o.Times = &first
		unanswered := a.ask("question", o)
		waiting := a.ask("waits", EnqueueOptions{Times: &second, Expires: time.Now().Add(500 * time.Millisecond)})
		time.Sleep(time.Second)
		a.ends(unanswered, NoReply, "", "no answer")
		a.ends(waiting, Expired, "", "")
		if first.Written.IsZero() || !first.Answered.IsZero() {
			t.Errorf("a question without an answer: %+v", first)
		}
		if second != (Times{}) {
			t.Errorf("a frame that was not written: %+v", second)
		}
	})
}
