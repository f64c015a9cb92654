package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// crashPoints is the number of calls at each of which a host is killed once.
const crashPoints = 200

// point is one kill.
type point struct {
	nth int
	// call and place are the call at which the host was killed, before the call was carried out,
	// and its target.
	call, place string
	// inFlight are the ids of the commands whose results hadn't been read.
	inFlight []string
}

// TestCrashPoints kills a host at its first call that writes, syncs or sends, then at its second,
// and so on to the 200th.
//
// It also publishes commands: one, then two, then three at a time until the host is dead. One
// history has all kills and is judged. CHAOS_POINTS is how many of the 200 calls are tried, evenly
// spaced. Each of them must kill the host. All 200 together must have hit each place that the life
// of a command has.
func TestCrashPoints(t *testing.T) {
	if os.Getenv("CHAOS_SEED") == "" {
		t.Skip("it is run by `make chaos`, which says CHAOS_SEED")
	}
	count := min(setting(t, "CHAOS_POINTS", crashPoints), crashPoints)
	killat := buildKillat(t, t.TempDir())
	node := testenv.NewNode(t)
	for _, mode := range []device.Mode{device.AtLeastOnce, device.AtMostOnce} {
		t.Run(string(mode), func(t *testing.T) {
			s := newSweep(t, node, mode, killat)
			for i := range count {
				s.killAtCall(1 + i*crashPoints/count)
			}
			h := s.finish()
			r := reportRun(t, h)
			s.logPoints(h)
			if r.CountViolations() > 0 {
				t.Errorf("a crash in the mode %s breaks promises", mode)
			}
			for _, place := range s.requiredPlaces() {
				if count == crashPoints && !slices.ContainsFunc(s.points, func(p point) bool { return p.place == place }) {
					t.Errorf("no kill was at %s", place)
				}
			}
		})
	}
}

// sweep is a world whose host is killed at one point after the other.
type sweep struct {
	*world
	mode    device.Mode
	killat  string
	channel *amqp.Channel // commands are published on it
	history History
	points  []point
	numbers map[string]int
	stop    context.CancelFunc
	readers sync.WaitGroup
}

// crashDevices is the number of devices, and the most commands at a time.
const crashDevices = 3

func newSweep(t *testing.T, node *testenv.Node, mode device.Mode, killat string) *sweep {
	folder := t.TempDir()
	s := &sweep{
		world: &world{t: t, node: node, reader: newReader(t)}, mode: mode, killat: killat, history: History{Queue: "quorum"}, numbers: map[string]int{},
	}
	s.url = node.VHost(t)
	proxy, url := testenv.Through(t, s.url)
	s.proxy = proxy
	s.host = newHost(t, hostPlan{}, folder, url, s.history.Queue)
	s.host.start()
	s.until("the host is ready", s.host.ready)
	s.fleet = startFleet(t, "127.0.0.1:"+strconv.Itoa(s.host.devices), folder, crashDevices)
	s.until("all devices are connected", s.allOnline)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	t.Cleanup(func() {
		stop()
		s.readers.Wait()
	})
	for _, queue := range []string{results, status, poison} {
		s.readers.Go(func() {
			runClient(ctx, s.url, func(ch *amqp.Channel) error { return s.reader.read(ch, queue) })
		})
	}
	conn, err := amqp.Dial(s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if s.channel, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	if err := s.channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	s.history.End.GoroutinesBefore = int(s.host.metric(ctx, "go_goroutines"))
	s.history.End.HeapBefore = uint64(s.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	return s
}

func (s *sweep) allOnline() bool { return len(s.fleet.online()) == len(s.fleet.devices) }

// requiredPlaces returns the places that the life of a command in this mode always has.
func (s *sweep) requiredPlaces() []string {
	all := []string{"write to a device", "write to the broker", "pwrite64 to ledger.db-wal"}
	if s.mode == device.AtMostOnce {
		all = append(all, "fsync of ledger.db-wal")
	}
	return all
}

// killAtCall lets the host be killed at its nth call, starts it again, and waits until all
// commands have ended.
func (s *sweep) killAtCall(nth int) {
	tr := s.host.killAtCall(s.killat, nth)
	defer tr.close()
	const rounds = 100
	for round := 1; !s.publishRound(min(round, crashDevices)); round++ {
		if round == rounds {
			s.t.Fatalf("%d rounds of commands went by without a call number %d", rounds, nth)
		}
	}
	d, ok := tr.waitForDeath()
	if !ok {
		s.t.Fatalf("the host ended, and not at its call number %d: %v", nth, s.host.err)
	}
	p := point{nth: nth, call: d.Call, place: s.describeCall(d.Call, d.On), inFlight: s.openCommands()}
	f := Fault{
		Name: fmt.Sprintf("host killed at call %d, %s,", nth, p.place), Begin: d.Time, End: time.Now(), Killed: true, InFlight: len(p.inFlight), Cut: addressesOf(s.fleet.devices),
	}
	s.points, s.history.Faults = append(s.points, p), append(s.history.Faults, f)
	if len(s.points)%2 == 0 {
		s.host.start() // and the broker may be there before the devices
	} else {
		s.startDevicesFirst(context.Background())
	}
	s.until("the host is ready", s.host.ready)
	s.until("all devices are connected", s.allOnline)
	s.until("all commands have ended", func() bool { return len(s.openCommands()) == 0 })
}

// publishRound publishes a command to each of the first n devices, waits for their results, and
// reports whether the host died.
func (s *sweep) publishRound(n int) (dead bool) {
	var confirms []*amqp.DeferredConfirmation
	first := len(s.history.Commands)
	for _, d := range s.fleet.devices[:n] {
		s.numbers[d.address]++
		c := Command{
			ID: fmt.Sprintf("c-%06d", len(s.history.Commands)+1), Device: d.address, Mode: s.mode, Number: s.numbers[d.address], Sent: time.Now(), Publishes: 1,
		}
		// Marshalling strings always works.
		body, _ := json.Marshal(map[string]string{"id": c.ID, "device": c.Device, "cmd": c.ID, "mode": string(c.Mode)})
		confirm, err := s.channel.PublishWithDeferredConfirm("device.commands", c.Device, false, false, amqp.Publishing{
			MessageId: c.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body,
		})
		if err != nil {
			s.t.Fatalf("publishing: %v", err)
		}
		s.history.Commands, confirms = append(s.history.Commands, c), append(confirms, confirm)
	}
	for i, confirm := range confirms {
		s.history.Commands[first+i].Confirmed = confirm.Wait()
	}
	await.That(s.t, "the host has results of all commands, or is dead", func() (any, bool) {
		select {
		case <-s.host.ended:
			dead = true
			return nil, true
		default:
		}
		open := s.openCommands()
		return open, len(open) == 0
	})
	return dead
}

// openCommands returns the ids of the last commands whose results haven't been read. Commands of
// earlier rounds have ended.
func (s *sweep) openCommands() []string {
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	var ids []string
	for _, c := range s.history.Commands[max(0, len(s.history.Commands)-crashDevices):] {
		if !s.reader.ended[endKey(c.ID, c.Device)] {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// describeCall describes a call and its target.
func (w *world) describeCall(call, on string) string {
	switch fields := strings.Fields(on); {
	case len(fields) == 3 && fields[1] == strconv.Itoa(w.host.devices):
		on = "a device"
	case len(fields) == 3 && fields[1] == strconv.Itoa(w.host.admin):
		on = "a client of the admin page"
	case len(fields) == 3:
		on = "the broker"
	case on == filepath.Base(filepath.Dir(w.host.store)):
		on = "the ledger's folder"
	}
	if strings.HasSuffix(call, "sync") {
		return call + " of " + on
	}
	return call + " to " + on
}

// finish stops everything and returns the history.
func (s *sweep) finish() *History {
	h, ctx := &s.history, context.Background()
	s.until("presence is true", s.presenceTrue)
	h.End.Online, h.End.Settled = s.fleet.online(), time.Now()
	s.until("the queues are quiet", func() bool { return s.reader.quietFor() > 2*time.Second })
	h.End.Goroutines = int(s.host.metric(ctx, "go_goroutines"))
	h.End.Heap = uint64(s.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	if err := s.host.stop(); err != nil {
		s.t.Errorf("the last stop: %v", err)
	}
	h.Reads, h.Answers = s.fleet.stopAll(s.t)
	s.stop()
	s.readers.Wait()
	h.Results, h.Events, h.End.Poison = s.reader.results, s.reader.events, s.reader.poison
	h.End.Unfinished = ledgerRows(s.t, s.host.store, unfinished, time.Time{})
	return h
}

// logPoints logs where each kill was and how the commands in flight ended.
func (s *sweep) logPoints(h *History) {
	reads := map[string]int{}
	for _, r := range h.Reads {
		reads[r.ID]++
	}
	last := map[string]device.Result{}
	for _, r := range h.Results {
		last[r.ID] = r.Result
	}
	var text strings.Builder
	kills, endings := map[string]int{}, map[string]map[string]int{}
	for _, p := range s.points {
		kills[p.place]++
		var all []string
		for _, id := range p.inFlight {
			ending := fmt.Sprintf("%s in attempt %d, read %d times", last[id].State, last[id].Attempt, reads[id])
			if endings[p.place] == nil {
				endings[p.place] = map[string]int{}
			}
			endings[p.place][ending]++
			all = append(all, ending)
		}
		fmt.Fprintf(&text, "call %3d  %-28s %s\n", p.nth, p.place, cmp.Or(strings.Join(all, "; "), "nothing was in flight"))
	}
	text.WriteString("\nkills  before               commands in flight, and how they ended\n")
	for _, place := range slices.Sorted(maps.Keys(kills)) {
		fmt.Fprintf(&text, "%5d  %s\n", kills[place], place)
		for _, ending := range slices.Sorted(maps.Keys(endings[place])) {
			fmt.Fprintf(&text, "%32d  %s\n", endings[place][ending], ending)
		}
	}
	s.t.Logf("%d kills, %d devices, %d commands\n\n%s", len(s.points), len(s.fleet.devices), len(h.Commands), text.String())
}
