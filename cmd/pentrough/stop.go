package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/router"
)

// stopNotice is how long a stop may take before the host logs what it waits for.
const stopNotice = 2 * time.Second

// stop stops the host within shutdown_timeout, or returns what kept it from stopping cleanly.
func (r *run) stop(ctx context.Context, host *router.Host) error {
	timeout := r.config.Host.ShutdownTimeout
	r.log.Info("stopping; a second signal ends it at once", "timeout", timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-time.After(stopNotice):
			r.log.Warn("still stopping; a second signal ends it at once", "timeout", timeout, "waiting_for", r.waitingFor(host))
		case <-ended:
		}
	})
	err := errors.Join(r.stopHost(ctx, host), r.ledger.Close(ctx))
	close(ended)
	watching.Wait()
	if err == nil {
		r.log.Info("stopped")
		return nil
	}
	return uncleanStop(timeout, err)
}

// waitingFor describes the parts that keep the host from stopping, and why.
func (r *run) waitingFor(host *router.Host) string {
	var all []string
	if err := r.ledger.Health(); err != nil {
		all = append(all, fmt.Sprintf("the ledger: %v", err))
	}
	for _, h := range host.Health() {
		if h.Err != nil && strings.HasPrefix(h.Name, "pipeline ") {
			all = append(all, fmt.Sprintf("%s: %v", h.Name, h.Err))
		}
	}
	if len(all) == 0 {
		return "messages that are being handled"
	}
	return strings.Join(all, "; ")
}

// uncleanStop returns the error of a stop that wasn't clean. It has a line for each thing that was
// left.
func uncleanStop(timeout time.Duration, left error) error {
	lines := strings.ReplaceAll(left.Error(), "\n", "\n  ")
	err := fmt.Errorf("the stop wasn't clean within %s:\n  %s", timeout, lines)
	return &codedError{code: exitUnclean, err: advise(err,
		"start the host again (exit code %d tells a supervisor to do so); the broker redelivers unsettled messages\n"+
			"shutdown_timeout in [host] gives a stop more time; /readyz of a running host says what doesn't work", exitUnclean)}
}

// forceExit ends the process at once.
func (r *run) forceExit() {
	const why = "a second signal ended the host; the broker redelivers unsettled messages"
	if log := r.jsonLog.Load(); log != nil {
		log.Error(why)
	} else {
		fmt.Fprintln(r.errOut, "pentrough:", why)
	}
	os.Exit(exitForced)
}

// onSignals calls stop at the first SIGINT or SIGTERM and force at the second. The returned
// function removes the signal handler.
func onSignals(stop, force func()) (end func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	quit := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for _, act := range []func(){stop, force} {
			select {
			case <-signals:
				act()
			case <-quit:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(quit)
		watcher.Wait()
	}
}
