package device

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// keyed is a protocol in which the text before a colon is the key of a command and its answer.
type keyed struct{ lines }

func (k keyed) Split(_ *protocol.State, data []byte, seen int) (int, []byte, error) {
	return k.lines.Split(data, seen)
}

func (keyed) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	if key, _, ok := strings.Cut(string(frame), ":"); ok {
		v.Answers, v.Key = protocol.Yes, key
	}
	return nil
}

func (keyed) HasKeys() bool { return true }

func (keyed) Encode(s *protocol.State, dst []byte, c protocol.Command) ([]byte, string, error) {
	key, _, _ := strings.Cut(string(c.Payload), ":")
	if s.Awaits(key) {
		return dst, "", protocol.ErrLater
	}
	return append(dst, c.Payload...), key, nil
}

// keyedDevice is askingDevice for a device with the protocol keyed.
func keyedDevice(t *testing.T, test func(a *asking, says func(frames ...string))) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) {
			o.Feed.DataPerDevice, o.Feed.DataTotal, o.Protocol = 100, 100, keyed{}
		})
		a := &asking{T: t, registry: r, data: r.feed.newSubscriber("d"), begun: time.Now(), pipe: newPipe(1 << 20)}
		dialog := NewDialog(keyed{}, netip.AddrPort{}, "d")
		var err error
		if a.session, err = r.Connect(t.Context(), "d", "", a.pipe, dialog); err != nil {
			t.Fatal(err)
		}
		test(a, func(frames ...string) {
			for _, f := range frames {
				v, err := dialog.Decode([]byte(f))
				if err == nil {
					err = a.session.Receive([]byte(f), v)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		})
	})
}

// The late answer to a command could be taken for the answer to a later command with the same key.
// A command with another key needn't wait for it.
func TestALateAnswerOfTheSameKey(t *testing.T) {
	keyedDevice(t, func(a *asking, says func(...string)) {
		first := a.ask("x:1?", next(time.Second))
		a.read("x:1?")
		time.Sleep(time.Second)
		a.ends(first, NoReply, "", "no answer came within 1s")
		other, second := a.ask("y:2?", next(time.Second)), a.ask("x:3?", next(time.Second))
		a.read("x:1?", "y:2?")
		says("y:2", "x:1")
		a.ends(other, Answered, "y:2", "")
		a.published("x:1 late for x:1?")
		a.read("x:1?", "y:2?", "x:3?")
		says("hello", "", "x:3")
		a.ends(second, Answered, "x:3", "")
		a.published("hello", "")
	})
}

// panicky is a protocol with mistakes.
type panicky struct{}

func (panicky) Max() int { return 1 }

func (panicky) Split(*protocol.State, []byte, int) (int, []byte, error) { panic("split") }

func (panicky) Append([]byte, []byte) ([]byte, error) { panic("append") }

func (panicky) Decode(*protocol.State, []byte, *protocol.Verdict) error { panic("decode") }

func (panicky) Encode(*protocol.State, []byte, protocol.Command) ([]byte, string, error) {
	panic("encode")
}

func (panicky) Greet(*protocol.State, *protocol.Verdict) error { panic("greet") }

func (panicky) Tick(*protocol.State, time.Time, *protocol.Verdict) error { panic("tick") }

// A mistake of a protocol ends a connection or rejects a command, and not the host.
func TestAProtocolPanics(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.Protocol = panicky{} })
	d := NewDialog(panicky{}, netip.AddrPort{}, "d")
	p := newPipe(100)
	s, err := r.Connect(t.Context(), "d", "", p, d)
	if err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]func() error{
		"split":  func() error { _, _, err := d.Split([]byte("x"), 0); return err },
		"decode": func() error { _, err := d.Decode([]byte("x")); return err },
		"greet":  func() error { _, err := d.Greet(); return err },
		"append": func() error { return s.Receive([]byte("x"), &protocol.Verdict{Response: []byte("y")}) },
		"encode": func() error { return r.Check(protocol.Command{Device: "d", Payload: []byte("x")}) },
		"tick": func() error {
			d.state.Wake = time.Now()
			_, err := s.Tick(time.Now())
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "the protocol panicked: "+want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if got := enqueue(t, r, "d", "x").Wait(t.Context()); got.Fate != Rejected || !strings.HasSuffix(got.Detail, "the protocol panicked: encode") {
		t.Errorf("got %+v", got)
	}
}

// greedy is a protocol that always needs more bytes.
type greedy struct{ keyed }

func (greedy) Split(*protocol.State, []byte, int) (int, []byte, error) { return 0, nil, nil }
func (greedy) Max() int                                                { return 8 }

// A protocol that never finds a frame can't fill the memory.
func TestMaxHolds(t *testing.T) {
	d := NewDialog(greedy{}, netip.AddrPort{}, "d")
	if _, _, err := d.Split([]byte("1234567"), 0); err != nil {
		t.Error(err)
	}
	if _, _, err := d.Split([]byte("12345678"), 7); !errors.Is(err, codec.ErrFrame) {
		t.Errorf("got %v", err)
	}
}
