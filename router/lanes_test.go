package router

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// TestLanesModel runs the lanes with random arrivals, placements, settlements and stalls, and
// checks the invariants: a key has one current entry and at most limit placed ones, its entries
// start in order, no entry is lost, and no entry has two runs at once.
func TestLanesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		l := newLanes(32, Lanes{Limit: limit, Stall: 5 * time.Second, AckDeadline: time.Minute}, rapid.Bool().Draw(t, "refusable"))
		now := time.Unix(1000, 0)
		var running []*entry
		state := map[*entry]string{}
		last := map[string]uint64{} // the newest first start of a key and priority
		var all []*entry
		pick := func(label string) *entry {
			return running[rapid.IntRange(0, len(running)-1).Draw(t, label)]
		}
		remove := func(e *entry) {
			for i := range running {
				if running[i] == e {
					running = append(running[:i], running[i+1:]...)
					return
				}
			}
		}
		reruns := map[*entry]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				if len(all) > 60 {
					t.Skip("enough")
				}
				e := &entry{delivery: &transports.Delivery{Context: context.Background()}, desc: handlers.Description{Key: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")}}
				e.desc.Priority = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "priority")
				l.addEntry(e, false, now)
				all = append(all, e)
				state[e] = "waiting"
			},
			"start": func(t *rapid.T) {
				e := l.startNext(now)
				if e == nil {
					t.Skip("nothing to start")
				}
				if state[e] != "waiting" {
					t.Fatalf("entry %d started while %s", e.number, state[e])
				}
				state[e] = "running"
				if e.reason == "" {
					for _, other := range running {
						if other.reason == "" && other.lane.key == e.lane.key && state[other] == "running" {
							t.Fatalf("entries %d and %d of key %s hold the lane", other.number, e.number, e.lane.key.key)
						}
					}
					if !reruns[e] {
						same := fmt.Sprint(e.lane.key.key, e.desc.Priority)
						if e.number < last[same] {
							t.Fatalf("entry %d of key %s started after %d", e.number, same, last[same])
						}
						last[same] = e.number
					}
					if w := e.lane.waiting; len(w) > 0 && w[0].desc.Priority > e.desc.Priority {
						t.Fatalf("entry %d started before %d, which has priority", e.number, w[0].number)
					}
				}
				running = append(running, e)
			},
			"place": func(t *rapid.T) {
				if len(running) == 0 {
					t.Skip("none")
				}
				e := pick("place")
				l.markPlaced(e)
				if e.reason == "" {
					state[e] = "placed"
				}
				if n := len(e.lane.placed); n > 2*limit || n > limit && e.desc.Priority == 0 && e.reason == "" && e == e.lane.placed[n-1] {
					t.Fatalf("%d placed", n)
				}
			},
			"settle": func(t *rapid.T) {
				if len(running) == 0 {
					t.Skip("none")
				}
				e := pick("settle")
				remove(e)
				again := rapid.Bool().Draw(t, "again")
				l.endRun(e, again, now)
				state[e] = "done"
				if again {
					state[e], reruns[e] = "waiting", true
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 7000).Draw(t, "ms")) * time.Millisecond)
				l.sweepStalled(now)
				l.refuseOverdue(now)
			},
			"": func(t *rapid.T) {
				count := map[string]int{}
				for _, s := range state {
					count[s]++
				}
				if got := count["running"] + count["placed"]; l.running != got {
					t.Fatalf("%d running, the model says %d", l.running, got)
				}
			},
		})
		// At the end, settle all running entries and start the waiting ones until none is left.
		for range 1000 {
			for _, e := range running {
				l.endRun(e, false, now)
				state[e] = "done"
			}
			running = nil
			for e := l.startNext(now); e != nil; e = l.startNext(now) {
				state[e] = "running"
				running = append(running, e)
				l.markPlaced(e)
			}
			if len(running) == 0 {
				break
			}
		}
		for e, s := range state {
			if s != "done" {
				t.Fatalf("entry %d of key %s is left %s", e.number, e.desc.Key, s)
			}
		}
		if len(l.byKey) != 0 || l.waiting != 0 || l.running != 0 {
			t.Fatalf("left over: %s", fmt.Sprint(len(l.byKey), l.waiting, l.running))
		}
	})
}
