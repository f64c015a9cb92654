package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/deliver"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router/middleware"
	_ "github.com/pentrough/pentrough/router/middleware/dedup"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// fakeGateway is a transport of devices without a network.
type fakeGateway struct {
	*device.Registry
	mu    sync.Mutex
	lines map[string][]string // what each device got
	// beforeEpoch is called when a run is about to look for the session of a device; nil for
	// nothing.
	beforeEpoch func()
}

// pausingDevices are the devices of a fakeGateway with a beforeEpoch.
type pausingDevices struct {
	device.Devices
	gateway *fakeGateway
}

func (d pausingDevices) Epoch(name string) uint64 {
	if before := d.gateway.beforeEpoch; before != nil {
		before()
	}
	return d.Devices.Epoch(name)
}

func (g *fakeGateway) Topic(string, transports.Use) (transports.Topic, error) {
	return transports.Topic{Window: 1}, nil
}

func (g *fakeGateway) New(env transports.Env) (transports.Transport, error) {
	var err error
	g.Registry, err = device.NewRegistry(device.Options{
		Host: "host", Protocol: protocol.Plain(lineFraming{}), Canonical: func(name string) (string, error) { return name, nil },
		Directory: device.NewDirectory(env.Now), Limits: device.Limits{QueueCount: 100, QueueBytes: 1 << 20, WriteTimeout: time.Minute},
		Feed: device.FeedOptions{
			EventsWindow: 1, EventsBacklog: 1, EventsTotal: 1, DataWindow: 1, DataPerDevice: 1, DataTotal: 1, Heartbeat: time.Hour,
		},
		Logger: slog.New(slog.DiscardHandler), Now: env.Now, Registerer: prometheus.NewRegistry(),
	})
	return g, err
}

func (g *fakeGateway) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	return g.Registry.Subscriber(c.Pipeline), nil
}
func (g *fakeGateway) Publisher(transports.Producer) (message.Publisher, error) { return nil, nil }
func (g *fakeGateway) Start(context.Context) error                              { return nil }
func (g *fakeGateway) Health() []transports.Health                              { return nil }
func (g *fakeGateway) Quiesce()                                                 {}
func (g *fakeGateway) Devices() device.Devices                                  { return pausingDevices{g.Registry, g} }
func (g *fakeGateway) Close(context.Context) error                              { g.Registry.Close(); return nil }

// lineFraming ends a payload with a line feed.
type lineFraming struct{}

func (lineFraming) Max() int { return 1 << 16 }
func (lineFraming) Append(dst, payload []byte) ([]byte, error) {
	return append(append(dst, payload...), '\n'), nil
}
func (lineFraming) Split([]byte, int) (int, []byte, error) { return 0, nil, nil }

// wire is a device's connection. It takes all bytes, or none while it is stuck.
type wire struct {
	gateway *fakeGateway
	device  string

	mu     sync.Mutex
	closed bool
	stuck  chan struct{} // closed when it takes something again; nil if it does
}

func (w *wire) TryWrite(p []byte) (taken, begun int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return 0, 0, context.Canceled
	case w.stuck != nil:
		return 0, 0, nil
	}
	w.gateway.mu.Lock()
	defer w.gateway.mu.Unlock()
	for line := range bytes.Lines(p) {
		w.gateway.lines[w.device] = append(w.gateway.lines[w.device], strings.TrimSpace(string(line)))
	}
	return len(p), len(p), nil
}

func (w *wire) WaitWritable(deadline time.Time) error {
	w.mu.Lock()
	stuck := w.stuck
	w.mu.Unlock()
	if stuck == nil {
		return nil
	}
	select {
	case <-stuck:
		return nil
	case <-time.After(time.Until(deadline)):
		return os.ErrDeadlineExceeded
	}
}

// stick sets whether the wire is stuck.
func (w *wire) stick(stuck bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unstick()
	if stuck && !w.closed {
		w.stuck = make(chan struct{})
	}
}

func (w *wire) unstick() {
	if w.stuck != nil {
		close(w.stuck)
		w.stuck = nil
	}
}

func (w *wire) Gone() bool { return false }

func (w *wire) Unread() bool { return false }

func (w *wire) SilentFor() time.Duration { return 0 }

func (w *wire) Heard() bool         { return true }
func (w *wire) Authenticated() bool { return false }
func (w *wire) Probe()              {}
func (w *wire) LastRead() time.Time { return time.Time{} }

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.unstick()
	return nil
}

// holdRig is a host whose handler deliver holds commands. The test restarts it.
type holdRig struct {
	t       *testing.T
	rt      reporting
	gateway *fakeGateway
	ledger  *middlewaretest.Ledger
	in, out *fakeSystem
	host    *Host
	live    map[string]*device.Session
	wires   map[string]*wire
	sent    []sentCommand
	// restarts counts the restarts of the host. After one, an unacked command is redelivered, and
	// its result "held" is published again.
	restarts int
}

type sentCommand struct {
	id, device, sets string
	hold             bool
	expires          time.Time
}

// reporting has the methods that testing.T and rapid.T share.
type reporting interface {
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func newHoldRig(t *testing.T, rt reporting) *holdRig {
	r := &holdRig{
		t: t, rt: rt, gateway: &fakeGateway{lines: map[string][]string{}}, ledger: middlewaretest.NewLedger(), in: newSystem(64), out: newSystem(16),
		live: map[string]*device.Session{}, wires: map[string]*wire{},
	}
	r.start()
	return r
}

func (r *holdRig) start() {
	kind, _ := plugin.Registered().Kind("middleware")
	dedup, _ := kind.Lookup("dedup")
	handler, _ := plugin.Registered().Kind("handler")
	info, _ := handler.Lookup("deliver")
	settings := info.New().(*deliver.Config)
	settings.Devices = "devices"
	host, err := New(Config{
		Name: "host", Ledger: r.ledger,
		Transports: []Transport{{Name: "in", Config: r.in}, {Name: "out", Config: r.out}, {Name: "devices", Config: r.gateway}},
		Pipelines: []Pipeline{{
			Name: "test", From: "in:commands", To: "out:results", Handler: Handler{Type: "deliver", Config: settings},
			Middleware: []Middleware{{Name: "dedup", Type: "dedup", Config: dedup.New().(middleware.Config)}},
			DropErrors: true, Lanes: DefaultLanes, Batch: DefaultBatch,
		}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := host.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.host = host
}

func (r *holdRig) stop() {
	if r.host == nil {
		return
	}
	host := r.host
	r.host = nil
	clear(r.live)
	if err := host.Stop(r.t.Context()); err != nil {
		r.rt.Errorf("stopping: %v", err)
	}
}

func (r *holdRig) connect(name string) {
	w := &wire{gateway: r.gateway, device: name}
	s, err := r.gateway.Connect(r.t.Context(), name, name, w, nil)
	if err != nil {
		r.rt.Fatalf("connecting %s: %v", name, err)
	}
	r.live[name], r.wires[name] = s, w
}

func (r *holdRig) disconnect(name string) {
	if s := r.live[name]; s != nil {
		s.End(device.ConnectionLost)
		delete(r.live, name)
	}
}

func (r *holdRig) send(name string, hold bool, sets string, ttl time.Duration) {
	c := sentCommand{id: fmt.Sprintf("c%d", len(r.sent)+1), device: name, sets: sets, hold: hold}
	if ttl > 0 {
		c.expires = time.Now().Add(ttl)
	}
	r.sent = append(r.sent, c)
	r.put(c)
}

func (r *holdRig) put(c sentCommand) {
	command := device.Command{ID: c.id, Device: c.device, Payload: []byte(c.id), Supersede: c.sets, ExpiresAt: c.expires}
	if c.hold {
		command.Offline = device.Hold
	}
	msg := newSent(string(command.AppendJSON(nil)), transports.MessageID, c.id)
	msg.UUID = c.id
	r.in.put(msg)
}

// redeliver puts the messages that a stopped host didn't ack into the queue again.
func (r *holdRig) redeliver() {
	r.in.mu.Lock()
	r.in.subs, r.in.queue = nil, nil
	r.in.mu.Unlock()
	settled := r.in.settlements()
	for _, c := range r.sent {
		if !slices.Contains(settled, "ack "+c.id) {
			r.put(c)
		}
	}
}

// results returns the published states of each command, in order.
func (r *holdRig) results() map[string][]device.Result {
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	all := map[string][]device.Result{}
	for _, msg := range r.out.published {
		result, err := device.ParseResult(msg.Payload)
		if err != nil {
			r.rt.Fatalf("a result: %v", err)
		}
		all[result.ID] = append(all[result.ID], result)
	}
	return all
}

var errDiskFull = handlers.Unavailable(errors.New("the disk is full"))

// TestHolds connects and disconnects devices, restarts hosts and makes brokers fail. Every command
// must have one outcome, and each device must get its commands once and in order.
func TestHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(t *testing.T) {
			r := newHoldRig(t, rt)
			defer func() {
				failure = recover()
				r.out.failPublishing(nil)
				r.stop()
			}()
			names := []string{"a", "b"}
			name := rapid.SampledFrom(names)
			rt.Repeat(map[string]func(*rapid.T){
				"send": func(rt *rapid.T) {
					sets, ttl := "", time.Duration(0)
					if rapid.IntRange(0, 3).Draw(rt, "setpoint") == 0 {
						sets = "x"
					}
					if rapid.IntRange(0, 5).Draw(rt, "expires") == 0 {
						ttl = time.Duration(rapid.IntRange(1, 5000).Draw(rt, "ttl")) * time.Millisecond
					}
					r.send(name.Draw(rt, "device"), rapid.IntRange(0, 3).Draw(rt, "hold") > 0, sets, ttl)
				},
				"connect":    func(rt *rapid.T) { r.connect(name.Draw(rt, "device")) },
				"disconnect": func(rt *rapid.T) { r.disconnect(name.Draw(rt, "device")) },
				"blink": func(rt *rapid.T) {
					n := name.Draw(rt, "device")
					r.disconnect(n)
					r.connect(n)
				},
				"stick": func(rt *rapid.T) {
					if w := r.wires[name.Draw(rt, "device")]; w != nil {
						w.stick(rapid.Bool().Draw(rt, "stuck"))
					}
				},
				"disk": func(rt *rapid.T) {
					full := rapid.Bool().Draw(rt, "full")
					r.ledger.Fail(func(call string) error {
						if full && call == "hold" {
							return errDiskFull
						}
						return nil
					})
				},
				"rest": func(*rapid.T) { synctest.Wait() },
				"pass": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "ms")) * time.Millisecond)
				},
				"broker": func(rt *rapid.T) {
					var err error
					if rapid.Bool().Draw(rt, "away") {
						err = transports.ErrUndecided
					}
					r.out.failPublishing(err)
				},
				"restart": func(*rapid.T) {
					r.out.failPublishing(nil)
					r.stop()
					r.redeliver()
					r.restarts++
					r.start()
				},
			})
			r.out.failPublishing(nil)
			r.ledger.Fail(func(string) error { return nil })
			for _, n := range names {
				r.connect(n)
			}
			pass(time.Minute)
			r.judge()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

func (r *holdRig) judge() {
	results := r.results()
	wrote := map[string][]string{} // as the results say
	for i, c := range r.sent {
		var ends []device.Result
		for n, result := range results[c.id] {
			told := func(end device.Result) bool { return bytes.Equal(end.AppendJSON(nil), result.AppendJSON(nil)) }
			if result.State.Terminal() && slices.ContainsFunc(ends, told) {
				continue // a repetition
			}
			if result.State.Terminal() {
				ends = append(ends, result)
			} else if n > 0 && r.restarts == 0 {
				r.rt.Errorf("%s is told to be held after %s", c.id, results[c.id][n-1].State)
			}
		}
		if len(ends) != 1 {
			r.rt.Fatalf("%s has %d ends: %+v", c.id, len(ends), results[c.id])
		}
		switch end := ends[0]; end.State {
		case device.StateSent:
			wrote[c.device] = append(wrote[c.device], c.id)
		case device.StateOffline:
			if c.hold {
				r.rt.Errorf("%s is offline, and was to be held", c.id)
			}
		case device.StateExpired:
			if c.expires.IsZero() || end.Time.Before(c.expires) {
				r.rt.Errorf("%s is expired at %s, before %s", c.id, end.Time, c.expires)
			}
		case device.StateSuperseded:
			newer := func(other sentCommand) bool { return other.device == c.device && other.sets == c.sets }
			if c.sets == "" || !slices.ContainsFunc(r.sent[i+1:], newer) {
				r.rt.Errorf("%s is superseded, and none came for it", c.id)
			}
		case device.StateBusy: // its lane was stalled during the broker's outage
		default:
			r.rt.Errorf("%s is %s: %s", c.id, end.State, end.Detail)
		}
	}
	r.gateway.mu.Lock()
	defer r.gateway.mu.Unlock()
	for _, n := range []string{"a", "b"} {
		if !slices.Equal(wrote[n], r.gateway.lines[n]) {
			r.rt.Errorf("device %s got %q, want %q", n, r.gateway.lines[n], wrote[n])
		}
	}
	if owned, _ := r.ledger.Owned(r.t.Context(), "test"); len(owned) > 0 {
		r.rt.Errorf("the ledger still owns %d messages, the first %+v", len(owned), owned[0])
	}
	if l := len(r.host.pipelines[0].intake.holds.queues.byAwaits); l > 0 {
		r.rt.Errorf("%d queues are left", l)
	}
}

// Two commands wait for a device that reads nothing, and then disconnects. The first can't be
// held, because the disk is full for a moment. The second is held, and must stay behind the first.
func TestWhatIsHeldAtASecondAttemptKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newHoldRig(t, t)
		defer r.stop()
		r.connect("a")
		r.wires["a"].stick(true)
		r.send("a", true, "", 0)
		r.send("a", true, "", 0)
		synctest.Wait()
		full := true
		r.ledger.Fail(func(call string) error {
			if call == "hold" && full {
				full = false
				return errDiskFull
			}
			return nil
		})
		r.disconnect("a")
		r.connect("a")
		pass(time.Minute)
		r.judge()
	})
}

// A command can't be held, because the disk is full, and must run again. The run of the next
// command of that device has started already. Then the first one goes back to its source, in one
// of several ways. The second must not overtake it.
func TestNothingOvertakesWhatGoesBackToItsSource(t *testing.T) {
	for name, giveBack := range map[string]func(*holdRig){
		"the host stops": func(r *holdRig) {
			r.stop()
			r.redeliver()
			r.start()
		},
		"the intake gives its subscription back": func(r *holdRig) { r.host.pipelines[0].intake.giveBack() },
		"the broker's connection is lost":        func(r *holdRig) { r.in.cut(r.in.subs[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newHoldRig(t, t)
				defer r.stop()
				r.connect("a")
				r.wires["a"].stick(true)
				r.send("a", true, "", 0)
				synctest.Wait()
				r.gateway.beforeEpoch = func() {
					r.gateway.beforeEpoch = nil
					time.Sleep(50 * time.Millisecond)
				}
				r.send("a", false, "", 0)
				r.ledger.Fail(func(call string) error {
					if call == "hold" {
						return errDiskFull
					}
					return nil
				})
				synctest.Wait()
				r.disconnect("a")
				r.connect("a")
				synctest.Wait()
				r.ledger.Fail(func(string) error { return nil })
				r.restarts++
				giveBack(r)
				r.connect("a")
				pass(time.Minute)
				r.connect("b")
				r.judge()
			})
		})
	}
}

func newTestHolds(t *testing.T) *holds {
	h := newHolds(&holds{
		ledger: middlewaretest.NewLedger(), handler: always{}, life: t.Context(), now: time.Now, log: slog.New(slog.DiscardHandler),
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{}),
	}, 10, 10)
	h.loadOwned(nil)
	return h
}

// A message waits for an older one that may be held. If the older one has to run again in the same
// lane, the newer one must not block it.
func TestWhatIsRunAgainGoesFirst(t *testing.T) {
	h := newTestHolds(t)
	older, younger := &run{entry: &entry{}}, &run{entry: &entry{}}
	h.queues.markUndecided(older.entry, "a")
	before, err := h.pendingOlder(younger, "a")
	if before == nil || err != nil {
		t.Fatalf("the younger one doesn't wait: %v", err)
	}
	h.settleRun(older.entry, false, true)
	if !isClosed(before) {
		t.Error("the younger one isn't woken")
	}
	if _, err := h.pendingOlder(younger, "a"); handlers.KindOf(err) != handlers.KindUnavailable {
		t.Errorf("the younger one is told %v", err)
	}
	if before, err := h.pendingOlder(older, "a"); before != nil || err != nil {
		t.Errorf("the older one waits: %v", err)
	}
	h.markPlaced(older.entry)
	h.queues.markUndecided(older.entry, "a") // its session ended, too
	if before, err := h.pendingOlder(younger, "a"); before == nil || err != nil {
		t.Errorf("the younger one doesn't wait: %v", err)
	}
	h.settleRun(older.entry, true, false)
	if before, err := h.pendingOlder(younger, "a"); before != nil || err != nil || len(h.queues.byAwaits) > 0 {
		t.Errorf("in the end the younger one waits: %v", err)
	}
}

// A session ends, and its messages are held. If the oldest is held last, it is still handled
// first, although the newer one has already been released.
func TestTheOldestIsHeldLast(t *testing.T) {
	h := newTestHolds(t)
	older, younger := &run{entry: &entry{}}, &run{entry: &entry{}}
	h.queues.markUndecided(older.entry, "a")
	h.queues.markUndecided(younger.entry, "a")
	comesBack := func(r *run, order int64) *run {
		r.entry.heldAs = &handlers.Held{ID: fmt.Sprint(order), Awaits: "a", Order: order}
		h.settleRun(r.entry, true, false)
		back, _ := h.release()
		if len(back) != 1 || back[0].Order != order {
			t.Fatalf("%d came back for %d", len(back), order)
		}
		return &run{entry: &entry{released: back[0]}}
	}
	waits := func(r *run, want bool) {
		t.Helper()
		if before, err := h.pendingOlder(r, "a"); (before != nil) != want || err != nil {
			t.Errorf("held before %s: %v, %v, want %v", r.entry.released.ID, before != nil, err, want)
		}
	}
	younger = comesBack(younger, 2)
	waits(younger, true) // the older one may be going to be held
	older = comesBack(older, 1)
	waits(younger, true) // it is on its way
	waits(older, false)
	h.markPlaced(older.entry)
	waits(younger, false)

	// The newer one waited, and is held again. This round had no progress, so a pause follows.
	h.settleRun(older.entry, true, false)
	h.settleRun(younger.entry, true, false)
	h.queues.markUndecided(older.entry, "a")
	younger = comesBack(&run{entry: &entry{}}, 2)
	younger.entry.heldAs = younger.entry.released.Held
	h.settleRun(younger.entry, true, false)
	if back, _ := h.release(); len(back) > 0 {
		t.Errorf("%d came back at once", len(back))
	}
}

// always is a handlers.Holder for which everything is ready.
type always struct{}

func (always) Ready(string) bool  { return true }
func (always) Watch(func(string)) {}

// The device disconnects during a round, and the first message is held again. Then the device
// connects before the second message runs. The second must not overtake the first.
func TestWhatIsHeldAgainKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newHoldRig(t, t)
		defer r.stop()
		for range 3 {
			r.send("a", true, "", 0)
		}
		pass(time.Second)
		session, away, back := make(chan *device.Session, 1), false, false
		connect := func() *device.Session {
			s, err := r.gateway.Connect(t.Context(), "a", "a", &wire{gateway: r.gateway, device: "a"}, nil)
			if err != nil {
				t.Errorf("connecting: %v", err)
			}
			return s
		}
		r.ledger.Fail(func(call string) error {
			switch {
			case call == "resume" && !away:
				away = true
				(<-session).End(device.ConnectionLost)
			case call == "hold" && away && !back:
				back = true
				connect()
			}
			return nil
		})
		session <- connect()
		pass(time.Minute)
		r.ledger.Fail(func(string) error { return nil })
		if !back {
			t.Error("nothing was held again")
		}
		r.connect("b")
		r.judge()
	})
}
