// Package bubble lets a program run code in a time of its own: inside a bubble the clock stands still while anything runs, and jumps to the
// next timer when everything waits. Timers, deadlines and time.Now of everybody's code, this module's or not, go by it, which no injected clock
// could do.
//
// It is testing/synctest, which only works under package testing; so [Main] has package testing run the program's main part. This is the one
// package beside tests that may import testing.
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

// In runs f in a bubble and returns when f and all goroutines that it started have ended. If they still run after patience of real time, or can
// never end, it returns an error and leaves them alone.
type In func(patience time.Duration, f func()) error

// ErrStuck is the kind of error of a bubble whose time doesn't pass: something in it waits for something outside, such as a connection or a process.
var ErrStuck = errors.New("virtual time stands still")

// ErrLeft is the kind of error of a bubble whose main function has returned while others wait for what can't come.
var ErrLeft = errors.New("something waits for ever")

// Main calls main, lends it bubbles, and ends the process with the code that it returns.
func Main(main func(in In) (code int)) {
	testing.Init()
	// What is on the command line is the program's own.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err)
	}
	all := func(string, string) (bool, error) { return true, nil }
	// testing.Main is kept for programs that are tests without "go test". It would print what it thinks of the outcome, so it isn't told.
	testing.Main(all, []testing.InternalTest{{Name: "main", F: func(t *testing.T) { os.Exit(main(Under(t))) }}}, nil, nil)
}

// Under lends bubbles to a test.
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
			return fmt.Errorf("%w: after %s it isn't over", ErrStuck, patience)
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

// Wait returns when everything else in the bubble waits. It is called inside one.
func Wait() { synctest.Wait() }
