// Package await is how tests wait: for a condition, never for a number of milliseconds.
//
//	await.That(t, "the host is ready", func() (any, bool) {
//		err := ready()
//		return err, err == nil
//	})
//	msg := await.Receive(t, "the result", results)
//
// A test that waits in vain fails, and says what it waited for, for how long, and the last state
// that it saw.
package await

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Patience is how long a test waits. Only a failing test spends it, so it is long enough for a
// machine that is busy with other work.
const Patience = 2 * time.Minute

// The pauses between two looks at a condition. They grow, and each is at least as long as a look
// takes. So waiting leaves the CPU to the work that the test waits for.
const (
	firstPause = time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// Pause returns the pause after a look. look is how long that look took, and last is the pause
// before it.
func Pause(last, look time.Duration) time.Duration {
	return max(firstPause, min(2*last, lastPause), look)
}

// That calls look until it returns true. If the wait fails, the test's output has the last state
// that look returned.
func That(t testing.TB, what string, look func() (state any, ok bool)) {
	t.Helper()
	begun := time.Now()
	for looks, pause := 1, time.Duration(0); ; looks++ {
		looked := time.Now()
		state, ok := look()
		if ok {
			return
		}
		if took := time.Since(begun); took > Patience {
			t.Fatalf("waited %s in %d looks until %s; the last state: %v", took.Round(time.Millisecond), looks, what, state)
		}
		pause = Pause(pause, time.Since(looked))
		time.Sleep(pause)
	}
}

// Receive returns the next value of c. It fails the test if c is closed, or nothing comes.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	v, ok := receive(t, "for "+what, c)
	if !ok {
		t.Fatalf("waited for %s, and the channel was closed", what)
	}
	return v
}

// Closed waits until c is closed. It fails the test if a value comes instead, or if c stays open.
func Closed[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	if v, ok := receive(t, "until "+what, c); ok {
		t.Fatalf("waited until %s, and received %v", what, v)
	}
}

// Main runs a package's tests, and fails if goroutines are left that don't end. Call it from
// TestMain. goleak alone waits only half a second for goroutines to end.
func Main(m *testing.M, options ...goleak.Option) { os.Exit(Run(m, options...)) }

// Run is Main for a TestMain that has more to do before the program exits with the code.
func Run(m *testing.M, options ...goleak.Option) (code int) {
	if code = m.Run(); code != 0 {
		return code
	}
	if err := noGoroutines(options...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func noGoroutines(options ...goleak.Option) error {
	for begun := time.Now(); ; {
		err := goleak.Find(options...)
		if err == nil {
			return nil
		}
		if took := time.Since(begun); took > Patience {
			return fmt.Errorf("waited %s until all goroutines ended: %w", took.Round(time.Millisecond), err)
		}
	}
}

// receive fails with the stacks of all goroutines, because they show why nothing was sent.
func receive[T any](t testing.TB, what string, c <-chan T) (v T, ok bool) {
	t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	select {
	case v, ok = <-c:
	case <-late.C:
		t.Fatalf("waited %s %s; the goroutines:\n%s", Patience, what, stacks())
	}
	return v, ok
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return bytes.TrimSpace(buf[:runtime.Stack(buf, true)])
}
