package device

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// gathering is a protocol for concentrators. A frame "NAME:TEXT" is of a device, any other frame
// is of the concentrator. "NAME:ans KEY" answers the command that begins with KEY, and so does
// "ans KEY". "leave" is refused. The host writes "NUMBER NAME COMMAND".
type gathering struct{ lines }

func (p gathering) Split(*protocol.State, []byte, int) (int, []byte, error) { return 0, nil, nil }

func (p gathering) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	text := string(frame)
	if name, rest, named := strings.Cut(text, ":"); named {
		v.Device, text = name, rest
	}
	v.Key, _ = strings.CutPrefix(text, "ans ")
	if v.Answers = protocol.No; v.Key != text {
		v.Answers = protocol.Yes
	}
	switch text {
	case "safe":
		v.Response, v.Confirmed = []byte("ack "+v.Device), true
	case "hello":
		v.Response = []byte("welcome " + v.Device)
	case "leave":
		v.Refusal = "it asked to leave"
	}
	return nil
}

func (p gathering) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	key, _, _ := strings.Cut(string(c.Payload), " ")
	s.Number++
	return fmt.Appendf(dst, "%d %s %s", s.Number, c.Device, c.Payload), key, nil
}

func (p gathering) HasKeys() bool { return true }

// keyless is gathering without keys: the next frame "ans " is the answer.
type keyless struct{ gathering }

func (p keyless) HasKeys() bool { return false }

// united is gathering for devices with units.
type united struct{ gathering }

func (p united) HasUnits() bool { return true }

// gatherer is a registry whose devices are behind concentrators.
type gatherer struct {
	*testing.T
	*Registry
	sub *subscriber
}

func newGatherer(t *testing.T, change func(*Options)) *gatherer {
	t.Helper()
	r := testRegistry(t, func(o *Options) {
		o.Protocol, o.Named, o.Limits.Attached = gathering{}, true, 100
		o.Feed.DataPerDevice, o.Feed.DataTotal = 1000, 1000
		if change != nil {
			change(o)
		}
	})
	return &gatherer{t, r, r.feed.newSubscriber("p")}
}

func (g *gatherer) connect(name string) (*Session, *pipe) {
	g.Helper()
	p := newPipe(1 << 20)
	s, err := g.Connect(g.Context(), name, "192.0.2.1:1000", p, NewDialog(g.protocol, netip.MustParseAddrPort("192.0.2.1:1000"), name))
	if err != nil {
		g.Fatal(err)
	}
	return s, p
}

func (g *gatherer) says(s *Session, frames ...string) {
	g.Helper()
	for _, frame := range frames {
		if problem, err := s.HandleFrame(g.Context(), []byte(frame)); problem != "" || err != nil {
			g.Fatalf("the frame %q: %q, %v", frame, problem, err)
		}
	}
}

func (g *gatherer) put(name, cmd string, o EnqueueOptions) Write {
	g.Helper()
	w, err := g.Enqueue(name, []byte(cmd), o)
	if err != nil {
		g.Fatal(err)
	}
	return w
}

// fates holds that each write ends so.
func (g *gatherer) fates(want map[Write]Fate) {
	g.Helper()
	for w, fate := range want {
		if got := w.Wait(g.Context()); got.Fate != fate {
			g.Errorf("got %+v, want %v", got, fate)
		}
	}
}

// told holds that these are the events since the last call.
func (g *gatherer) told(want ...string) []Event {
	g.Helper()
	events := g.sub.events()
	if got := short(events); !slices.Equal(got, want) {
		g.Errorf("got the events %q, want %q", got, want)
	}
	return events
}

// data takes the data that waits.
func (g *gatherer) data() (all []string) {
	g.sub.feed.mu.Lock()
	defer g.sub.feed.mu.Unlock()
	for it := g.sub.backlogs[DataTopic].takeFirst(); it != nil; it = g.sub.backlogs[DataTopic].takeFirst() {
		d := it.record.(*dataRecord)
		all = append(all, fmt.Sprintf("%s %d: %s", d.device, d.seq, d.payload))
	}
	return all
}

func TestAnAttachedDevice(t *testing.T) {
	g := newGatherer(t, nil)
	s, p := g.connect("hub")
	g.says(s, "up", "m1:hello", "m2:1", "m1:2")
	events := g.told("hub connected", "m1 connected", "m2 connected")
	if e := events[1]; e.RemoteAddr != "192.0.2.1:1000" || e.Seq != 1 || e.Epoch != g.Epoch("m1") {
		t.Errorf("got the event %+v", e)
	}
	if got, want := g.data(), []string{"hub 2: up", "m1 2: m1:hello", "m2 2: m2:1", "m1 3: m1:2"}; !slices.Equal(got, want) {
		t.Errorf("got the data %q, want %q", got, want)
	}
	g.fates(map[Write]Fate{g.put("m2", "a", EnqueueOptions{Epoch: g.Epoch("m2")}): Sent})
	g.fates(map[Write]Fate{g.put("hub", "b", EnqueueOptions{}): Sent})
	if got, want := p.bytes(), "welcome m1\n1 m2 a\n2 hub b\n"; got != want {
		t.Errorf("the hub got %q, want %q", got, want)
	}
	for _, live := range g.Live() {
		if want := map[string]string{"m1": "hub", "m2": "hub"}[live.Device]; live.Carrier != want {
			t.Errorf("the carrier of %s is %q", live.Device, live.Carrier)
		}
	}
	if _, err := g.Enqueue("m1", []byte("x"), EnqueueOptions{Epoch: g.Epoch("m1") + 1}); !errors.Is(err, ErrSession) {
		t.Errorf("got %v", err)
	}
	if _, err := g.Enqueue("m3", []byte("x"), EnqueueOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("got %v", err)
	}
}

// A device answers only what it was asked. A frame without a name may be any device's.
func TestAnswersOfAttachedDevices(t *testing.T) {
	g := newGatherer(t, nil)
	s, _ := g.connect("hub")
	g.says(s, "m1:up", "m2:up")
	ask := func(name, key string) Write {
		return g.put(name, key, EnqueueOptions{ID: name + key, Request: &Request{Timeout: await.Patience, MaxOpen: 10}})
	}
	one, two, three, hub := ask("m1", "k"), ask("m2", "k"), ask("m2", "l"), ask("hub", "k")
	epochs := map[Write]uint64{one: g.Epoch("m1"), two: g.Epoch("m2"), three: g.Epoch("m2"), hub: g.Epoch("hub")}
	g.data()
	g.says(s, "hub:ans l", "m1:ans l", "m3:ans k")
	if got, want := g.data(), []string{"hub 2: hub:ans l", "m1 3: m1:ans l", "m3 2: m3:ans k"}; !slices.Equal(got, want) {
		t.Errorf("got the data %q, want %q", got, want)
	}
	g.says(s, "m2:ans k", "hub:ans k", "ans l", "m1:ans k")
	for w, reply := range map[Write]string{one: "m1:ans k", two: "m2:ans k", three: "ans l", hub: "hub:ans k"} {
		if got := w.Wait(t.Context()); got != (Written{Fate: Answered, Epoch: epochs[w], Reply: reply}) {
			t.Errorf("got %+v, want the reply %s and the epoch %d", got, reply, epochs[w])
		}
	}
}

// An answer that comes too late is known by its device, too.
func TestLateAnswersOfAttachedDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGatherer(t, nil)
		s, _ := g.connect("hub")
		g.says(s, "m1:up", "m2:up")
		w := g.put("m1", "k", EnqueueOptions{ID: "c1", Request: &Request{Timeout: time.Second, MaxOpen: 10}})
		if got := w.Wait(t.Context()); got.Fate != NoReply || got.Epoch != g.Epoch("m1") {
			t.Errorf("got %+v", got)
		}
		g.says(s, "m2:ans k", "m1:ans k")
		g.sub.feed.mu.Lock()
		defer g.sub.feed.mu.Unlock()
		for it := g.sub.backlogs[DataTopic].takeFirst(); it != nil; it = g.sub.backlogs[DataTopic].takeFirst() {
			d := it.record.(*dataRecord)
			if want := map[string]string{"m1:ans k": "c1"}[d.payload]; d.lateFor != want {
				t.Errorf("%q is late for %q, want %q", d.payload, d.lateFor, want)
			}
		}
	})
}

// When the connection ends, all of its devices go offline, and nothing of theirs stays open.
func TestTheEndOfACarrier(t *testing.T) {
	for name, end := range map[string]struct {
		end    func(*gatherer, *Session)
		reason Reason
		after  []string
		fate   Fate // of the hub's own command that waits
	}{
		"closed":   {func(_ *gatherer, s *Session) { s.End(ClientClosed) }, ClientClosed, nil, Offline},
		"replaced": {func(g *gatherer, _ *Session) { g.connect("hub") }, Replaced, []string{"hub connected"}, Sent},
		"attached": {func(g *gatherer, _ *Session) {
			other, _ := g.connect("other")
			g.says(other, "hub:up")
		}, Replaced, []string{"hub connected"}, Offline},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGatherer(t, nil)
				s, p := g.connect("hub")
				g.says(s, "m1:up")
				g.told("hub connected", "m1 connected")
				asked := g.put("m1", "k", EnqueueOptions{Request: &Request{Timeout: time.Hour, MaxOpen: 10}})
				p.change(func() { p.room = 5 })
				partly := g.put("m1", "partly", EnqueueOptions{})
				orphans := 0
				waiting := g.put("m1", "waits", EnqueueOptions{Orphaned: func() { orphans++ }})
				hub := g.put("hub", "own", EnqueueOptions{})
				synctest.Wait()
				end.end(g, s)
				if name == "attached" {
					g.told("other connected", "m1 disconnected replaced", "hub disconnected replaced", "hub connected")
				} else {
					why := " disconnected " + string(end.reason)
					g.told(append([]string{"m1" + why, "hub" + why}, end.after...)...)
				}
				g.fates(map[Write]Fate{asked: NoReply, partly: Unknown, waiting: Offline, hub: end.fate})
				if got := waiting.Wait(t.Context()); orphans != 1 || got.Detail != "the session ended ("+string(end.reason)+")" {
					t.Errorf("%d orphans; %+v", orphans, got)
				}
				if !p.closed || g.Epoch("m1") != 0 {
					t.Errorf("closed %v, epoch %d", p.closed, g.Epoch("m1"))
				}
				if _, err := g.Enqueue("m1", nil, EnqueueOptions{}); !errors.Is(err, ErrOffline) {
					t.Errorf("got %v", err)
				}
				if _, err := s.HandleFrame(t.Context(), []byte("m2:up")); !errors.Is(err, ErrEnded) {
					t.Errorf("got %v", err)
				}
				for i := range g.shards {
					for _, slot := range g.shards[i].slots {
						if slot.session == nil || len(slot.attached) > 1 {
							t.Errorf("the slot of %s is left", slot.device)
						}
					}
				}
			})
		})
	}
}

// When an attached device goes offline or moves, the connection and the other devices stay.
func TestAnAttachedDeviceLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGatherer(t, nil)
		s, p := g.connect("hub")
		g.says(s, "m1:up", "m2:up")
		open := g.put("m1", "k", EnqueueOptions{Request: &Request{Timeout: time.Hour, MaxOpen: 10}})
		p.change(func() { p.room = 3 })
		long := strings.Repeat("x", maxEncoded) // nothing else is encoded with it
		partly := g.put("m1", long, EnqueueOptions{})
		waits, stays := g.put("m1", "waits", EnqueueOptions{}), g.put("m2", "stays", EnqueueOptions{})
		synctest.Wait()
		g.told("hub connected", "m1 connected", "m2 connected")

		own, ownPipe := g.connect("m1")
		g.told("m1 disconnected replaced", "m1 connected")
		g.fates(map[Write]Fate{open: NoReply, waits: Offline, g.put("m1", "new", EnqueueOptions{}): Sent})
		p.grant(2 * maxEncoded)
		g.fates(map[Write]Fate{partly: Sent, stays: Sent})
		if got, want := p.bytes(), "1 m1 k\n2 m1 "+long+"\n3 m2 stays\n"; got != want || p.closed {
			t.Errorf("the hub got %q, want %q; closed %v", got, want, p.closed)
		}
		if got, want := ownPipe.bytes(), "1 m1 new\n"; got != want {
			t.Errorf("m1 got %q, want %q", got, want)
		}
		if _, err := own.HandleFrame(t.Context(), []byte("bye")); err != nil {
			t.Error(err)
		}

		g.data()
		g.says(s, "m1:back")
		g.told("m1 disconnected replaced", "m1 connected")
		if got, want := g.data(), []string{"m1 2: m1:back"}; !slices.Equal(got, want) || !ownPipe.closed {
			t.Errorf("got the data %q, want %q; closed %v", got, want, ownPipe.closed)
		}

		g.SessionOf("m1").End(Kicked)
		g.told("m1 disconnected kicked")
		if p.closed || s.Reason() != "" {
			t.Error("the connection has ended")
		}
		g.says(s, "m1:again")
		g.told("m1 connected")
	})
}

// Two concentrators hear one device. It moves no more often than the limit of takeovers allows,
// and no frame of it is lost.
func TestADeviceOfTwoCarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGatherer(t, nil)
		one, _ := g.connect("one")
		two, p := g.connect("two")
		var want []string
		for i := range 10 {
			g.says([]*Session{one, two}[i%2], fmt.Sprint("m:", i))
			want = append(want, fmt.Sprint("m:", i))
		}
		var got []string
		for _, d := range g.data() {
			_, text, _ := strings.Cut(d, ": ")
			got = append(got, text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got the data %q", got)
		}
		moved := "m disconnected replaced"
		g.told("one connected", "two connected", "m connected", moved, "m connected", moved, "m connected", moved, "m connected")
		g.fates(map[Write]Fate{g.put("m", "x", EnqueueOptions{}): Sent})
		if p.bytes() != "1 m x\n" {
			t.Errorf("two got %q", p.bytes())
		}
		g.says(one, "m:hello") // the response goes to the connection of the frame
		time.Sleep(flapPeriod)
		g.says(one, "m:x")
		g.told(moved, "m connected")
	})
}

// The frames of a device that can't be attached are dropped and counted. The connection stays.
func TestDevicesThatCannotBeAttached(t *testing.T) {
	g := newGatherer(t, func(o *Options) {
		o.Limits.Attached = 2
		o.NewNames = NameLimit{Rate: 1, Burst: 3}
	})
	listed := map[string]bool{"m1": true, "m2": true, "m3": true}
	leaves := 0 // the inventory loses leaver after the first look
	g.SetListed(func(name string) bool {
		if name == "leaver" {
			leaves++
			return leaves == 1
		}
		return listed[name] || name == "hub"
	}, true)
	s, p := g.connect("hub")
	g.says(s, "m1:1", "m2:1")
	drops := func(frame, problem string) {
		t.Helper()
		got, err := s.HandleFrame(t.Context(), []byte(frame))
		if err != nil || got != problem {
			t.Errorf("got %q, %v; want %q", got, err, problem)
		}
	}
	drops("m3:hello", `too many devices are attached to the connection, so "m3" isn't; the limit is 2`)
	drops("stranger:hello", `the inventory doesn't list the device "stranger"`)
	g.SessionOf("m1").End(Kicked)
	drops("leaver:1", `the inventory doesn't list the device "leaver"`)
	g.told("hub connected", "m1 connected", "m2 connected", "m1 disconnected kicked", "leaver connected", "leaver disconnected kicked")
	g.says(s, "m3:1")
	if g.data(); p.bytes() != "" {
		t.Errorf("the hub got %q", p.bytes())
	}

	g = newGatherer(t, nil)
	s, _ = g.connect("hub")
	g.says(s, "m1:1", "m1:2")
	g.fates(map[Write]Fate{g.put("m1", "x", EnqueueOptions{}): Sent})
	for _, live := range g.Live() {
		if want := map[string]Traffic{"m1": {FramesIn: 2, BytesIn: 8, FramesOut: 1, BytesOut: 7}}[live.Device]; live.Traffic != want {
			t.Errorf("%s has %+v, want %+v", live.Device, live.Traffic, want)
		}
	}
	if _, err := g.Ban(Ban{Device: "m1"}); err != nil {
		t.Fatal(err)
	}
	drops("m1:3", `the device is banned: "m1"`)
	g.told("hub connected", "m1 connected", "m1 disconnected kicked")

	g = newGatherer(t, func(o *Options) { o.NewNames = NameLimit{Rate: 1, Burst: 2} })
	s, _ = g.connect("hub")
	g.says(s, "m1:1")
	drops("m2:1", `too many new names of devices, such as "m2"; new_names allows 1 a second, or list the devices in the inventory`)

	for frame, want := range map[string]error{"a\tb:1": codec.ErrFrame, "leave": ErrRefused} {
		if _, err := s.HandleFrame(t.Context(), []byte(frame)); !errors.Is(err, want) {
			t.Errorf("the frame %q: %v, want %v", frame, err, want)
		}
	}
	g = newGatherer(t, func(o *Options) { o.Protocol = united{} })
	s, _ = g.connect("hub")
	if _, err := s.HandleFrame(t.Context(), []byte("m1/7:1")); !errors.Is(err, codec.ErrFrame) {
		t.Errorf("a unit as a device: %v", err)
	}
	g = newGatherer(t, func(o *Options) { o.Limits.Attached = 0 })
	s, _ = g.connect("hub")
	if _, err := s.HandleFrame(t.Context(), []byte("m1:1")); err == nil || !strings.Contains(err.Error(), `a frame names the device "m1", but the connection belongs to "hub"`) {
		t.Errorf("got %v", err)
	}
}

// A newer command supersedes only those for the same device.
func TestAttachedDevicesSupersedeTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGatherer(t, nil)
		s, p := g.connect("hub")
		g.says(s, "m1:up", "m2:up")
		p.change(func() { p.room = 1 })
		g.put("hub", "first", EnqueueOptions{})
		synctest.Wait()
		set := func(name string) Write { return g.put(name, "set", EnqueueOptions{Supersede: "x"}) }
		hub, old, two, newer := set("hub"), set("m1"), set("m2"), set("m1")
		p.grant(1000)
		g.fates(map[Write]Fate{hub: Sent, old: Superseded, two: Sent, newer: Sent})
	})
}

// A response that waits for the consumers goes to the connection of the frame.
func TestAttachedResponsesWaitForConsumers(t *testing.T) {
	g := newGatherer(t, nil)
	s, p := g.connect("hub")
	data := subscribe(t, g.Subscriber("q"), t.Context(), DataTopic)
	if err := g.sub.Close(); err != nil {
		t.Fatal(err)
	}
	g.says(s, "m1:safe")
	msg := await.Receive(t, "the data", data)
	if p.bytes() != "" {
		t.Errorf("the hub got %q before the data was settled", p.bytes())
	}
	msg.Ack()
	await.That(t, "the response is written", func() (any, bool) { return p.bytes(), p.bytes() == "ack m1\n" })
}

// Devices move between connections that end at any time. Every command ends, and no slot is left.
func TestAttachedDevicesUnderStress(t *testing.T) {
	g := newGatherer(t, func(o *Options) {
		o.Feed.DropOldest, o.Feed.EventsBacklog, o.Feed.EventsTotal = true, 1_000_000, 1_000_000
	})
	const hubs, meters, rounds = 4, 8, 200
	var running sync.WaitGroup
	for h := range hubs {
		running.Go(func() {
			for i := range rounds {
				name := fmt.Sprint("hub", h)
				if i%7 == 0 {
					name = fmt.Sprint("m", i%meters) // a meter with a connection of its own
				}
				s, err := g.Connect(t.Context(), name, "", newPipe(64), NewDialog(g.protocol, netip.AddrPort{}, name))
				if err != nil {
					continue // too many takeovers
				}
				for j := range meters {
					_, err := s.HandleFrame(t.Context(), fmt.Appendf(nil, "m%d:%d", (i+j)%meters, i))
					if err != nil && !errors.Is(err, ErrEnded) {
						t.Error(err)
					}
				}
				if i%5 == 0 { // two connections may attach each other
					_, _ = s.HandleFrame(t.Context(), fmt.Appendf(nil, "hub%d:%d", (h+1)%hubs, i))
				}
				s.End(ClientClosed)
			}
		})
	}
	var writes sync.WaitGroup
	for m := range meters {
		running.Go(func() {
			for i := range rounds {
				o := EnqueueOptions{Supersede: "x"}
				if i%3 == 0 {
					o = EnqueueOptions{Request: &Request{Timeout: time.Millisecond, MaxOpen: 3}}
				}
				if w, err := g.Enqueue(fmt.Sprint("m", m), []byte("command"), o); err == nil {
					writes.Go(func() { w.Wait(t.Context()) })
				}
				if i%20 == 0 {
					if s := g.SessionOf(fmt.Sprint("m", m)); s != nil {
						s.End(Kicked)
					}
				}
			}
		})
	}
	running.Wait()
	writes.Wait()
	if left := g.Live(); len(left) > 0 {
		t.Errorf("still online: %+v", left)
	}
	for i := range g.shards {
		for _, slot := range g.shards[i].slots {
			t.Errorf("the slot of %s is left", slot.device)
		}
	}
	epochs := map[string]uint64{}
	open := map[string]bool{}
	for _, e := range g.sub.events() {
		if e.Type == Connected && (open[e.Device] || e.Epoch <= epochs[e.Device]) || e.Type == Disconnected && (!open[e.Device] || e.Epoch != epochs[e.Device]) {
			t.Errorf("%s of %s with epoch %d after %d", e.Type, e.Device, e.Epoch, epochs[e.Device])
		}
		open[e.Device], epochs[e.Device] = e.Type == Connected, e.Epoch
	}
}

// The answer to a request of a device that has left can still arrive on the connection. It answers
// no later request.
func TestLateAnswersOfDevicesThatLeft(t *testing.T) {
	for name, answer := range map[string]string{"named": "m1:ans ", "unnamed": "ans "} {
		for _, isWritten := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, written %v", name, isWritten), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newGatherer(t, func(o *Options) { o.Protocol = keyless{} })
					s, p := g.connect("hub")
					g.says(s, "m1:up")
					if !isWritten {
						p.change(func() { p.room = 3 })
					}
					ask := func(cmd string) Write {
						return g.put("m1", " "+cmd, EnqueueOptions{Request: &Request{Timeout: time.Minute, MaxOpen: 10}})
					}
					first := ask("first")
					synctest.Wait()
					g.SessionOf("m1").End(Kicked)
					p.grant(1000)
					g.fates(map[Write]Fate{first: NoReply})

					g.says(s, "m1:back")
					second := ask("second")
					g.data()
					g.says(s, answer)
					if got := g.data(); len(got) != 1 || !strings.HasSuffix(got[0], answer) {
						t.Errorf("got the data %q", got)
					}
					for !strings.Contains(p.bytes(), "second") {
						time.Sleep(time.Second)
					}
					g.says(s, "m1:ans ")
					g.fates(map[Write]Fate{second: Answered})
				})
			})
		}
	}
}

// While the host stops, no device is attached any more. The connection stays until the commands
// that wait are written.
func TestNoDeviceIsAttachedWhileTheHostStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGatherer(t, nil)
		other, _ := g.connect("other")
		g.says(other, "m1:up")
		s, p := g.connect("hub")
		p.change(func() { p.room = 3 })
		waits := g.put("hub", "waits", EnqueueOptions{})
		synctest.Wait()
		var stopped sync.WaitGroup
		stopped.Go(func() { g.CloseSessions(t.Context()) })
		synctest.Wait()
		g.data()
		g.says(s, "m1:moves")
		if got, want := g.data(), []string{"m1 3: m1:moves"}; !slices.Equal(got, want) {
			t.Errorf("got the data %q, want %q", got, want)
		}
		if problem, err := s.HandleFrame(t.Context(), []byte("m2:up")); problem != ErrClosing.Error() || err != nil {
			t.Errorf("got %q, %v", problem, err)
		}
		p.grant(1000)
		g.fates(map[Write]Fate{waits: Sent})
		stopped.Wait()
		if s.Reason() != ServerShutdown {
			t.Errorf("the session ended as %s", s.Reason())
		}
	})
}

// hookedDirectory calls onClaim after each claim.
type hookedDirectory struct {
	Directory
	onClaim func()
}

func (d *hookedDirectory) Claim(ctx context.Context, device string, heard time.Time) (uint64, error) {
	defer d.onClaim()
	return d.Directory.Claim(ctx, device, heard)
}

// A device keeps its session if the connection that would take it over has ended.
func TestAConnectionThatEndsTakesNoDevice(t *testing.T) {
	d := &hookedDirectory{onClaim: func() {}}
	g := newGatherer(t, func(o *Options) { d.Directory, o.Directory = o.Directory, d })
	one, _ := g.connect("one")
	g.says(one, "m:1")
	two, _ := g.connect("two")
	d.onClaim = func() { two.End(ClientClosed) }
	if _, err := two.HandleFrame(t.Context(), []byte("m:2")); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	g.told("one connected", "m connected", "two connected", "two disconnected client_closed")
	g.says(one, "m:3")
	g.told()
}
