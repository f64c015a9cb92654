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

// world has everything that a run needs.
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
	// stops and secondHosts are for the history.
	stops       []Stop
	secondHosts []SecondHost
}

// fault is something that happens to a world. do returns when it is over, and may add facts to f.
type fault struct {
	name string
	do   func(ctx context.Context, w *world, f *Fault)
}

// faults are all faults from which a run draws.
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
		w.killHost(f)
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
	secondConnections,
	{"host frozen", func(ctx context.Context, w *world, f *Fault) {
		f.Frozen = true
		w.host.signal(syscall.SIGSTOP)
		pause(ctx, time.Duration(1+w.rng.IntN(6))*time.Second)
		w.host.signal(syscall.SIGCONT)
	}},
	hostStopped,
	{"devices don't read", func(ctx context.Context, w *world, f *Fault) { w.stopReading(ctx, f, 5) }},
	devicesOffline,
	devicesOfflineKill,
	heldKill,
	{"reconnect storm", func(_ context.Context, w *world, f *Fault) {
		all := w.fleet.drawDevices(w.rng, len(w.fleet.devices))
		f.Cut = addressesOf(all)
		for _, d := range all {
			d.reset()
		}
	}},
}

// devicesOffline disconnects half of the devices for a while. They reconnect all at once, and get
// their held commands then.
var devicesOffline = fault{"devices offline", func(ctx context.Context, w *world, f *Fault) {
	back := w.disconnectHalf(f)
	pause(ctx, 3*time.Second)
	back()
	pause(ctx, time.Second)
}}

// devicesOfflineKill kills the host while many commands are held, and again while these are
// written.
var devicesOfflineKill = fault{"devices offline, host killed twice", func(ctx context.Context, w *world, f *Fault) {
	back := w.disconnectHalf(f)
	pause(ctx, 2*time.Second)
	w.killHost(f)
	w.host.start()
	pause(ctx, time.Second)
	back()
	pause(ctx, time.Duration(w.rng.IntN(300))*time.Millisecond)
	w.killHost(f)
	f.InFlight *= 2
	w.host.start()
}}

// heldKill kills the host twice while nothing that it publishes reaches the broker. The first kill
// is while commands are being held, so that the broker redelivers them. The second is while they
// are being written, after the devices reconnected.
var heldKill = fault{"devices offline, host killed twice, out of the broker's reach", func(ctx context.Context, w *world, f *Fault) {
	f.Frozen = true
	back := w.disconnectHalf(f)
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

// killUnheard kills the host and starts it again. What it published into the silence never
// arrives.
func (w *world) killUnheard(f *Fault) {
	w.killHost(f)
	w.proxy.Cut()
	w.proxy.Up()
	w.host.start()
}

// stopReading makes n devices stop reading for a while.
func (w *world) stopReading(ctx context.Context, f *Fault, n int) {
	f.Frozen = true
	for _, d := range w.fleet.drawDevices(w.rng, n) {
		defer d.pauseReading()()
	}
	pause(ctx, 4*time.Second)
}

// disconnectHalf disconnects half of the devices.
func (w *world) disconnectHalf(f *Fault) (back func()) {
	gone := w.fleet.drawDevices(w.rng, len(w.fleet.devices)/2)
	f.Cut = addressesOf(gone)
	var all []func()
	for _, d := range gone {
		all = append(all, d.disconnect())
	}
	return func() {
		for _, back := range all {
			back()
		}
	}
}

var hostStopped = fault{"host stopped", func(_ context.Context, w *world, _ *Fault) {
	w.stopHost()
	w.host.start()
}}

var unroutable = fault{"results unroutable", func(ctx context.Context, w *world, _ *Fault) {
	w.routeResults(false)
	pause(ctx, 2*time.Second)
	w.routeResults(true)
}}

var secondConnections = fault{"devices connect twice", func(ctx context.Context, w *world, _ *Fault) {
	for _, d := range w.fleet.drawDevices(w.rng, len(w.fleet.devices)/4) {
		_ = w.fleet.dial(ctx, d) // the host may be away
	}
}}

// ledgerKill kills the host while its commands in flight wait for the ledger.
var ledgerKill = fault{"host killed, its ledger locked", func(ctx context.Context, w *world, f *Fault) {
	unlock := w.lockLedger()
	pause(ctx, time.Second)
	w.killHost(f)
	unlock()
	w.startDevicesFirst(ctx)
}}

// blockedKill kills the host while the broker delivers commands but doesn't accept results.
var blockedKill = fault{"host killed, its results blocked", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.killHost(f)
	unblock()
	w.host.start()
}}

// blockResults makes the broker accept no results until unblock is called, and waits until the
// host has some.
func (w *world) blockResults(ctx context.Context, f *Fault) (unblock func()) {
	f.Frozen = true
	w.host.signal(syscall.SIGSTOP)
	pause(ctx, time.Second) // commands pile up
	w.memoryAlarm(true)
	w.host.signal(syscall.SIGCONT)
	pause(ctx, time.Second)
	return func() { w.memoryAlarm(false) }
}

// expiredCut lets commands expire at the broker while the host has them and can't publish their
// results.
var expiredCut = fault{"commands expire at the broker, out of the host's reach", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.proxy.Down()
	unblock()
	pause(ctx, longestExpiration)
	w.proxy.Up()
	w.awaitAbandoned(ctx)
}}

// expiredKill is expiredCut with a host that is killed. The broker doesn't redeliver the commands,
// so the host has to find them in its ledger.
var expiredKill = fault{"commands expire at the broker, host killed", func(ctx context.Context, w *world, f *Fault) {
	unblock := w.blockResults(ctx, f)
	w.killHost(f)
	w.proxy.Down()
	unblock()
	pause(ctx, longestExpiration)
	w.startDevicesFirst(ctx)
	w.awaitAbandoned(ctx)
}}

// awaitAbandoned gives the host time to answer commands that aren't redelivered.
func (w *world) awaitAbandoned(ctx context.Context) {
	w.until("the host is ready", w.host.ready)
	pause(ctx, 2*begunTimeout)
}

// memoryAlarm starts or ends the broker's memory alarm, during which it accepts nothing from
// publishers.
func (w *world) memoryAlarm(on bool) {
	limit := "0.4"
	if on {
		limit = "0.00001"
	}
	w.node.Ctl(w.t, "set_vm_memory_high_watermark", limit)
}

// startDevicesFirst starts the host and lets it reach the broker only when the devices are
// connected. So commands that were in flight are written again.
func (w *world) startDevicesFirst(ctx context.Context) {
	w.proxy.Down()
	w.host.start()
	for end := time.Now().Add(5 * time.Second); len(w.fleet.online()) < len(w.fleet.devices) && time.Now().Before(end); {
		pause(ctx, 20*time.Millisecond)
	}
	w.proxy.Up()
}

func (w *world) killHost(f *Fault) {
	f.Killed, f.InFlight, f.Cut = true, prefetch+prefetch/2, addressesOf(w.fleet.devices)
	w.host.kill()
}

// lockLedger locks the ledger against the host's writes until unlock is called, as a database tool
// may do. It waits for a moment at which a command is being written.
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

// routeResults adds or removes the bindings between the results' exchange and its queues. The
// order of the bindings prevents a result that reaches only the queue that isn't judged.
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
