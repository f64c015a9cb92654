package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// world is everything that a run consists of.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	node    *testenv.Node
	url     string         // of the node's virtual host
	proxy   *testenv.Proxy // between host and broker
	host    *host
	fleet   *fleet
	backEnd *backEnd
	reader  *reader
	// stops and secondHosts are what the history has of them.
	stops       []Stop
	secondHosts []SecondHost
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
		w.memoryAlarm(true)
		pause(ctx, 3*time.Second)
		w.memoryAlarm(false)
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
		w.kill(f)
		pause(ctx, time.Duration(w.rng.IntN(1000))*time.Millisecond)
		w.host.start()
	}},
	{"ledger locked", func(ctx context.Context, w *world, _ *Fault) {
		unlock := w.lockLedger()
		pause(ctx, 7*time.Second) // longer than SQLite waits
		unlock()
	}},
	writeKill,
	ledgerKill,
	diskFull,
	diskFullStop,
	outage,
	outageRestart,
	outageStop,
	ledgerRemoved,
	ledgerReplaced,
	ledgerUnwritable,
	secondHost,
	unroutable,
	blockedKill,
	expiredCut,
	expiredKill,
	twice,
	{"host frozen", func(ctx context.Context, w *world, f *Fault) {
		f.Stood = true
		w.host.signal(syscall.SIGSTOP)
		pause(ctx, time.Duration(1+w.rng.IntN(6))*time.Second)
		w.host.signal(syscall.SIGCONT)
	}},
	stopped,
	{"devices don't read", func(ctx context.Context, w *world, f *Fault) { w.unread(ctx, f, 5) }},
	away,
	awayKill,
	heldKill,
	{"reconnect storm", func(_ context.Context, w *world, f *Fault) {
		all := w.fleet.some(w.rng, len(w.fleet.devices))
		f.Cut = names(all)
		for _, d := range all {
			d.reset()
		}
	}},
}

// away has half of the devices be away for a while, and come back all at once: what is held for them is then written.
var away = fault{"devices away", func(ctx context.Context, w *world, f *Fault) {
	back := w.absent(f)
	pause(ctx, 3*time.Second)
	back()
	pause(ctx, time.Second)
}}

// awayKill kills the host while much is held, and again while that is written.
var awayKill = fault{"devices away, host killed twice", func(ctx context.Context, w *world, f *Fault) {
	back := w.absent(f)
	pause(ctx, 2*time.Second)
	w.kill(f)
	w.host.start()
	pause(ctx, time.Second)
	back()
	pause(ctx, time.Duration(w.rng.IntN(300))*time.Millisecond)
	w.kill(f)
	f.InFlight *= 2
	w.host.start()
}}

// heldKill kills the host when nothing of what it says comes to the broker: at first what it holds, so that the broker delivers that again, and then
// what was written when the devices came back.
var heldKill = fault{"devices away, host killed twice, out of the broker's reach", func(ctx context.Context, w *world, f *Fault) {
	f.Stood = true
	back := w.absent(f)
	pause(ctx, time.Second)
	w.host.signal(syscall.SIGSTOP)
	pause(ctx, time.Second) // commands pile up
	w.proxy.Silence()
	w.host.signal(syscall.SIGCONT)
	pause(ctx, time.Second)
	w.killUnheard(f)
	w.until("the host is ready", w.host.ready)
	pause(ctx, time.Second)
	w.proxy.Silence()
	back()
	pause(ctx, time.Second)
	w.killUnheard(f)
	f.InFlight *= 2
}}

// killUnheard kills the host and starts it again. What it said into a silence isn't heard later.
func (w *world) killUnheard(f *Fault) {
	w.kill(f)
	w.proxy.Cut()
	w.proxy.Up()
	w.host.start()
}

// unread has so many devices not read for a while.
func (w *world) unread(ctx context.Context, f *Fault, n int) {
	f.Stood = true
	for _, d := range w.fleet.some(w.rng, n) {
		defer d.hold()()
	}
	pause(ctx, 4*time.Second)
}

// absent has half of the devices leave.
func (w *world) absent(f *Fault) (back func()) {
	gone := w.fleet.some(w.rng, len(w.fleet.devices)/2)
	f.Cut = names(gone)
	var all []func()
	for _, d := range gone {
		all = append(all, d.leave())
	}
	return func() {
		for _, back := range all {
			back()
		}
	}
}

var stopped = fault{"host stopped", func(_ context.Context, w *world, _ *Fault) {
	w.stop()
	w.host.start()
}}

var unroutable = fault{"results unroutable", func(ctx context.Context, w *world, _ *Fault) {
	w.routeResults(false)
	pause(ctx, 2*time.Second)
	w.routeResults(true)
}}

var twice = fault{"devices come twice", func(ctx context.Context, w *world, _ *Fault) {
	for _, d := range w.fleet.some(w.rng, len(w.fleet.devices)/4) {
		_ = w.fleet.dial(ctx, d) // the host may be away
	}
}}

// ledgerKill kills the host while what it has in flight waits for its ledger.
var ledgerKill = fault{"host killed, its ledger locked", func(ctx context.Context, w *world, f *Fault) {
	unlock := w.lockLedger()
	pause(ctx, time.Second)
	w.kill(f)
	unlock()
	w.startDevicesFirst(ctx)
}}

// blockedKill kills the host while it has results that the broker doesn't take, though it hands out commands.
var blockedKill = fault{"host killed, its results blocked", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.kill(f)
	unblock()
	w.host.start()
}}

// blockResults has the host have results that the broker doesn't take, until unblock.
func (w *world) blockResults(ctx context.Context, f *Fault) (unblock func()) {
	f.Stood = true
	w.host.signal(syscall.SIGSTOP)
	pause(ctx, time.Second) // commands pile up
	w.memoryAlarm(true)
	w.host.signal(syscall.SIGCONT)
	pause(ctx, time.Second)
	return func() { w.memoryAlarm(false) }
}

// expiredCut has commands expire at the broker that the host has, and whose results it can't publish.
var expiredCut = fault{"commands expire at the broker, out of the host's reach", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.proxy.Down()
	unblock()
	pause(ctx, longestExpiration)
	w.proxy.Up()
	w.awaitAbandoned(ctx)
}}

// expiredKill is expiredCut with a host that is killed: it has to find in its ledger what it was
// doing, as the broker doesn't deliver it again.
var expiredKill = fault{"commands expire at the broker, host killed", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.kill(f)
	w.proxy.Down()
	unblock()
	pause(ctx, longestExpiration)
	w.startDevicesFirst(ctx)
	w.awaitAbandoned(ctx)
}}

// awaitAbandoned gives the host the time to answer what the broker doesn't deliver again.
func (w *world) awaitAbandoned(ctx context.Context) {
	w.until("the host is ready", w.host.ready)
	pause(ctx, 2*begunTimeout)
}

// memoryAlarm makes the broker believe that it has no memory, so that it takes nothing from publishers, or ends that.
func (w *world) memoryAlarm(on bool) {
	limit := "0.4"
	if on {
		limit = "0.00001"
	}
	w.node.Ctl(w.t, "set_vm_memory_high_watermark", limit)
}

// startDevicesFirst starts the host so that the broker gives it what was in flight only when the devices are back: then it is written again.
func (w *world) startDevicesFirst(ctx context.Context) {
	w.proxy.Down()
	w.host.start()
	for end := time.Now().Add(5 * time.Second); len(w.fleet.online()) < len(w.fleet.devices) && time.Now().Before(end); {
		pause(ctx, 20*time.Millisecond)
	}
	w.proxy.Up()
}

func (w *world) kill(f *Fault) {
	f.Killed, f.InFlight, f.Cut = true, prefetch+prefetch/2, names(w.fleet.devices)
	w.host.kill()
}

// lockLedger keeps the host from writing to its ledger, as somebody does who looks into it with a tool, until unlock. It does so at a moment
// when a command is being written.
func (w *world) lockLedger() (unlock func()) {
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_txlock=immediate", w.host.store, await.Patience.Milliseconds()))
	if err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		tx, err := db.Begin()
		if err != nil {
			w.t.Fatalf("locking the ledger: %v", err)
		}
		var writing int
		if err := tx.QueryRow("SELECT count(*) FROM ledger WHERE state = 1").Scan(&writing); err != nil {
			w.t.Errorf("reading the ledger: %v", err)
		}
		if writing > 0 || time.Now().After(end) {
			return func() {
				if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
					w.t.Errorf("unlocking the ledger: %v", err)
				}
			}
		}
		if err := tx.Rollback(); err != nil {
			w.t.Errorf("unlocking the ledger: %v", err)
		}
	}
}

// routeResults opens or shuts the ways from the exchange of the results to its queues. No result goes only to the queue that isn't
// judged.
func (w *world) routeResults(on bool) {
	conn, err := amqp.Dial(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		w.t.Fatal(err)
	}
	queues := []string{groupResults, results}
	if on {
		slices.Reverse(queues)
	}
	for _, queue := range queues {
		if on {
			err = ch.QueueBind(queue, "#", "device.results", false, nil)
		} else {
			err = ch.QueueUnbind(queue, "#", "device.results", nil)
		}
		if err != nil {
			w.t.Fatalf("the binding of the results: %v", err)
		}
	}
}
