package listen

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

func TestMain(m *testing.M) { await.Main(m) }

// socket is a connection of which only the peer's address matters.
type socket struct {
	net.Conn
	from   string
	closed bool
}

func (s *socket) RemoteAddr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", s.from)
	if err != nil {
		panic(err)
	}
	return addr
}

func (s *socket) Close() error { s.closed = true; return nil }

// crowd is a gate with its connections in the order in which they came.
type crowd struct {
	*Gate
	conns   []*Conn
	refused []error
}

func newCrowd(limits Limits) *crowd {
	c := &crowd{}
	c.Gate = NewGate(limits, slog.New(slog.DiscardHandler), func(_ net.Conn, err error) { c.refused = append(c.refused, err) })
	return c
}

// connect opens a connection from an address, and returns it, or nil if it is refused.
func (c *crowd) connect(from string) *Conn {
	conn := c.admit(&socket{from: from})
	if conn != nil {
		c.conns = append(c.conns, conn)
	}
	return conn
}

// open returns the numbers of the open connections. The first connection has the number 0.
func (c *crowd) open() string {
	var open []string
	for i, conn := range c.conns {
		if !conn.Conn.(*socket).closed {
			open = append(open, fmt.Sprint(i))
		}
	}
	return strings.Join(open, " ")
}

func TestWhichConnectionIsDisplaced(t *testing.T) {
	const a, b, d = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"
	for _, c := range []struct {
		name   string
		limits Limits
		come   []string
		kept   []int // before the last comes
		spare  []int
		open   string
	}{
		{"nobody, up to the limit", Limits{Max: 3}, []string{a, a, a}, nil, nil, "0 1 2"},
		{"nobody without a limit", Limits{}, []string{a, a, a, a}, nil, nil, "0 1 2 3"},
		{"the oldest of one address", Limits{Max: 3}, []string{a, a, a, a}, nil, nil, "1 2 3"},
		{"of the address with the most", Limits{Max: 4}, []string{b, a, a, a, d}, nil, nil, "0 2 3 4"},
		{"the newcomer's own", Limits{Max: 4}, []string{b, a, a, a, a}, nil, nil, "0 2 3 4"},
		{"the oldest of many addresses", Limits{Max: 3}, []string{a, b, d, "10.0.0.4:1"}, nil, nil, "1 2 3"},
		{"no kept one", Limits{Max: 3}, []string{a, a, a, a}, []int{0}, nil, "0 2 3"},
		{"a spare one when there is nothing else", Limits{Max: 3}, []string{a, a, b, d}, []int{0}, []int{1, 2}, "0 2 3"},
		{"no spare one before an unidentified one", Limits{Max: 3}, []string{a, a, b, d}, nil, []int{0, 1}, "0 1 3"},
		{"an unidentified one, of its own limit", Limits{Max: 9, Unidentified: 2}, []string{a, b, b, b}, []int{0}, nil, "0 2 3"},
		{"by the share of descriptors", Limits{Max: 9, Share: 2}, []string{a, a, a}, nil, nil, "1 2"},
		{"a network of IPv6 addresses as one", Limits{Max: 3}, []string{a, "[2001:db8::1]:1", "[2001:db8::ffff:2]:1", "[2001:db8:0:1::1]:1"}, nil, nil, "0 2 3"},
		{"an IPv4 address in IPv6 as IPv4", Limits{Max: 3}, []string{b, a, "[::ffff:10.0.0.1]:1", d}, nil, nil, "0 2 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			crowd := newCrowd(c.limits)
			last := len(c.come) - 1
			for _, from := range c.come[:last] {
				crowd.connect(from)
			}
			for _, i := range c.kept {
				if !crowd.conns[i].Keep() {
					t.Errorf("connection %d was displaced", i)
				}
			}
			for _, i := range c.spare {
				crowd.conns[i].Spare()
			}
			crowd.connect(c.come[last])
			if got := crowd.open(); got != c.open {
				t.Errorf("open: %s, want %s", got, c.open)
			}
			for _, conn := range crowd.conns {
				if closed := conn.Conn.(*socket).closed; conn.Displaced() != closed || conn.Keep() == closed {
					t.Errorf("a connection is displaced: %v, and closed: %v", conn.Displaced(), closed)
				}
			}
		})
	}
}

func TestWhenAllAreKept(t *testing.T) {
	crowd := newCrowd(Limits{Max: 2})
	for range 2 {
		crowd.connect("10.0.0.1:1").Keep()
	}
	if err := crowd.Err(); err != nil {
		t.Errorf("nobody was refused yet: %v", err)
	}
	if crowd.connect("10.0.0.2:1") != nil || len(crowd.refused) != 1 {
		t.Fatalf("a third one was not refused: %v", crowd.refused)
	}
	if err := crowd.Err(); err == nil || !strings.Contains(err.Error(), "all 2 that max_connections allows are in use; further ones are refused") {
		t.Errorf("got %v", err)
	}
	crowd.conns[0].Close()
	if err := crowd.Err(); err != nil {
		t.Errorf("there is a place: %v", err)
	}
	if crowd.connect("10.0.0.2:1") == nil {
		t.Error("a connection was refused, though there is a place")
	}
}

func TestNoteUnderPressure(t *testing.T) {
	crowd := newCrowd(Limits{Max: 1})
	crowd.connect("10.0.0.1:1")
	if note := crowd.Note(); note != "" {
		t.Errorf("without pressure: %q", note)
	}
	crowd.connect("10.0.0.1:1")
	if note := crowd.Note(); !strings.Contains(note, "under pressure") || crowd.Err() != nil {
		t.Errorf("under pressure: %q, %v", note, crowd.Err())
	}
}

// A gate whose connections wait takes the next one as soon as there is a place.
func TestWaitingForAPlace(t *testing.T) {
	inner, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		place func(kept *Conn)
	}{
		{"one is closed", func(kept *Conn) { kept.Close() }},
		{"one is spare", func(kept *Conn) { kept.Spare() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGate(Limits{Share: 1}, slog.New(slog.DiscardHandler), nil)
			l := g.Guard(inner)
			accept := func() *Conn {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return nil
				}
				t.Cleanup(func() { conn.Close() })
				return conn.(*Conn)
			}
			dial := func() {
				conn, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
			}
			dial()
			kept := accept()
			kept.Keep()
			next := make(chan *Conn)
			go func() { next <- accept() }()
			dial()
			await.That(t, "the gate says that there is no place", func() (any, bool) {
				err := g.Err()
				return err, err != nil && strings.Contains(err.Error(), "all 1 that the limit of open files allows")
			})
			c.place(kept)
			await.Receive(t, "the connection that waited", next)
			if err := g.Err(); err != nil {
				t.Error(err)
			}
		})
	}
	g := NewGate(Limits{Max: 1}, slog.New(slog.DiscardHandler), nil)
	l := g.Guard(inner)
	ended := make(chan error)
	go func() {
		var err error
		for err == nil {
			var conn net.Conn
			if conn, err = l.Accept(); err == nil {
				conn.(*Conn).Keep()
				defer conn.Close()
			}
		}
		ended <- err
	}()
	for range 2 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	await.That(t, "a connection waits", func() (any, bool) { err := g.Err(); return err, err != nil })
	l.Close()
	await.Receive(t, "the end of Accept when the listener is closed", ended)
}

// Connections begin, are kept, become spare and end in any order. The limits hold, and no kept
// connection is displaced. A displaced connection belongs to the address with the most
// connections.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Max: rapid.IntRange(1, 6).Draw(t, "max"), Unidentified: rapid.IntRange(0, 4).Draw(t, "unidentified")}
		crowd := newCrowd(limits)
		state := map[*Conn]string{}
		count := func(s string) map[string]int {
			n := map[string]int{}
			for c, is := range state {
				if is == s {
					n[c.Conn.(*socket).from]++
				}
			}
			return n
		}
		pick := func(t *rapid.T) *Conn {
			if len(crowd.conns) == 0 {
				t.Skip("no connection")
			}
			return rapid.SampledFrom(crowd.conns).Draw(t, "connection")
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				from := fmt.Sprintf("10.0.0.%d:1", rapid.IntRange(1, 4).Draw(t, "from"))
				unidentified, spare := count("unidentified"), count("spare")
				c := crowd.connect(from)
				if c == nil {
					if len(unidentified)+len(spare) > 0 || len(state) < limits.Max {
						t.Fatalf("refused, though there are %v and %v", unidentified, spare)
					}
					return
				}
				state[c] = "unidentified"
				unidentified[from]++
				for c, is := range state {
					if !c.Conn.(*socket).closed {
						continue
					}
					delete(state, c)
					among := unidentified
					if is == "spare" {
						among = spare
						if len(unidentified) > 1 || unidentified[from] > 1 {
							t.Fatalf("a spare one was displaced with %v", unidentified)
						}
					}
					for addr, n := range among {
						if is == "kept" || n > among[c.Conn.(*socket).from] {
							t.Fatalf("displaced a %s one of %s, though %s has more: %v", is, c.Conn.(*socket).from, addr, among)
						}
					}
				}
			},
			"keep": func(t *rapid.T) {
				if c := pick(t); c.Keep() && state[c] != "" {
					state[c] = "kept"
				}
			},
			"spare": func(t *rapid.T) {
				c := pick(t)
				if c.Spare(); state[c] != "" {
					state[c] = "spare"
				}
			},
			"close": func(t *rapid.T) {
				c := pick(t)
				c.Close()
				delete(state, c)
			},
			"": func(t *rapid.T) {
				got, want := crowd.State(), State{Displaced: crowd.displaced}
				for _, is := range state {
					switch is {
					case "unidentified":
						want.Unidentified++
					case "spare":
						want.Spare++
					default:
						want.Kept++
					}
				}
				if got != want {
					t.Fatalf("the gate has %+v, want %+v", got, want)
				}
				if len(state) > limits.Max || limits.Unidentified > 0 && got.Unidentified > limits.Unidentified {
					t.Fatalf("%+v is more than %+v", got, limits)
				}
			},
		})
	})
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		openFiles int
		wants     []int
		shares    string
	}{
		{1000, []int{0}, "[744]"},
		{1000, []int{2000, 0}, "[372 372]"},
		{1000, []int{100, 0}, "[100 644]"},
		{20000, []int{0, 2000, 16000}, "[8872 2000 8872]"},
		{20000, []int{2000, 16000}, "[2000 16000]"},
		{100, []int{0, 0}, "[25 25]"},
		{1000, nil, "[]"},
	} {
		if got := fmt.Sprint(Shares(c.openFiles, c.wants)); got != c.shares {
			t.Errorf("%d open files, wanted %v: %s, want %s", c.openFiles, c.wants, got, c.shares)
		}
	}
}

// The sending side of a connection through a gate can be closed alone. A server does that when it
// has refused a body.
func TestCloseWrite(t *testing.T) {
	g := NewGate(Limits{}, slog.New(slog.DiscardHandler), nil)
	inner, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := g.Guard(inner)
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(peer); len(b) > 0 || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}
