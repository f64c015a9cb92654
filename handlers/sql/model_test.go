package sql

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/database"
	devices "github.com/pentrough/pentrough/transports/device"
)

// world is the model: the true state, and the messages of hosts that aren't written yet.
type world struct {
	epoch uint64
	hosts map[string]*hostModel
	// sessions has the current session of each device.
	sessions map[string]session
	// sent has the messages that the consumer may get, in any order.
	sent []*message.Message
	// seen has the devices that have had a session.
	seen map[string]bool
}

type hostModel struct {
	generation, seq uint64
	up              bool
	// told has the messages that the host hasn't sent yet. A crash may lose the last ones.
	told []*message.Message
}

type session struct {
	host       string
	epoch, seq uint64
}

func (w *world) record(host string, msg *message.Message) {
	w.hosts[host].told = append(w.hosts[host].told, msg)
}

func (w *world) flush(host string) {
	w.sent = append(w.sent, w.hosts[host].told...)
	w.hosts[host].told = nil
}

func (w *world) hostSays(host string, reason devices.Reason) {
	h := w.hosts[host]
	h.seq++
	w.record(host, hostEvent(host, h.generation, h.seq, reason))
}

func (w *world) connect(device, host string) {
	w.disconnect(device)
	w.epoch++
	w.sessions[device], w.seen[device] = session{host, w.epoch, 1}, true
	w.record(host, deviceEvent(device, host, w.hosts[host].generation, w.epoch, 1, true))
}

func (w *world) disconnect(device string) {
	s, ok := w.sessions[device]
	if !ok {
		return
	}
	delete(w.sessions, device)
	w.record(s.host, deviceEvent(device, s.host, w.hosts[s.host].generation, s.epoch, s.seq+1, false))
}

func (w *world) start(host string) {
	h := w.hosts[host]
	if h.up {
		return
	}
	*h = hostModel{generation: h.generation + 1, up: true}
	w.hostSays(host, devices.HostStarted)
}

// stop stops a host, or lets it crash and lose the messages that it hasn't sent.
func (w *world) stop(host string, crash bool, lost int) {
	h := w.hosts[host]
	if !h.up {
		return
	}
	if !crash {
		for d, s := range w.sessions {
			if s.host == host {
				w.disconnect(d)
			}
		}
		w.hostSays(host, devices.HostStopped)
	} else {
		h.told = h.told[:len(h.told)-min(lost, len(h.told))]
		for d, s := range w.sessions {
			if s.host == host {
				delete(w.sessions, d)
			}
		}
	}
	h.up = false
	w.flush(host)
}

var (
	modelHosts   = []string{"a", "b"}
	modelDevices = []string{"d1", "d2", "d3"}
)

// converges runs a model of hosts and devices. It writes their messages in any order, repeated,
// over restarts of the consumer and false alarms. In the end the table must agree with the model.
func converges(t *rapid.T, h *handler, restart func()) {
	w := &world{hosts: map[string]*hostModel{}, sessions: map[string]session{}, seen: map[string]bool{}}
	for _, name := range modelHosts {
		w.hosts[name] = &hostModel{}
		w.start(name)
	}
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	deliver := func(all bool) {
		random.Shuffle(len(w.sent), func(i, j int) { w.sent[i], w.sent[j] = w.sent[j], w.sent[i] })
		n := len(w.sent)
		if !all {
			n = random.IntN(n + 1)
		}
		batch := slices.Clone(w.sent[:n])
		w.sent = append([]*message.Message(nil), w.sent[n:]...)
		for _, msg := range batch {
			if random.IntN(3) == 0 {
				w.sent = append(w.sent, msg) // it is redelivered
			}
		}
		for len(batch) > 0 {
			n := 1 + random.IntN(len(batch))
			for i, o := range h.HandleBatch(t.Context(), batch[:n]) {
				if o.Err != nil {
					t.Fatalf("handling %s: %v", batch[i].Payload, o.Err)
				}
			}
			batch = batch[n:]
		}
	}
	silence := func(falsely bool) {
		for name, k := range h.known {
			if falsely || !w.hosts[name].up {
				k.at = time.Time{}
			}
		}
		if err := h.checkDatabase(); err != nil {
			t.Fatal(err)
		}
	}
	device, host := rapid.SampledFrom(modelDevices), rapid.SampledFrom(modelHosts)
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0, 1, 2:
			if on := host.Draw(t, "host"); w.hosts[on].up {
				w.connect(device.Draw(t, "device"), on)
			}
		case 3:
			w.disconnect(device.Draw(t, "device"))
		case 4:
			w.stop(host.Draw(t, "host"), rapid.Bool().Draw(t, "crash"), rapid.IntRange(0, 3).Draw(t, "lost"))
		case 5:
			w.start(host.Draw(t, "host"))
		case 6:
			if on := host.Draw(t, "host"); w.hosts[on].up {
				w.hostSays(on, devices.HostHeartbeat)
			}
		case 7:
			for _, name := range modelHosts {
				w.flush(name)
			}
			deliver(false)
		case 8:
			silence(rapid.Bool().Draw(t, "falsely"))
		case 9:
			restart()
		}
	}
	for _, name := range modelHosts {
		w.flush(name)
	}
	deliver(true)
	// In the end the running hosts send a heartbeat, and a silent host is marked as lost. If the
	// first check finds that another process has heard it, the second check marks it.
	for _, name := range modelHosts {
		if w.hosts[name].up {
			w.hostSays(name, devices.HostHeartbeat)
			w.flush(name)
		}
	}
	deliver(true)
	if rapid.Bool().Draw(t, "restarted last") {
		restart()
	}
	silence(false)
	silence(false)
	for _, name := range modelHosts {
		want := w.hosts[name].up
		if got := modelHost(t, h, name); got != want {
			t.Fatalf("host %s is online: %v, in truth %v", name, got, want)
		}
	}
	for d := range w.seen {
		want := ""
		if s, live := w.sessions[d]; live {
			want = fmt.Sprint("online at ", s.host, " in ", s.epoch)
		}
		if got := modelRow(t, h, d); got != want {
			t.Fatalf("%s is %q, in truth %q", d, got, want)
		}
	}
}

// modelHost reports whether a host is online in the table.
func modelHost(t *rapid.T, h *handler, name string) (up bool) {
	text := "SELECT online FROM devices_hosts WHERE name = " + h.db.Dialect().Parameter(1)
	err := h.db.Query(t.Context(), database.Statement{Text: text, Args: []any{name}}, func(scan func(...any) error) error { return scan(&up) })
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// modelRow returns the host at which a device is online in the table, or "".
func modelRow(t *rapid.T, h *handler, device string) string {
	found := ""
	text := "SELECT online, host, epoch FROM devices WHERE device = " + h.db.Dialect().Parameter(1)
	err := h.db.Query(t.Context(), database.Statement{Text: text, Args: []any{device}}, func(scan func(...any) error) error {
		var up bool
		var host string
		var epoch int64
		if err := scan(&up, &host, &epoch); err != nil {
			return err
		}
		if up {
			found = fmt.Sprint("online at ", host, " in ", epoch)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The whole package has a few seconds; -rapid.checks asks for more.
func testTheTableConverges(t *testing.T, c *Config) {
	h := started(t, c)
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	rapid.Check(t, func(r *rapid.T) {
		if err := h.db.Apply(t.Context(), []database.Statement{{Text: "DELETE FROM devices"}, {Text: "DELETE FROM devices_hosts"}}); err != nil {
			r.Fatal(err)
		}
		h.known = map[string]*knownHost{}
		converges(r, h, func() {
			h.known = map[string]*knownHost{}
			if err := h.loadHosts(t.Context()); err != nil {
				r.Fatal(err)
			}
		})
	})
}

// started builds a handler as in a new process.
func started(t *testing.T, c *Config) *handler {
	t.Helper()
	h, err := c.build(quietEnv(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.checkDatabase(); err != nil {
		t.Fatal(err)
	}
	return h
}
