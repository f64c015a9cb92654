package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// numbered is a protocol that numbers the frames of a connection. A device would close the
// connection if a number were missing. Its keys are the first words of commands.
type numbered struct {
	lines
	// window is how many frames may be written on a connection; 0 means any number.
	window uint32
}

func (p *numbered) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	return p.lines.Split(data, seen)
}

func (p *numbered) Decode(*protocol.State, []byte, *protocol.Verdict) error { return nil }

func (p *numbered) Tick(s *protocol.State, _ time.Time, v *protocol.Verdict) error {
	v.Response = fmt.Appendf(nil, "tick after %d", s.Number)
	return nil
}

func (p *numbered) HasKeys() bool { return true }

func (p *numbered) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	key, _, _ := strings.Cut(string(c.Payload), " ")
	switch {
	case key == "never":
		return dst, "", codec.ErrPayload
	case key == "refused" && s.Peer.IsValid():
		return dst, "", fmt.Errorf("%w: the device is in local mode", codec.ErrPayload)
	case p.window > 0 && s.Number >= p.window, s.Awaits(key):
		return dst, "", protocol.ErrLater
	}
	s.Number++
	return fmt.Appendf(dst, "%d %s", s.Number, c.Payload), key, nil
}

// connectNumbered connects a device that speaks the protocol.
func connectNumbered(t *testing.T, r *Registry, name string, p *pipe) *Session {
	t.Helper()
	s, err := r.Connect(t.Context(), name, "", p, NewDialog(r.protocol, netip.MustParseAddrPort("192.0.2.1:40000"), name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func numberedRegistry(t *testing.T, p *numbered) *Registry {
	t.Helper()
	return testRegistry(t, func(o *Options) { o.Protocol = p })
}

// A protocol with timers isn't called while bytes of the device wait to be handled.
func TestTicksWaitForUnreadBytes(t *testing.T) {
	r := numberedRegistry(t, &numbered{})
	p := newPipe(1000)
	s := connectNumbered(t, r, "d", p)
	s.dialog.state.Wake = time.Now().Add(-time.Second)
	for _, unread := range []bool{true, false, false} { // the second one takes the time away
		p.change(func() { p.unread = unread })
		if problem, err := s.Tick(time.Now()); problem != "" || err != nil {
			t.Errorf("got %q, %v", problem, err)
		}
		if unread && p.bytes() != "" {
			t.Errorf("the device got %q", p.bytes())
		}
	}
	if got, want := p.bytes(), "tick after 0\n"; got != want {
		t.Errorf("the device got %q, want %q", got, want)
	}
	s.dialog.state.Wake = time.Now()
	s.End(Kicked)
	if _, err := s.Tick(time.Now()); err != nil || p.bytes() != "tick after 0\n" {
		t.Errorf("after the end: %v, %q", err, p.bytes())
	}
}

// A command without a key, in a protocol that has keys, isn't answered by a frame with a key.
func TestAKeyOfAnotherCommand(t *testing.T) {
	r := numberedRegistry(t, &numbered{})
	s := connectNumbered(t, r, "d", newPipe(1000))
	w, err := r.Enqueue("d", []byte(" no key"), EnqueueOptions{Request: &Request{Timeout: await.Patience}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []protocol.Verdict{{Answers: protocol.Yes, Key: "other"}, {}} {
		if err := s.Receive([]byte("answer"), &v); err != nil {
			t.Fatal(err)
		}
		if got := r.Live()[0].OpenRequests; got != map[bool]int{true: 1, false: 0}[v.Key != ""] {
			t.Errorf("%d requests are open after %+v", got, v)
		}
	}
	if got := w.Wait(t.Context()); got.Fate != Answered {
		t.Errorf("got %+v", got)
	}
}

// Commands that end before they are written leave no gap in the numbers.
func TestNumbersHaveNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(3)
		connectNumbered(t, r, "d", p)
		first := enqueue(t, r, "d", "first") // the kernel takes a part of it
		synctest.Wait()
		put := func(cmd string, o EnqueueOptions) Write {
			w, err := r.Enqueue("d", []byte(cmd), o)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		withdrawn, cancel := context.WithCancel(t.Context())
		cancel()
		if got := put("withdrawn", EnqueueOptions{}).Wait(withdrawn); got.Fate != Cancelled {
			t.Errorf("got %+v", got)
		}
		late := put("late", EnqueueOptions{Expires: time.Now().Add(time.Second)})
		old := put("old", EnqueueOptions{Supersede: "x"})
		newer := put("newer", EnqueueOptions{Supersede: "x"})
		urgent := put("urgent", EnqueueOptions{Priority: 1})
		time.Sleep(2 * time.Second)
		p.grant(100)
		for w, want := range map[Write]Fate{first: Sent, late: Expired, old: Superseded, newer: Sent, urgent: Sent} {
			if got := w.Wait(t.Context()); got.Fate != want {
				t.Errorf("got %+v, want %v", got, want)
			}
		}
		if got, want := p.bytes(), "1 first\n2 urgent\n3 newer\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
	})
}

// A command that is encoded is written, although it would otherwise be superseded, withdrawn,
// overtaken or too late. A response doesn't overtake it either.
func TestWhatIsEncodedIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(3)
		s := connectNumbered(t, r, "d", p)
		enqueue(t, r, "d", "first")
		synctest.Wait()
		put := func(cmd string, o EnqueueOptions) Write {
			w, err := r.Enqueue("d", []byte(cmd), o)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		encoded := []Write{
			put("a", EnqueueOptions{Supersede: "x"}),
			put("b", EnqueueOptions{Expires: time.Now().Add(time.Second)}),
			put("c", EnqueueOptions{}),
		}
		p.grant(6) // the rest of the first frame, and a byte more
		synctest.Wait()
		if got := p.bytes(); got != "1 first\n2" {
			t.Fatalf("the device got %q", got)
		}
		p.grant(1) // the rest is picked again
		synctest.Wait()
		put("newer", EnqueueOptions{Supersede: "x"})
		put("urgent", EnqueueOptions{Priority: 9})
		s.dialog.mu.Lock()
		s.dialog.state.Wake = time.Now()
		s.dialog.mu.Unlock()
		if problem, err := s.Tick(time.Now()); problem != "" || err != nil {
			t.Errorf("got %q, %v", problem, err)
		}
		withdrawn, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		fates := make(chan Fate, len(encoded))
		for _, w := range encoded {
			go func() { fates <- w.Wait(withdrawn).Fate }()
		}
		time.Sleep(3 * time.Second)
		p.grant(100)
		for range encoded {
			if got := <-fates; got != Sent {
				t.Errorf("an encoded command ended as %v", got)
			}
		}
		synctest.Wait()
		if got, want := p.bytes(), "1 first\n2 a\n3 b\n4 c\ntick after 4\n5 urgent\n6 newer\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
	})
}

// A command that was encoded for an earlier session and not written is encoded again. It may have
// been withdrawn, or the device may have gone offline.
func TestTheNextSessionEncodesAgain(t *testing.T) {
	for _, tt := range []struct {
		name     string
		withdraw bool
		offline  bool
		want     string
		fates    []Fate
	}{
		{name: "replaced", want: "1 b\n2 c\n3 d\n", fates: []Fate{Unknown, Sent, Sent, Sent}},
		{name: "withdrawn", withdraw: true, want: "1 c\n2 d\n", fates: []Fate{Unknown, Cancelled, Sent, Sent}},
		{name: "offline", offline: true, fates: []Fate{Unknown, Offline, Offline, Offline}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := numberedRegistry(t, &numbered{})
				p := newPipe(2)
				s := connectNumbered(t, r, "d", p)
				block := enqueue(t, r, "d", "block")
				synctest.Wait()
				writes := []Write{enqueue(t, r, "d", "a"), enqueue(t, r, "d", "b"), enqueue(t, r, "d", "c")}
				p.grant(7)
				synctest.Wait()
				if got := block.Wait(t.Context()); got.Fate != Sent || p.bytes() != "1 block\n2" {
					t.Fatalf("got %+v, %q", got, p.bytes())
				}
				p.grant(1) // b and c are picked again, and none of their bytes is taken
				synctest.Wait()
				writes = append(writes, enqueue(t, r, "d", "d"))
				if tt.withdraw {
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					go writes[1].Wait(ctx)
					synctest.Wait()
				}
				next := newPipe(100)
				if tt.offline {
					s.End(Kicked)
				} else {
					connectNumbered(t, r, "d", next)
				}
				for i, w := range writes {
					if got := w.Wait(t.Context()); got.Fate != tt.fates[i] {
						t.Errorf("command %d: got %+v, want %v", i, got, tt.fates[i])
					}
				}
				if got := next.bytes(); got != tt.want {
					t.Errorf("the next session has %q, want %q", got, tt.want)
				}
				if n := r.shardOf("d").slots["d"]; n != nil && (n.queue.bytes != 0 || n.queue.count != 0) {
					t.Errorf("the queue counts %d frames of %d bytes", n.queue.count, n.queue.bytes)
				}
			})
		})
	}
}

// A response may be picked together with commands, and the kernel may take none of it. The
// commands are still encoded again for the next session.
func TestTheNextSessionEncodesAgainWhatIsBehindAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(2)
		s := connectNumbered(t, r, "d", p)
		enqueue(t, r, "d", "block")
		synctest.Wait()
		respond := make(chan error, 1)
		go func() { respond <- s.Respond([]byte("response\n")) }()
		synctest.Wait()
		w := enqueue(t, r, "d", "a")
		p.grant(6) // the rest of the first frame
		synctest.Wait()
		if got, want := p.bytes(), "1 block\n"; got != want {
			t.Fatalf("the device got %q, want %q", got, want)
		}
		next := newPipe(100)
		connectNumbered(t, r, "d", next)
		if got := w.Wait(t.Context()); got.Fate != Sent {
			t.Errorf("got %+v", got)
		}
		if got, want := next.bytes(), "1 a\n"; got != want {
			t.Errorf("the next session has %q, want %q", got, want)
		}
		if err := <-respond; !errors.Is(err, ErrEnded) {
			t.Errorf("the response ended with %v", err)
		}
	})
}

// The end of a session releases the goroutine that waits for its response, even if the next
// session can't be written to yet.
func TestAResponseEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &numbered{}
		r := numberedRegistry(t, p)
		old := newPipe(2)
		s := connectNumbered(t, r, "d", old)
		enqueue(t, r, "d", "block")
		enqueue(t, r, "d", "a")
		synctest.Wait()
		old.grant(6) // the rest of the first frame: the second one is encoded
		synctest.Wait()
		respond := make(chan error, 1)
		go func() { respond <- s.Respond([]byte("response\n")) }()
		synctest.Wait()
		p.window = 1
		next := newPipe(0)
		dialog := NewDialog(r.protocol, s.dialog.state.Peer, "d")
		dialog.state.Number = 1 // the window is full
		if _, err := r.Connect(t.Context(), "d", "", next, dialog); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-respond:
			if !errors.Is(err, ErrEnded) {
				t.Errorf("the response ended with %v", err)
			}
		default:
			t.Error("the response still waits")
		}
	})
}

// While the protocol's window is full, commands wait at their places. Each frame of the device,
// and the time, let the host try again.
func TestAFullWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proto := &numbered{window: 2}
		r := numberedRegistry(t, proto)
		p := newPipe(1000)
		s := connectNumbered(t, r, "d", p)
		var writes []Write
		for i := range 4 {
			writes = append(writes, enqueue(t, r, "d", fmt.Sprint("c", i)))
		}
		urgent, err := r.Enqueue("d", []byte("urgent"), EnqueueOptions{Priority: 1})
		if err != nil {
			t.Fatal(err)
		}
		late, err := r.Enqueue("d", []byte("late"), EnqueueOptions{Expires: time.Now().Add(10 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		if got := late.Wait(t.Context()); got.Fate != Expired {
			t.Errorf("got %+v", got)
		}
		if got, want := p.bytes(), "1 c0\n2 c1\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
		s.dialog.mu.Lock()
		proto.window = 3
		s.dialog.mu.Unlock()
		if err := s.Receive([]byte("acknowledged"), &protocol.Verdict{NoData: true}); err != nil {
			t.Fatal(err)
		}
		if got := urgent.Wait(t.Context()); got.Fate != Sent {
			t.Errorf("got %+v", got)
		}
		s.dialog.mu.Lock()
		proto.window = 10
		s.dialog.mu.Unlock()
		if got := writes[3].Wait(t.Context()); got.Fate != Sent {
			t.Errorf("got %+v", got)
		}
		if got, want := p.bytes(), "1 c0\n2 c1\n3 urgent\n4 c2\n5 c3\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
	})
}

// The protocol can refuse a command that Check accepted.
func TestAProtocolRejectsAtTheWrite(t *testing.T) {
	r := numberedRegistry(t, &numbered{window: 1})
	p := newPipe(1000)
	connectNumbered(t, r, "d", p)
	if err := r.Check(protocol.Command{Device: "d", Payload: []byte("never")}); !errors.Is(err, ErrPayload) {
		t.Errorf("got %v", err)
	}
	if err := r.Check(protocol.Command{Device: "d", Payload: []byte("refused")}); err != nil {
		t.Errorf("got %v", err)
	}
	if got := enqueue(t, r, "d", "refused").Wait(t.Context()); got.Fate != Rejected || !strings.Contains(got.Detail, "local mode") {
		t.Errorf("got %+v", got)
	}
	if got := enqueue(t, r, "d", "go").Wait(t.Context()); got.Fate != Sent || p.bytes() != "1 go\n" {
		t.Errorf("got %+v; the device got %q", got, p.bytes())
	}
}

// A key that isn't unique is used again only when no earlier answer can arrive any more.
func TestAKeyIsAwaitedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(1000)
		s := connectNumbered(t, r, "d", p)
		ask := func(cmd string) Write {
			w, err := r.Enqueue("d", []byte(cmd), EnqueueOptions{ID: cmd, Request: &Request{Timeout: 5 * time.Second, MaxOpen: 3}})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		answer := func(key string) {
			if err := s.Receive([]byte("answer to "+key), &protocol.Verdict{Answers: protocol.Yes, Key: key}); err != nil {
				t.Fatal(err)
			}
		}
		open, other, closing := ask("valve open"), ask("pump on"), ask("valve close")
		if got, want := p.bytes(), "1 valve open\n2 pump on\n"; got != want {
			t.Fatalf("the device got %q, want %q", got, want)
		}
		answer("valve")
		answer("pump")
		if got := open.Wait(t.Context()); got.Fate != Answered {
			t.Errorf("got %+v", got)
		}
		if got := other.Wait(t.Context()); got.Fate != Answered {
			t.Errorf("got %+v", got)
		}
		if got := closing.Wait(t.Context()); got.Fate != NoReply {
			t.Errorf("got %+v", got)
		}
		again := ask("valve open")
		answer("valve") // late for the close
		time.Sleep(4 * time.Second)
		answer("valve")
		if got := again.Wait(t.Context()); got.Fate != Answered {
			t.Errorf("got %+v", got)
		}
	})
}

// Commands with the same key aren't written together.
func TestEqualKeysArePickedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(2)
		connectNumbered(t, r, "d", p)
		enqueue(t, r, "d", "block")
		synctest.Wait()
		for _, cmd := range []string{"k one", "k two"} {
			if _, err := r.Enqueue("d", []byte(cmd), EnqueueOptions{Request: &Request{Timeout: time.Minute, MaxOpen: 5}}); err != nil {
				t.Fatal(err)
			}
		}
		p.grant(100)
		synctest.Wait()
		if got, want := p.bytes(), "1 block\n2 k one\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
	})
}

// A device that sends and doesn't read can't fill the memory with its responses.
func TestConfirmedResponsesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		p := newPipe(1)
		s := connectNumbered(t, r, "d", p)
		var received atomic.Int64
		ended := make(chan error)
		go func() {
			for {
				if err := s.Receive([]byte("x"), &protocol.Verdict{Response: []byte("safe"), Confirmed: true}); err != nil {
					ended <- err
					return
				}
				received.Add(1)
				time.Sleep(time.Millisecond)
			}
		}()
		time.Sleep(10 * time.Second)
		if got, want := received.Load(), int64(maxResponses+1); got != want {
			t.Errorf("%d frames are received, want %d", got, want)
		}
		p.grant(1000)
		time.Sleep(10 * time.Millisecond)
		if received.Load() <= maxResponses+1 {
			t.Error("the device reads, and its frames aren't received")
		}
		p.change(func() { p.room = 0 })
		time.Sleep(time.Second)
		s.End(Kicked)
		if err := <-ended; !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
	})
}

// Whatever happens to commands, each connection gets the numbers 1, 2, 3 and so on, and its last
// frame may be cut off.
func TestNumbersOfRandomCommands(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same cases in each run
			r := numberedRegistry(t, &numbered{})
			var pipes []*pipe
			dial := func() {
				pipes = append(pipes, newPipe(rnd.IntN(20)))
				connectNumbered(t, r, "d", pipes[len(pipes)-1])
			}
			dial()
			for range 60 {
				switch rnd.IntN(12) {
				case 0:
					dial()
				case 1, 2, 3, 4:
					pipes[len(pipes)-1].grant(rnd.IntN(30))
				case 5:
					time.Sleep(time.Second)
				default:
					o := EnqueueOptions{Priority: rnd.IntN(3)}
					if rnd.IntN(3) == 0 {
						o.Supersede = fmt.Sprint(rnd.IntN(3))
					}
					if rnd.IntN(3) == 0 {
						o.Expires = time.Now().Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(9000))*time.Millisecond)
					w, err := r.Enqueue("d", []byte("go"), o)
					if err != nil {
						t.Fatal(err)
					}
					go func() {
						defer cancel()
						w.Wait(ctx)
					}()
				}
				if rnd.IntN(2) == 0 {
					synctest.Wait()
				}
			}
			pipes[len(pipes)-1].grant(10000)
			synctest.Wait()
			s := r.slotOf("d")
			if s.queue.count != 0 || s.queue.bytes != 0 {
				t.Errorf("seed %d: the queue counts %d frames of %d bytes", seed, s.queue.count, s.queue.bytes)
			}
			for i, p := range pipes {
				got := strings.SplitAfter(p.bytes(), "\n")
				var want []string
				for n := range got {
					want = append(want, fmt.Sprintf("%d go\n", n+1))
				}
				last := len(got) - 1
				if !slices.Equal(got[:last], want[:last]) || !strings.HasPrefix(want[last], got[last]) {
					t.Fatalf("seed %d: connection %d got %q", seed, i, p.bytes())
				}
			}
		})
	}
}
