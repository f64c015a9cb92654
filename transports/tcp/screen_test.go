package tcp

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// listed is an inventory that a test changes.
type listed struct {
	mu       sync.Mutex
	names    map[string]bool
	tokens   map[string][]device.TokenHash
	watchers []func([]string)
}

func (l *listed) Known(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[name]
}

func (l *listed) Tokens(name string) []device.TokenHash {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens[name]
}

func (l *listed) Labels(string) map[string]string { return nil }

func (l *listed) Select(map[string]string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.names))
}

func (l *listed) Watch(f func([]string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers = append(l.watchers, f)
}

// set changes the list.
func (l *listed) set(names ...string) {
	l.mu.Lock()
	before := l.names
	l.names = map[string]bool{}
	for _, name := range names {
		l.names[name] = true
	}
	var gone []string
	for name := range before {
		if !l.names[name] {
			gone = append(gone, name)
		}
	}
	watchers := l.watchers
	l.mu.Unlock()
	for _, f := range watchers {
		f(gone)
	}
}

// screened makes and starts a transport that takes known devices alone.
func screened(t *testing.T, by string, names ...string) (*server, *listed) {
	t.Helper()
	known := &listed{}
	known.set(names...)
	s := startWith(t, func(c *Config) { c.Allow, c.Identity.By = allowKnown, by }, known)
	return s, known
}

// refusedOnce waits until one connection of a device that the inventory lacks was refused.
func (s *server) refusedOnce() {
	s.Helper()
	await.That(s.T, "the refusal is counted", func() (any, bool) {
		n := s.refused(refusedUnknown)
		return n, n == 1
	})
}

func TestStrangersAreRefusedByAddress(t *testing.T) {
	s, known := screened(t, byAddress, "127.1.0.1")
	stranger, name := s.dialAs(2)
	stranger.closed()
	friend, friendly := s.dialAs(1)
	s.expect(device.Connected, friendly, "")
	s.refusedOnce()
	s.logged(fmt.Sprintf(`the inventory has no device \"%s\"`, name))
	if w := s.send(friendly, "open"); w.Fate != device.Sent {
		t.Errorf("%+v", w)
	}
	friend.hear("open\r\n")

	known.set("127.1.0.1", name)
	again, _ := s.dialAs(2)
	s.expect(device.Connected, name, "")
	again.Close()
	s.expect(device.Disconnected, name, device.ClientClosed)
}

func TestStrangersAreRefusedAfterTheirFirstFrame(t *testing.T) {
	s, _ := screened(t, byFirstFrame, "lock-1")
	stranger := s.dial()
	stranger.say("lock-2\n")
	stranger.closed()
	s.refusedOnce()
	friend := s.dial()
	friend.say("lock-1\nhello\n")
	s.expect(device.Connected, "lock-1", "")
	if got := s.frame(); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestDevicesThatLeaveTheInventoryAreKicked(t *testing.T) {
	s, known := screened(t, byAddress, "127.1.0.1", "127.1.0.2")
	stays, staying := s.dialAs(1)
	s.expect(device.Connected, staying, "")
	goes, going := s.dialAs(2)
	s.expect(device.Connected, going, "")
	known.set(staying)
	goes.closed()
	if e := s.expect(device.Disconnected, going, device.Kicked); e.Detail != notListed {
		t.Errorf("%+v", e)
	}
	if w := s.send(staying, "open"); w.Fate != device.Sent {
		t.Errorf("%+v", w)
	}
	stays.hear("open\r\n")
}

// A device that leaves the list in the middle of its connect is seen by one of both who look.
func TestLeavingWhileConnecting(t *testing.T) {
	s, known := screened(t, byAddress)
	for range 50 {
		known.set("127.1.0.1")
		p, name := s.dialAs(1)
		known.set()
		p.closed()
		await.That(t, "no session is left", func() (any, bool) {
			epoch := s.Devices().Epoch(name)
			return epoch, epoch == 0
		})
	}
}

func TestAnyDeviceIsTakenByDefault(t *testing.T) {
	known := &listed{}
	known.set("10.0.0.7")
	s := startWith(t, nil, known)
	_, name := s.dialAs(1)
	s.expect(device.Connected, name, "")
	known.set()
	if s.Devices().Epoch(name) == 0 {
		t.Error("it is gone")
	}
}

func TestAllowKnownNeedsAnInventory(t *testing.T) {
	c := testConfig()
	c.Allow = allowKnown
	if c.Needs().Inventory != `allow = "known"` || testConfig().Needs().Inventory != "" {
		t.Error("the configuration doesn't say what it needs")
	}
	tr, err := c.New(env(&logBuffer{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Start(t.Context()); err == nil {
		t.Error("it starts without")
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
