package chaos

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
)

// world is everything that a run consists of.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	node    *testenv.Node
	proxy   *testenv.Proxy // between host and broker
	host    *host
	fleet   *fleet
	backEnd *backEnd
	reader  *reader
}

// fault is something that happens to a world. do returns when it is over; f may be added to.
type fault struct {
	name string
	do   func(ctx context.Context, w *world, f *Fault)
}

// faults are all that a run draws from.
var faults = []fault{
	{"broker killed", func(_ context.Context, w *world, _ *Fault) {
		w.node.Kill(w.t)
		w.node.Start(w.t)
	}},
	{"broker restarted", func(_ context.Context, w *world, _ *Fault) { w.node.Restart(w.t) }},
	{"all connections closed", func(_ context.Context, w *world, _ *Fault) {
		w.node.Ctl(w.t, "close_all_connections", "chaos")
	}},
	{"memory alarm", func(ctx context.Context, w *world, _ *Fault) {
		w.node.Ctl(w.t, "set_vm_memory_high_watermark", "0.00001")
		pause(ctx, 3*time.Second)
		w.node.Ctl(w.t, "set_vm_memory_high_watermark", "0.4")
	}},
	{"partition", func(ctx context.Context, w *world, _ *Fault) {
		w.proxy.Stall()
		pause(ctx, time.Duration(2+w.rng.IntN(8))*time.Second)
		w.proxy.Up()
	}},
	{"broker half-open", func(ctx context.Context, w *world, _ *Fault) {
		w.proxy.Silence()
		pause(ctx, 6*time.Second)
		w.proxy.Cut()
		w.proxy.Up()
	}},
	{"host killed", func(ctx context.Context, w *world, f *Fault) {
		f.Killed, f.InFlight, f.Cut = true, prefetch, names(w.fleet.devices)
		w.host.kill()
		pause(ctx, time.Duration(w.rng.IntN(1000))*time.Millisecond)
		w.host.start()
	}},
	{"host frozen", func(ctx context.Context, w *world, _ *Fault) {
		w.host.signal(syscall.SIGSTOP)
		pause(ctx, time.Duration(1+w.rng.IntN(6))*time.Second)
		w.host.signal(syscall.SIGCONT)
	}},
	{"host stopped", func(_ context.Context, w *world, _ *Fault) {
		if err := w.host.stop(); err != nil {
			w.t.Errorf("an orderly stop: %v", err)
		}
		w.host.start()
	}},
	{"devices don't read", func(ctx context.Context, w *world, _ *Fault) {
		for _, d := range w.fleet.some(w.rng, 5) {
			defer d.hold()()
		}
		pause(ctx, 4*time.Second)
	}},
	{"reconnect storm", func(_ context.Context, w *world, f *Fault) {
		all := w.fleet.some(w.rng, len(w.fleet.devices))
		f.Cut = names(all)
		for _, d := range all {
			d.reset()
		}
	}},
}
