package schedule

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports"
)

func TestCron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's time begins at 2000-01-01, 00:00 UTC
		out := consume(t, build(t, TopicConfig{Cron: "30 4,16 * * *", Zone: "Europe/Berlin", Payload: "{time} {n}"}, nil))
		for i, due := range []string{"2000-01-01T03:30:00Z", "2000-01-01T15:30:00Z", "2000-01-02T03:30:00Z"} {
			msg := <-out
			want(t, msg, fmt.Sprintf("%s %d", due, i+1), "0")
			if now := time.Now().UTC().Format(time.RFC3339Nano); now != due {
				t.Errorf("it came at %s, want %s", now, due)
			}
			msg.Ack()
		}
	})
}

// TestCronOverSummerTime checks that a daily tick comes once, at the right time, on the days on
// which the clock changes.
func TestCronOverSummerTime(t *testing.T) {
	for name, c := range map[string]struct {
		from time.Time
		want []string
	}{
		"forward": {time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), []string{"2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		"back":    {time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC), []string{"2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				off := ahead(time.Until(c.from))
				out := consume(t, build(t, TopicConfig{Cron: "30 2 * * *", Zone: "Europe/Berlin", Payload: "{time}"}, off))
				for _, due := range c.want {
					msg := <-out
					want(t, msg, due, "0")
					if now := time.Now().Add(time.Duration(off.Load())).UTC().Format(time.RFC3339); now != due {
						t.Errorf("it came at %s, want %s", now, due)
					}
					msg.Ack()
				}
			})
		})
	}
}

// TestClockIsSet sets the wall clock before a tick of 04:00 is due, or just after it.
func TestClockIsSet(t *testing.T) {
	for _, c := range []struct {
		name   string
		at     time.Duration // when it is set, in the bubble's time
		by     time.Duration
		want   string        // the next tick
		in     time.Duration // the longest time until it comes
		missed string
	}{
		{"forward, before it", 3 * time.Hour, 30 * time.Minute, "2000-01-01T04:00:00Z", 30 * time.Minute, "0"},
		{"back, before it", 3 * time.Hour, -2 * time.Hour, "2000-01-01T04:00:00Z", 3 * time.Hour, "0"},
		{"forward over it by little", 4*time.Hour - 10*time.Second, 30 * time.Second, "2000-01-01T04:00:00Z", time.Minute, "0"},
		{"forward over it by much", 3 * time.Hour, 3 * time.Hour, "2000-01-02T04:00:00Z", 22 * time.Hour, "1"},
		{"forward by years", 3 * time.Hour, 26 * 366 * 24 * time.Hour, "2026-01-20T04:00:00Z", 24 * time.Hour, "1"},
		{"back over it by little", 4*time.Hour + 10*time.Second, -30 * time.Second, "2000-01-02T04:00:00Z", 24*time.Hour + time.Minute, "0"},
		{"back over it by much", 4*time.Hour + 10*time.Second, -30 * time.Minute, "2000-01-01T04:00:00Z", 30 * time.Minute, "0"},
		{"back by years", 4*time.Hour + 10*time.Second, -26 * 366 * 24 * time.Hour, "1973-12-13T04:00:00Z", 24 * time.Hour, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				off := ahead(0)
				k := build(t, TopicConfig{Cron: "0 4 * * *", Payload: "{time}"}, off)
				out := consume(t, k)
				if c.at > 4*time.Hour {
					msg := <-out
					want(t, msg, "2000-01-01T04:00:00Z", "0")
					msg.Ack()
				}
				time.Sleep(c.at - time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
				synctest.Wait()
				off.Store(int64(c.by))
				begun := time.Now()
				msg := <-out
				want(t, msg, c.want, c.missed)
				if took := time.Since(begun); took > c.in {
					t.Errorf("it came after %s, want at most %s", took, c.in)
				}
				msg.Ack()
				next := <-out
				if took := time.Since(begun); took < 24*time.Hour-maxCorrection {
					t.Errorf("another one came after %s", took)
				}
				want(t, next, msgDay(t, msg, 1), "0")
				next.Ack()
			})
		})
	}
}

// msgDay returns the time when a tick is due, the given number of days after another.
func msgDay(t *testing.T, msg *message.Message, days int) string {
	t.Helper()
	due, err := time.Parse(time.RFC3339, string(msg.Payload))
	if err != nil {
		t.Fatal(err)
	}
	return due.AddDate(0, 0, days).Format(time.RFC3339)
}

// TestIntervalTellsTheTimeThatIs checks that an interval continues when the clock is set, and that
// its ticks have the new time.
func TestIntervalTellsTheTimeThatIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, off := time.Now(), ahead(0)
		out := consume(t, build(t, TopicConfig{Every: time.Minute, Payload: "{time}"}, off))
		for _, c := range []struct {
			by   time.Duration
			want string
		}{
			{0, "2000-01-01T00:01:00Z"},
			{48 * time.Hour, "2000-01-03T00:02:00Z"},
			{-24 * time.Hour, "1999-12-31T00:03:00Z"},
		} {
			off.Store(int64(c.by))
			msg := <-out
			want(t, msg, c.want, "0")
			msg.Ack()
			synctest.Wait()
		}
		if gone := time.Since(begun); gone != 3*time.Minute {
			t.Errorf("three ticks took %s", gone)
		}
	})
}

// TestStoodStill calls an interval too late, as after the process was stopped.
func TestStoodStill(t *testing.T) {
	for _, c := range []struct {
		name          string
		every, asleep time.Duration
		passed        int
		ok            bool
		late, next    time.Duration
	}{
		{"in time", 10 * time.Second, 10 * time.Second, 0, true, 0, 10 * time.Second},
		{"a little late", 10 * time.Second, 12 * time.Second, 0, true, 2 * time.Second, 8 * time.Second},
		{"over several", 10 * time.Second, 47 * time.Second, 3, true, 7 * time.Second, 3 * time.Second},
		{"hours over short ones", 10 * time.Second, time.Hour + time.Second, 359, true, time.Second, 9 * time.Second},
		{"too late for a long one", time.Hour, time.Hour + maxCorrection + 1, 1, false, 0, time.Hour - maxCorrection - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &interval{every: c.every, now: time.Now}
				r.start()
				time.Sleep(c.asleep)
				due, passed, ok := r.advance(0)
				if passed != c.passed || ok != c.ok {
					t.Errorf("%d passed over, ok %v, want %d and %v", passed, ok, c.passed, c.ok)
				}
				if ok && time.Since(due) != c.late {
					t.Errorf("due %s ago, want %s", time.Since(due), c.late)
				}
				if got := r.untilDue(); got != c.next {
					t.Errorf("the next is due in %s, want %s", got, c.next)
				}
			})
		})
	}
}

// bubble runs a property in its own synctest bubble. A failed check panics. bubble passes the
// panic out of the bubble, so that rapid sees it. Rapid distinguishes panics by their place in the
// code. So the panic of a draw that ran out of data is raised at a place of its own.
func bubble(t *testing.T, property func(t *testing.T, rt *rapid.T)) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			property(t, rt)
		})
		switch {
		case fmt.Sprintf("%T", failure) == "rapid.invalidData":
			panic(failure)
		case failure != nil:
			panic(failure)
		}
	})
}

// TestJitter checks that each tick comes at most the jitter after its due time, in order, and that
// the delays don't add up.
func TestJitter(t *testing.T) {
	bubble(t, func(t *testing.T, rt *rapid.T) {
		begun := time.Now()
		every := time.Duration(rapid.IntRange(20, 5000).Draw(rt, "every")) * time.Millisecond
		jitter := rapid.Custom(func(rt *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(1, int64(every)-1).Draw(rt, "nanoseconds"))
		}).Draw(rt, "jitter")
		atStart := rapid.Bool().Draw(rt, "at_start")
		out := consume(t, build(t, TopicConfig{Every: every, Jitter: jitter, AtStart: atStart}, nil))
		n := 1
		if atStart {
			n = 0
		}
		for ; n < 20; n++ {
			msg := <-out
			due := begun.Add(time.Duration(n) * every)
			if late := time.Since(due); late < 0 || late > jitter {
				rt.Fatalf("tick %d came %s after its time, want from 0 to %s", n, late, jitter)
			}
			if told := msg.Metadata[transports.Timestamp]; told != due.UTC().Format(time.RFC3339Nano) {
				rt.Fatalf("tick %d says that it was due at %s, want %s", n, told, due)
			}
			msg.Ack()
		}
	})
}

// TestJitterOfCron checks that a delayed tick has its due time, and doesn't delay the next one.
func TestJitterOfCron(t *testing.T) {
	bubble(t, func(t *testing.T, rt *rapid.T) {
		jitter := time.Duration(rapid.IntRange(1, 59).Draw(rt, "minutes")) * time.Minute
		out := consume(t, build(t, TopicConfig{Cron: "@hourly", Jitter: jitter}, nil))
		for n := 1; n < 10; n++ {
			msg := <-out
			due := time.Date(2000, 1, 1, n, 0, 0, 0, time.UTC)
			if late := time.Since(due); late < 0 || late > jitter || msg.Metadata[dueKey] != due.Format(time.RFC3339Nano) {
				rt.Fatalf("tick %d, due at %s, came %s late, want from 0 to %s", n, msg.Metadata[dueKey], late, jitter)
			}
			msg.Ack()
		}
	})
}
