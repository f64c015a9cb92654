package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// registrations is how many devices register while it is calm.
const registrations = 20_000

// BenchmarkRegistering has devices register for which nothing is held, and reports what they pay
// for that something might be: the time from before deliver's hold hears of a device until it is
// done with it, waiting for locks included. Busy is while 100,000 commands for 10,000 others are
// being held, calm is when they are held. The connections are made of nothing, so that all of it
// is the host's.
func BenchmarkRegistering(b *testing.B) {
	defer calmCollector()()
	for b.Loop() {
		feed := &payFeed{}
		var begun time.Time
		var took []time.Duration
		early := &watchHandler{watch: func(string) { begun = time.Now() }}
		feed.watch = func(string) { took = append(took, time.Since(begun)) }
		h := startHoldingHost(b, filepath.Join(b.TempDir(), "host.db"), freeAddress(b), early, feed)
		report := func(name string) {
			slices.Sort(took)
			var sum time.Duration
			for _, t := range took {
				sum += t
			}
			b.ReportMetric(float64(sum.Nanoseconds())/1e3/float64(len(took)), name+"-us")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, name+"-p99-us")
			b.Logf("%s: %d registrations, mean %s, median %s, p99 %s, worst %s", name, len(took), sum/time.Duration(len(took)), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			took = took[:0]
		}
		registry := early.devices.(*device.Registry)
		register := func(i int) {
			name := fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
			session, err := registry.Connect(context.Background(), name, name, nowhere{}, nil)
			must(b, err)
			session.End(device.ClientClosed)
		}

		done := make(chan struct{})
		var feeding sync.WaitGroup
		feeding.Go(func() {
			defer close(done)
			for i := range holdCommands {
				if err := feed.publish.Publish("", message.NewMessage(benchID(i), holdCommand(i))); err != nil {
					b.Error(err)
					return
				}
			}
			h.await(holdCommands, func() bool { return true })
		})
		pause := time.NewTicker(100 * time.Microsecond)
		defer pause.Stop()
		for i, busy := 0, true; busy; i++ {
			register(i)
			select {
			case <-pause.C:
			case <-done:
				busy = false
			}
		}
		feeding.Wait()
		report("busy")
		for i := range registrations {
			register(i)
		}
		report("calm")
		h.stop()
	}
}

// payFeed feeds commands, and watches devices after deliver does.
type payFeed struct {
	watchHandler
	feedHandler
}

func (h *payFeed) New(env handlers.Env) (handlers.Handler, error) {
	if _, err := h.watchHandler.New(env); err != nil {
		return nil, err
	}
	return h.feedHandler.New(env)
}

// nowhere is a connection that takes everything.
type nowhere struct{}

func (nowhere) TryWrite(p []byte) (taken, begun int, err error) { return len(p), len(p), nil }
func (nowhere) WaitWritable(time.Time) error                    { return nil }
func (nowhere) Gone() bool                                      { return false }
func (nowhere) Unread() bool                                    { return false }
func (nowhere) SilentFor() time.Duration                        { return 0 }
func (nowhere) Close() error                                    { return nil }
func (nowhere) Heard() bool                                     { return true }
func (nowhere) Authenticated() bool                             { return false }
func (nowhere) Probe()                                          {}
func (nowhere) LastRead() time.Time                             { return time.Time{} }
