// Package bubble runs code with virtual time. Inside a bubble the clock stands still while any
// goroutine runs. When all goroutines wait, it jumps to the next timer. This applies to the
// timers, deadlines and time.Now of all code. An injected clock couldn't reach the code of other
// modules.
//
// The package uses testing/synctest, which needs package testing. So [Main] lets package testing
// run the main part of the program. Only this package and tests may import testing.
package bubble

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// In runs f in a bubble and returns when f and all its goroutines have ended. If they still run
// after patience of real time, or can never end, it returns an error and doesn't wait for them.
type In func(patience time.Duration, f func()) error

// ErrStuck is the kind of error of a bubble whose time doesn't pass, because a goroutine waits for
// something outside, such as a connection or a process.
var ErrStuck = errors.New("virtual time stands still")

// ErrLeft is the kind of error of a bubble whose main function has returned while other goroutines
// wait for ever.
var ErrLeft = errors.New("a goroutine waits for ever")

// Main calls main with a function that runs code in a bubble. It ends the process with the exit
// code that main returns.
func Main(main func(in In) (code int)) {
	testing.Init()
	// The flags on the command line belong to the program, not to package testing.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err)
	}
	all := func(string, string) (bool, error) { return true, nil }
	// testing.Main lets a program run tests without "go test". The exit code is set here, so
	// testing.Main never sees a failure that it would print.
	testing.Main(all, []testing.InternalTest{{Name: "main", F: func(t *testing.T) { os.Exit(main(Under(t))) }}}, nil, nil)
}

// Under returns an In for a test.
func Under(t *testing.T) In {
	return func(patience time.Duration, f func()) error {
		ended := make(chan error, 1)
		go func() { ended <- run(t, f) }()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case err := <-ended:
			return err
		case <-timer.C:
			return fmt.Errorf("%w: the code didn't end within %s", ErrStuck, patience)
		}
	}
}

func run(t *testing.T, f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", ErrLeft, v)
		}
	}()
	synctest.Test(t, func(*testing.T) { f() })
	return nil
}

// Wait returns when all other goroutines of the bubble wait. Call it inside a bubble.
func Wait() { synctest.Wait() }
