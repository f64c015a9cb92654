package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports/protocol"
)

func TestEnqueueWritesAtOnce(t *testing.T) {
	r := testRegistry(t, nil)
	p := newPipe(1 << 20)
	s := connect(t, r, "d", p)
	if w := enqueue(t, r, "d", "open").Wait(t.Context()); w.Fate != Sent || w.Epoch != s.Epoch() {
		t.Fatalf("got %+v, want Sent at epoch %d", w, s.Epoch())
	}
	if p.bytes() != "open\n" {
		t.Fatalf("the connection got %q", p.bytes())
	}
}

func TestEnqueueErrors(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.QueueCount, o.QueueBytes = 2, 20 })
	if _, err := r.Enqueue("d", []byte("x"), EnqueueOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("without a session: %v", err)
	}
	if _, err := r.Enqueue("", []byte("x"), EnqueueOptions{}); !errors.Is(err, ErrDevice) {
		t.Errorf("with a bad name: %v", err)
	}
	p := newPipe(0)
	connect(t, r, "d", p)
	if _, err := r.Enqueue("d", []byte("a\nb"), EnqueueOptions{}); !errors.Is(err, ErrPayload) {
		t.Errorf("with a payload that can't be a frame: %v", err)
	}
	if err := r.Check(protocol.Command{Device: "d", Payload: []byte("a\nb")}); !errors.Is(err, ErrPayload) {
		t.Errorf("Check: %v", err)
	}
	if err := r.Check(protocol.Command{Device: "d", Payload: []byte("ab")}); err != nil {
		t.Errorf("Check: %v", err)
	}
	enqueue(t, r, "d", "a")
	if _, err := r.Enqueue("d", []byte(strings.Repeat("x", 20)), EnqueueOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("over the bytes: %v", err)
	}
	enqueue(t, r, "d", "b")
	if _, err := r.Enqueue("d", []byte("c"), EnqueueOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("over the count: %v", err)
	}
}

func TestWaitingFramesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p := newPipe(0)
		connect(t, r, "d", p)
		var writes []Write
		for i := range 10 {
			writes = append(writes, enqueue(t, r, "d", fmt.Sprint(i)))
		}
		synctest.Wait()
		before := p.writes
		p.grant(100)
		for _, w := range writes {
			if got := w.Wait(t.Context()); got.Fate != Sent {
				t.Fatalf("got %+v", got)
			}
		}
		if n := p.writes - before; n != 1 || p.bytes() != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" {
			t.Fatalf("%d writes of %q", n, p.bytes())
		}
	})
}

func TestANewerFrameTakesThePlaceOfWaitingOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) { o.QueueCount = 5 })
		p := newPipe(1)
		connect(t, r, "d", p)
		set := func(id, what, payload string) Write {
			w, err := r.Enqueue("d", []byte(payload), EnqueueOptions{ID: id, Supersede: what})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		begun, other, old := set("c-1", "temp", "t=1"), enqueue(t, r, "d", "open"), set("c-3", "temp", "t=3")
		humid := set("c-4", "humid", "h=4")
		synctest.Wait() // a byte of the first is written
		fresh := set("c-5", "temp", "t=5")
		if got := old.Wait(t.Context()); got.Fate != Superseded || got.Detail != `command c-5 came for "temp"` {
			t.Errorf("the one that waited: %+v", got)
		}
		last := enqueue(t, r, "d", "last") // the fifth
		// One that isn't taken in takes nobody's place.
		if _, err := r.Enqueue("d", bytes.Repeat([]byte("x"), 70_000), EnqueueOptions{Supersede: "temp"}); !errors.Is(err, ErrBusy) {
			t.Errorf("too large for the queue: %v", err)
		}
		p.grant(100)
		for _, w := range []Write{begun, other, humid, fresh, last} {
			if got := w.Wait(t.Context()); got.Fate != Sent {
				t.Errorf("got %+v", got)
			}
		}
		if got := p.bytes(); got != "t=1\nopen\nh=4\nt=5\nlast\n" {
			t.Errorf("the device got %q", got)
		}
	})
}

func TestPriorityOvertakesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p := newPipe(1)
		connect(t, r, "d", p)
		var writes []Write
		for _, c := range []struct {
			payload  string
			priority int
		}{{"begun", 0}, {"a", 0}, {"b", 1}, {"stop", 9}, {"c", 1}, {"d", 0}, {"stop again", 9}} {
			w, err := r.Enqueue("d", []byte(c.payload), EnqueueOptions{Priority: c.priority})
			if err != nil {
				t.Fatal(err)
			}
			writes = append(writes, w)
			synctest.Wait()
		}
		p.grant(100)
		for _, w := range writes {
			if got := w.Wait(t.Context()); got.Fate != Sent {
				t.Errorf("got %+v", got)
			}
		}
		if got := p.bytes(); got != "begun\nstop\nstop again\nb\nc\na\nd\n" {
			t.Errorf("the device got %q", got)
		}
	})
}

func TestConditionsAreLookedAtRightBeforeTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p := newPipe(2) // "head" is cut after two bytes
		connect(t, r, "d", p)
		head := enqueue(t, r, "d", "head")
		late, err := r.Enqueue("d", []byte("late"), EnqueueOptions{Expires: time.Now().Add(time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		unwanted := enqueue(t, r, "d", "unwanted")
		last := enqueue(t, r, "d", "last")

		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if w := unwanted.Wait(cancelled); w.Fate != Cancelled {
			t.Errorf("unwanted: %+v", w)
		}
		if w := late.Wait(t.Context()); w.Fate != Expired {
			t.Errorf("late: %+v", w)
		}
		p.grant(100)
		if w := head.Wait(cancelled); w.Fate != Sent {
			t.Errorf("head, whose first byte was written: %+v", w)
		}
		if w := last.Wait(t.Context()); w.Fate != Sent {
			t.Errorf("last: %+v", w)
		}
		if p.bytes() != "head\nlast\n" {
			t.Errorf("the connection got %q", p.bytes())
		}
	})
}

func TestExpiredWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p := newPipe(0)
		connect(t, r, "d", p)
		w, err := r.Enqueue("d", []byte("late"), EnqueueOptions{Expires: time.Now().Add(time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // the bubble's clock
		p.grant(100)
		if got := w.Wait(t.Context()); got.Fate != Expired || p.bytes() != "" {
			t.Fatalf("got %+v after writing %q", got, p.bytes())
		}
	})
}

func TestTakeoverMovesWhatWasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p1, p2 := newPipe(3), newPipe(1<<10)
		s1 := connect(t, r, "d", p1)
		begun, next, last := enqueue(t, r, "d", "begun"), enqueue(t, r, "d", "next"), enqueue(t, r, "d", "last")
		synctest.Wait()
		s2 := connect(t, r, "d", p2)
		if w := begun.Wait(t.Context()); w.Fate != Unknown || w.Epoch != s1.Epoch() || !strings.Contains(w.Detail, "3 of 6") {
			t.Errorf("begun: %+v", w)
		}
		for _, w := range []Write{next, last} {
			if w := w.Wait(t.Context()); w.Fate != Sent || w.Epoch != s2.Epoch() {
				t.Errorf("got %+v, want Sent at epoch %d", w, s2.Epoch())
			}
		}
		if p2.bytes() != "next\nlast\n" {
			t.Errorf("the newer session got %q", p2.bytes())
		}
	})
}

func TestSilentDeviceEndsAtWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		s := connect(t, r, "d", newPipe(1))
		begun, next := enqueue(t, r, "d", "begun"), enqueue(t, r, "d", "next")
		start := time.Now()
		if w := begun.Wait(t.Context()); w.Fate != Unknown {
			t.Errorf("begun: %+v", w)
		}
		if w := next.Wait(t.Context()); w.Fate != Offline || s.Reason() != ConnectionLost {
			t.Errorf("next: %+v, session ended by %q", w, s.Reason())
		}
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("after %v, want the write timeout", d)
		}
	})
}

func TestConnectionErrorWhileWriting(t *testing.T) {
	r := testRegistry(t, nil)
	p := newPipe(0)
	p.tryError = errors.New("reset")
	s := connect(t, r, "d", p)
	if w := enqueue(t, r, "d", "x").Wait(t.Context()); w.Fate != Offline || s.Reason() != ConnectionLost {
		t.Fatalf("got %+v, session ended by %q", w, s.Reason())
	}
}

// TestQueueModel makes random writes, grants, ends of sessions and takeovers. Every write has one
// fate, and each connection got exactly the frames with a matching fate, in order.
func TestQueueModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubble{t}, func(rt *rapid.T) { queueModel(t, rt) })
	})
}

// bubble hides T.Deadline, which may not be called inside synctest.
type bubble struct{ testing.TB }

type modelWrite struct {
	frame  string
	sets   string
	cancel context.CancelFunc
	fate   chan Written
}

type queueModelState struct {
	t        *testing.T
	registry *Registry
	record   int // pipe.record
	writes   []*modelWrite
	connects atomic.Int64

	mu      sync.Mutex // connections are made and ended in the middle of writes too
	pipes   map[uint64]*pipe
	session *Session
	current *pipe
}

func (m *queueModelState) connect(room int) {
	p := newPipe(room)
	p.record = m.record
	// A newer connection from the same network would displace one that waits.
	remote := fmt.Sprint("network ", m.connects.Add(1))
	s, err := m.registry.Connect(m.t.Context(), "d", remote, p, nil)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session, m.current = s, p
	m.pipes[s.Epoch()] = p
}

// live returns the session that has not ended, or nil.
func (m *queueModelState) live() (*Session, *pipe) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil || m.session.Reason() != "" {
		return nil, nil
	}
	return m.session, m.current
}

func (m *queueModelState) end() {
	if s, _ := m.live(); s != nil {
		s.End(ClientClosed)
	}
}

func (m *queueModelState) enqueue(payload string, o EnqueueOptions) error {
	w, err := m.registry.Enqueue("d", []byte(payload), o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	write := &modelWrite{frame: payload + "\n", sets: o.Supersede, cancel: cancel, fate: make(chan Written, 2)}
	m.writes = append(m.writes, write)
	go func() {
		write.fate <- w.Wait(ctx)
		write.fate <- w.Wait(ctx)
	}()
	return nil
}

func queueModel(t *testing.T, rt *rapid.T) {
	r, err := NewRegistry(testOptions(time.Now))
	if err != nil {
		rt.Fatal(err)
	}
	defer r.Close()
	m := &queueModelState{t: t, registry: r, pipes: map[uint64]*pipe{}, record: rapid.SampledFrom([]int{0, 0, 1, 7, 30}).Draw(rt, "record")}
	room := rapid.IntRange(0, 30)
	rt.Repeat(map[string]func(*rapid.T){
		"connect": func(rt *rapid.T) { m.connect(room.Draw(rt, "room")) },
		"end":     func(*rapid.T) { m.end() },
		"grant": func(rt *rapid.T) {
			if _, p := m.live(); p != nil {
				p.grant(rapid.IntRange(1, 40).Draw(rt, "bytes"))
			}
		},
		"in the middle of a write": func(rt *rapid.T) {
			_, p := m.live()
			if p == nil {
				return
			}
			room := room.Draw(rt, "room")
			what := rapid.SampledFrom([]func(){m.end, func() { m.connect(room) }, func() {
				for _, w := range m.writes {
					w.cancel()
				}
				// Wait's goroutines withdraw while this goroutine is in the middle of the write.
				time.Sleep(time.Millisecond)
			}}).Draw(rt, "what")
			p.change(func() { p.onTry = what })
			p.grant(rapid.IntRange(1, 20).Draw(rt, "bytes"))
		},
		"enqueue": func(rt *rapid.T) {
			for range rapid.IntRange(1, 4).Draw(rt, "frames") {
				payload := fmt.Sprintf("%d:%s", len(m.writes), strings.Repeat("x", rapid.IntRange(0, 20).Draw(rt, "length")))
				var o EnqueueOptions
				if rapid.IntRange(0, 3).Draw(rt, "expires") == 0 {
					o.Expires = time.Now().Add(time.Duration(rapid.IntRange(-1, 3).Draw(rt, "ttl")) * time.Second)
				}
				o.Supersede = rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "sets")
				o.Gap = time.Duration(rapid.SampledFrom([]int{0, 0, 2}).Draw(rt, "gap")) * time.Second
				switch rapid.IntRange(0, 3).Draw(rt, "asks") {
				case 0:
					o.Request = &Request{Timeout: time.Duration(rapid.IntRange(1, 9).Draw(rt, "timeout")) * time.Second}
				case 1:
					tag := rapid.SampledFrom([]byte("yn")).Draw(rt, "tag")
					o.Request = &Request{Timeout: 5 * time.Second, MaxOpen: rapid.IntRange(1, 3).Draw(rt, "window"), Distinct: true, Matches: func(f []byte) bool { return f[0] == tag }}
				}
				if err := m.enqueue(payload, o); err != nil && !errors.Is(err, ErrOffline) && !errors.Is(err, ErrBusy) {
					rt.Fatal(err)
				}
			}
		},
		"says": func(rt *rapid.T) {
			if s, _ := m.live(); s != nil {
				_ = s.Data([]byte(rapid.SampledFrom([]string{"y", "n", "other"}).Draw(rt, "frame")))
			}
		},
		"cancel": func(rt *rapid.T) {
			if len(m.writes) > 0 {
				rapid.SampledFrom(m.writes).Draw(rt, "write").cancel()
			}
		},
		"time": func(rt *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second) },
		"":     func(rt *rapid.T) { m.checkRequests(rt) },
	})
	m.end()
	time.Sleep(time.Second) // for the writers to end
	synctest.Wait()
	m.verify(rt)
}

// checkRequests checks that no more requests are open than each of them allows, and that every
// frame that may be written is written.
func (m *queueModelState) checkRequests(rt *rapid.T) {
	synctest.Wait()
	s := m.registry.slotOf("d")
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.requests.open {
		if n := len(s.requests.open); f.request.isExclusive() && n > 1 || !f.request.isExclusive() && n > f.request.MaxOpen && f == s.requests.open[n-1] {
			rt.Fatalf("%d questions are open", n)
		}
	}
	if h := s.queue.head; h != nil && !s.queue.writing {
		if ok, at := s.mayWrite(h, 0); ok || at.IsZero() && len(s.requests.open) == 0 {
			rt.Fatal("the first frame may be written, and nobody does")
		}
	}
}

// verify holds what each connection got against the fates.
func (m *queueModelState) verify(rt *rapid.T) {
	want := map[uint64]string{}
	cut := map[uint64]string{}
	for i, w := range m.writes {
		var fates [2]Written
		for j := range fates {
			select {
			case fates[j] = <-w.fate:
			default:
				rt.Fatalf("write %d never ended", i)
			}
		}
		first, second := fates[0], fates[1]
		w.cancel()
		if first != second {
			rt.Fatalf("write %d ended as %+v and as %+v", i, first, second)
		}
		switch first.Fate {
		case Sent, Answered, NoReply:
			if cut[first.Epoch] != "" {
				rt.Fatalf("write %d was sent at epoch %d after one that was cut", i, first.Epoch)
			}
			want[first.Epoch] += w.frame
		case Unknown:
			cut[first.Epoch] += w.frame
		case Superseded:
			if w.sets == "" || !slices.ContainsFunc(m.writes[i+1:], func(newer *modelWrite) bool { return newer.sets == w.sets }) {
				rt.Fatalf("write %d is superseded, but by none", i)
			}
		case Expired, Cancelled, Offline:
		default:
			rt.Fatalf("write %d ended as %+v", i, first)
		}
	}
	for epoch, p := range m.pipes {
		if p.broken != "" {
			rt.Fatal(p.broken)
		}
		rest, ok := strings.CutPrefix(p.bytes(), want[epoch])
		if !ok || (rest == "") != (cut[epoch] == "") || rest != "" && (!strings.HasPrefix(cut[epoch], rest) || rest == cut[epoch]) {
			rt.Fatalf("epoch %d got %q; the frames that were sent are %q, the one that was cut is %q", epoch, p.bytes(), want[epoch], cut[epoch])
		}
	}
}

func BenchmarkEnqueue(b *testing.B) {
	r, err := NewRegistry(testOptions(time.Now))
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Connect(b.Context(), "d", "", sink{}, nil); err != nil {
		b.Fatal(err)
	}
	payload := []byte("open door 7")
	b.ReportAllocs()
	for b.Loop() {
		w, err := r.Enqueue("d", payload, EnqueueOptions{})
		if err != nil || w.Wait(b.Context()).Fate != Sent {
			b.Fatal(err)
		}
	}
}

// sink is a connection that takes everything.
type sink struct{}

func (sink) TryWrite(p []byte) (taken, begun int, err error) { return len(p), len(p), nil }
func (sink) WaitWritable(time.Time) error                    { return nil }
func (sink) Gone() bool                                      { return false }
func (sink) Unread() bool                                    { return false }
func (sink) SilentFor() time.Duration                        { return 0 }
func (sink) Close() error                                    { return nil }
func (sink) Heard() bool                                     { return true }
func (sink) Authenticated() bool                             { return false }
func (sink) Probe()                                          {}
func (sink) LastRead() time.Time                             { return time.Time{} }

func TestCancelledInTheMiddleOfAWriteThatTookNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		p := newPipe(0)
		connect(t, r, "d", p)
		w := enqueue(t, r, "d", "x")
		ctx, cancel := context.WithCancel(t.Context())
		p.change(func() {
			p.spurious = true
			p.onTry = func() {
				cancel()
				time.Sleep(time.Millisecond) // Wait withdraws the frame now
			}
		})
		if got := w.Wait(ctx); got.Fate != Cancelled || p.bytes() != "" {
			t.Fatalf("got %+v after writing %q", got, p.bytes())
		}
	})
}
