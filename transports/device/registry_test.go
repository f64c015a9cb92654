package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

func TestMain(m *testing.M) { await.Main(m) }

// events takes all events that wait for a consumer that has none yet.
func (s *subscriber) events() []Event {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	var events []Event
	for it := s.backlogs[EventsTopic].takeFirst(); it != nil; it = s.backlogs[EventsTopic].takeFirst() {
		events = append(events, it.record.(*eventRecord).event)
	}
	return events
}

func short(events []Event) (out []string) {
	for _, e := range events {
		out = append(out, strings.TrimSpace(fmt.Sprint(e.Device, " ", e.Type, " ", e.Reason)))
	}
	return out
}

func TestTakeover(t *testing.T) {
	r := testRegistry(t, nil)
	sub := r.feed.newSubscriber("p")
	p1, p2 := newPipe(9), newPipe(9)
	s1 := connect(t, r, "d", p1)
	s2 := connect(t, r, "d", p2)
	s1.End(ClientClosed) // the old connection's goroutine finds it closed
	if !p1.closed || p2.closed {
		t.Errorf("closed: old %v, new %v", p1.closed, p2.closed)
	}
	if s1.Reason() != Replaced || s2.Reason() != "" || s1.Epoch() >= s2.Epoch() {
		t.Errorf("old: %q at %d; new: %q at %d", s1.Reason(), s1.Epoch(), s2.Reason(), s2.Epoch())
	}
	if err := s1.Data([]byte("x")); !errors.Is(err, ErrEnded) {
		t.Errorf("data of the old session: %v", err)
	}
	if enqueue(t, r, "d", "x").Wait(t.Context()); p2.bytes() != "x\n" {
		t.Errorf("the new session got %q", p2.bytes())
	}
	s2.End(ClientClosed)
	events := sub.events()
	want := []string{"d connected", "d disconnected replaced", "d connected", "d disconnected client_closed"}
	if got := short(events); !slices.Equal(got, want) {
		t.Fatalf("got the events %q, want %q", got, want)
	}
	for i, seq := range []uint64{1, 2, 1, 2} {
		if events[i].Seq != seq {
			t.Errorf("event %d has seq %d, want %d", i, events[i].Seq, seq)
		}
	}
}

// slowDirectory lets a test decide in which order claims return.
type slowDirectory struct {
	Directory
	claimed chan chan struct{}
}

func (d slowDirectory) Claim(ctx context.Context, device string, heard time.Time) (uint64, error) {
	epoch, err := d.Directory.Claim(ctx, device, heard)
	turn := make(chan struct{})
	d.claimed <- turn
	<-turn
	return epoch, err
}

func TestLateClaimDoesNotEvictNewerSession(t *testing.T) {
	directory := slowDirectory{NewDirectory(time.Now), make(chan chan struct{})}
	r := testRegistry(t, func(o *Options) { o.Directory = directory })
	type result struct {
		session *Session
		err     error
	}
	results := [2]chan result{make(chan result, 1), make(chan result, 1)}
	var turns [2]chan struct{}
	for i := range 2 {
		go func() {
			s, err := r.Connect(t.Context(), "d", "", newPipe(9), nil)
			results[i] <- result{s, err}
		}()
		turns[i] = <-directory.claimed
	}
	close(turns[1])
	newer := <-results[1]
	close(turns[0])
	older := <-results[0]
	if newer.err != nil || !errors.Is(older.err, ErrSuperseded) {
		t.Fatalf("newer: %v, older: %v", newer.err, older.err)
	}
	if newer.session.Reason() != "" {
		t.Fatalf("the newer session ended: %q", newer.session.Reason())
	}
}

func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := testRegistry(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		start := time.Now()
		var current *Session
		for range 1 + maxTakeovers {
			current = connect(t, r, "d", newPipe(9))
		}
		// The fourth takeover has to wait, and so have all connections behind it.
		type result struct {
			n   int
			err error
		}
		results := make(chan result)
		pipes := make([]*pipe, maxWaiting)
		for i := range maxWaiting {
			pipes[i] = newPipe(9)
			go func() {
				_, err := r.Connect(t.Context(), "d", fmt.Sprintf("192.0.2.%d:1000", i+10), pipes[i], nil)
				results <- result{i, err}
			}()
			synctest.Wait()
		}
		if _, err := r.Connect(t.Context(), "d", "", newPipe(9), nil); !errors.Is(err, ErrFlapping) {
			t.Errorf("one more than may wait: %v", err)
		}
		if current.Reason() != "" {
			t.Fatalf("the current session ended: %q", current.Reason())
		}
		if n := strings.Count(log.String(), "use first-frame"); n != 1 {
			t.Errorf("the advice was logged %d times:\n%s", n, &log)
		}
		// The end of the current session gives the turn to the first connection that waits and
		// isn't closed.
		pipes[0].gone = true
		current.End(ClientClosed)
		if got := <-results; got.n != 0 || !errors.Is(got.err, ErrGone) {
			t.Errorf("got %+v, want the first to be gone", got)
		}
		if got := <-results; got.n != 1 || got.err != nil {
			t.Errorf("got %+v, want the second to be admitted", got)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("that took %v", d)
		}
		// With time the window has room again, for as many as were admitted before.
		for range maxTakeovers {
			// They come at one time, so a later one may be the first to arrive.
			if got := <-results; got.err != nil && !errors.Is(got.err, ErrSuperseded) {
				t.Errorf("got %+v", got)
			}
		}
		if d := time.Since(start); d != flapPeriod {
			t.Errorf("room after %v, want %v", d, flapPeriod)
		}
		r.CloseSessions(t.Context())
		for range maxWaiting - 2 - maxTakeovers {
			if got := <-results; !errors.Is(got.err, ErrClosing) {
				t.Errorf("at the host's stop: %+v", got)
			}
		}
	})
}

func TestReconnectsThatEvictNobodyAreNotFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		for range 20 {
			connect(t, r, "d", newPipe(9)).End(ClientClosed)
		}
	})
}

// TestRegistryModel makes random connections and ends of some devices and compares the registry
// with a map.
func TestRegistryModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.UnixMilli(1_700_000_000_000)
		var clock sync.Mutex
		o := testOptions(func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return now
		})
		o.Feed.EventsBacklog, o.Feed.EventsTotal = 1<<20, 1<<20
		r, err := NewRegistry(o)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		sub := r.feed.newSubscriber("p")
		stopped, stop := context.WithCancel(t.Context())
		stop()

		var all []*Session
		live := map[string]*Session{}
		replaced := map[string][]time.Time{}
		epochs := map[string]uint64{}
		var want []string
		device := rapid.SampledFrom([]string{"a", "b", "c"})
		rt.Repeat(map[string]func(*rapid.T){
			"connect": func(rt *rapid.T) {
				d := device.Draw(rt, "device")
				old := live[d]
				within := 0
				for _, at := range replaced[d] {
					if now.Sub(at) < flapPeriod {
						within++
					}
				}
				s, err := r.Connect(stopped, d, "", newPipe(9), nil)
				if old != nil && within >= maxTakeovers {
					if !errors.Is(err, context.Canceled) || old.Reason() != "" {
						rt.Fatalf("replaced %d times within the window, and once more: %v, the current session is %q", within, err, old.Reason())
					}
					return
				}
				if err != nil {
					rt.Fatal(err)
				}
				if s.Epoch() <= epochs[d] || s.Epoch() >= 1<<53 || s.Epoch() < uint64(now.UnixMilli()) {
					rt.Fatalf("epoch %d after %d", s.Epoch(), epochs[d])
				}
				if old != nil {
					replaced[d] = append(replaced[d], now)
					want = append(want, d+" disconnected replaced")
				}
				want = append(want, d+" connected")
				all, live[d], epochs[d] = append(all, s), s, s.Epoch()
			},
			"end any": func(rt *rapid.T) {
				if len(all) == 0 {
					return
				}
				s := rapid.SampledFrom(all).Draw(rt, "session")
				s.End(ConnectionLost)
				if d := s.Device(); live[d] == s {
					delete(live, d)
					want = append(want, d+" disconnected connection_lost")
				}
			},
			"time": func(rt *rapid.T) {
				clock.Lock()
				now = now.Add(time.Duration(rapid.IntRange(0, 6000).Draw(rt, "ms")) * time.Millisecond)
				clock.Unlock()
			},
			"": func(rt *rapid.T) {
				if n := len(r.Sessions()); n != len(live) {
					rt.Fatalf("%d live sessions, want %d", n, len(live))
				}
				for _, s := range all {
					if (s.Reason() == "") != (live[s.Device()] == s) {
						rt.Fatalf("session %d of %s: reason %q, newest %v", s.Epoch(), s.Device(), s.Reason(), live[s.Device()] == s)
					}
				}
				events := sub.events()
				if got := short(events); !slices.Equal(got, want) {
					rt.Fatalf("got the events %q, want %q", got, want)
				}
				want = nil
				for _, e := range events {
					if e.Online != (e.Type == Connected) {
						rt.Fatalf("event %+v", e)
					}
				}
			},
		})
	})
}

func TestDirectory(t *testing.T) {
	now, silent := time.UnixMilli(1000), time.Duration(0)
	d := NewDirectory(func() time.Time { return now }).(*memoryDirectory)
	claim := func(device string, want uint64) {
		t.Helper()
		if got, err := d.Claim(t.Context(), device, now.Add(-silent)); got != want || err != nil {
			t.Fatalf("Claim(%s) = %d, %v; want %d", device, got, err, want)
		}
	}
	release := func(device string, epoch uint64) {
		t.Helper()
		if err := d.Release(t.Context(), device, epoch); err != nil {
			t.Fatal(err)
		}
	}
	claim("a", 1000)
	claim("a", 1001)
	claim("b", 1000)
	release("a", 1000) // not the newest
	release("a", 1001)
	claim("a", 1002)
	now = time.UnixMilli(500) // set back
	claim("b", 1001)
	now = time.UnixMilli(5000)
	release("a", 1002)
	release("b", 1001)
	// What was heard of it before it was taken in was before what was heard of it elsewhere since.
	silent = 3 * time.Second
	claim("c", 2000)
	claim("c", 2001)
	claim("a", 2000)
	silent = 4500 * time.Millisecond
	claim("a", 2001)
	claim("e", 1000) // not before the directory
	release("a", 2001)
	release("c", 2001)
	release("e", 1000)
	now, silent = now.Add(2*rememberTime), 0
	claim("f", 605000)
	release("f", 605000)
	now = now.Add(2 * rememberTime)
	d.forgetReleased(now)
	if len(d.last) != 0 || len(d.released) != 0 {
		t.Fatalf("kept %v and %v of devices that are gone", d.last, d.released)
	}
	silent = time.Hour
	claim("a", 905000)
}

func TestCloseSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		sub := r.feed.newSubscriber("p")
		r.Start()
		p, stuck := newPipe(0), newPipe(0)
		connect(t, r, "d", p)
		connect(t, r, "stuck", stuck)
		queued, lost := enqueue(t, r, "d", "last words"), enqueue(t, r, "stuck", "x")
		time.AfterFunc(time.Second, func() { p.grant(100) })
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		r.CloseSessions(ctx)
		if w := queued.Wait(t.Context()); w.Fate != Sent || p.bytes() != "last words\n" {
			t.Errorf("queued: %+v, wrote %q", w, p.bytes())
		}
		if w := lost.Wait(t.Context()); w.Fate != Offline {
			t.Errorf("to a device that takes nothing: %+v", w)
		}
		got := short(sub.events())
		slices.Sort(got)
		want := []string{
			"d connected", "d disconnected server_shutdown", "host heartbeat", "host started", "host stopped", "stuck connected", "stuck disconnected server_shutdown",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got the events %q, want %q", got, want)
		}
		if _, err := r.Connect(t.Context(), "d", "", newPipe(1), nil); !errors.Is(err, ErrClosing) {
			t.Errorf("a device that comes later: %v", err)
		}
	})
}
