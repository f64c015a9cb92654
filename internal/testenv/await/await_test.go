package await_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// failing is a test whose failure can be looked at.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

// failureOf returns with what words wait fails.
func failureOf(t *testing.T, wait func(t testing.TB)) (said string) {
	f := &failing{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(f) {
			panic(r)
		}
		said = f.said
	}()
	wait(f)
	return ""
}

func TestWhatComesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, values, done := time.Now(), make(chan int, 1), make(chan struct{})
		time.AfterFunc(await.Patience-time.Second, func() {
			values <- 7
			close(done)
		})
		await.That(t, "a minute has passed", func() (any, bool) { return nil, time.Since(begun) >= time.Minute })
		if v := await.Receive(t, "the value", values); v != 7 {
			t.Errorf("received %d", v)
		}
		await.Closed(t, "it is done", done)
	})
}

func TestAFailureSaysWhatWasWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		wait func(t testing.TB)
		long bool
		want string
	}{
		"a condition": {
			func(t testing.TB) { await.That(t, "the row is there", func() (any, bool) { return "2 rows", false }) },
			true, "looks until the row is there; the last state: 2 rows",
		},
		"a value": {
			func(t testing.TB) { await.Receive(t, "the result", make(chan int)) },
			true, "waited 2m0s for the result; the goroutines:\ngoroutine ",
		},
		"an end": {
			func(t testing.TB) { await.Closed(t, "it ends", make(chan int)) },
			true, "waited 2m0s until it ends; the goroutines:\ngoroutine ",
		},
		"the end where a value should come": {
			func(t testing.TB) {
				c := make(chan int)
				close(c)
				await.Receive(t, "the result", c)
			},
			false, "waited for the result, and the channel was closed",
		},
		"a value where the end should come": {
			func(t testing.TB) {
				c := make(chan int, 1)
				c <- 7
				await.Closed(t, "it ends", c)
			},
			false, "waited until it ends, and received 7",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				if said := failureOf(t, c.wait); !strings.Contains(said, c.want) {
					t.Errorf("said %q, want %q", said, c.want)
				}
				if took := time.Since(begun); c.long && (took < await.Patience || took > await.Patience+time.Second) || !c.long && took != 0 {
					t.Errorf("it waited %v", took)
				}
			})
		})
	}
}
