package listen

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newLoggedCrowd returns a crowd and its log.
func newLoggedCrowd(limits Limits) (*crowd, *bytes.Buffer) {
	c, log := &crowd{}, &bytes.Buffer{}
	c.Gate = NewGate(limits, slog.New(slog.NewTextHandler(log, nil)), func(_ net.Conn, err error) { c.refused = append(c.refused, err) })
	return c, log
}

// lastRefusal returns the reason of the last refusal, or "".
func (c *crowd) lastRefusal() string {
	if len(c.refused) == 0 {
		return ""
	}
	r, ok := errors.AsType[*Refusal](c.refused[len(c.refused)-1])
	if !ok {
		return c.refused[len(c.refused)-1].Error()
	}
	return r.Reason
}

func tcpAddr(text string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)) }

func TestAllowFrom(t *testing.T) {
	limits := Limits{
		AllowFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
		Balancers: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
	}
	for from, allowed := range map[string]bool{
		"10.1.2.3:1": true, "[::ffff:10.1.2.3]:1": true, "[2001:db8::1]:1": true, "192.0.2.1:1": true,
		"11.0.0.1:1": false, "192.0.2.2:1": false, "[2001:db9::1]:1": false, "[fe80::1%lo]:1": false,
	} {
		c := newCrowd(limits)
		if got := c.connect(from) != nil; got != allowed {
			t.Errorf("%s is admitted: %v", from, got)
		}
		if !allowed && c.lastRefusal() != refusedNetwork {
			t.Errorf("%s: %v", from, c.refused)
		}
		// A device behind the balancer is checked by its own address.
		behind := c.connect("192.0.2.1:9")
		if got := behind.SetSource(tcpAddr(from)) == nil; got != (allowed && from != "192.0.2.1:1") {
			t.Errorf("%s behind a balancer is admitted: %v", from, got)
		}
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	c := newCrowd(Limits{PerAddress: AddressLimits{Connections: 2}})
	for _, from := range []string{"10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"} {
		c.connect(from).Keep()
	}
	for _, from := range []string{"10.0.0.1:3", "[2001:db8::3]:1"} {
		if c.connect(from) != nil || c.lastRefusal() != refusedConnections {
			t.Errorf("%s is admitted, %v", from, c.refused)
		}
	}
	if c.connect("[2001:db8:0:1::1]:1") == nil {
		t.Error("another /64 network is refused")
	}
	c.conns[0].Close()
	c.conns[0].Close()
	silent := c.connect("10.0.0.1:4")
	if silent == nil {
		t.Fatal("there was a place")
	}
	// A further connection displaces the silent one, and no other.
	if c.connect("10.0.0.1:5") == nil || !silent.Displaced() {
		t.Error("the silent connection stayed")
	}
	if note := c.Note(); note != "" {
		t.Errorf("the listener isn't under pressure: %s", note)
	}
	silent.Close()
	for _, conn := range c.conns {
		conn.Close()
	}
	for key, a := range c.addresses.known {
		if a.conns != 0 || a.element == nil {
			t.Errorf("%s has %d connections", key, a.conns)
		}
	}
}

func TestSourceBehindABalancer(t *testing.T) {
	c := newCrowd(Limits{Balancers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, PerAddress: AddressLimits{Connections: 1}})
	var behind []*Conn
	for i := range 5 {
		behind = append(behind, c.connect(fmt.Sprintf("192.0.2.1:%d", i)))
	}
	for i, conn := range behind[:3] {
		if err := conn.SetSource(tcpAddr(fmt.Sprintf("10.0.0.%d:9", i))); err != nil {
			t.Error(err)
		}
		conn.Keep()
	}
	if got := behind[1].RemoteAddr().String(); got != "10.0.0.1:9" {
		t.Errorf("the peer is %s", got)
	}
	err := behind[3].SetSource(tcpAddr("10.0.0.1:10"))
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != refusedConnections {
		t.Errorf("got %v", err)
	}
	behind[1].Close()
	if err := behind[4].SetSource(tcpAddr("10.0.0.1:11")); err != nil {
		t.Error(err)
	}
}

func TestRateOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(Limits{PerAddress: AddressLimits{Rate: 2}})
		for i, want := range []bool{true, true, false} {
			if got := c.connect("10.0.0.1:1") != nil; got != want {
				t.Errorf("connection %d: %v", i, got)
			}
		}
		if c.lastRefusal() != refusedRate {
			t.Errorf("got %v", c.refused)
		}
		if c.connect("10.0.0.2:1") == nil {
			t.Error("another address is refused")
		}
		time.Sleep(time.Second)
		if c.connect("10.0.0.1:1") == nil {
			t.Error("it is still refused after a second")
		}
	})
}

func TestBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newLoggedCrowd(Limits{
			Balancers:  []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
			PerAddress: AddressLimits{Refusals: 3, Ban: time.Hour},
		})
		bad, balancer := tcpAddr("10.0.0.1:7"), tcpAddr("192.0.2.1:7")
		refuse := func(times int) {
			for range times {
				c.LogRefusal(bad, true, "auth_error", errors.New("no name"))
				c.LogRefusal(bad, false, "limit", errors.New("no place")) // not its fault
				c.NoteFault(balancer)
			}
		}
		refuse(2)
		time.Sleep(refusalPeriod) // the minute is over, and the count begins again
		refuse(2)
		if c.connect("10.0.0.1:8") == nil {
			t.Fatal("banned too early")
		}
		c.NoteFault(bad)
		for range 2 {
			if c.connect("10.0.0.1:8") != nil || c.lastRefusal() != refusedBanned {
				t.Fatalf("it isn't banned: %v", c.refused)
			}
		}
		if got := c.refused[0].Error(); got != "the address is banned for another 1h0m0s" {
			t.Errorf("got %q", got)
		}
		if c.connect("10.0.0.2:8") == nil || c.connect("192.0.2.1:8") == nil {
			t.Error("others are banned, too")
		}
		if n := strings.Count(log.String(), `msg="banning an address" address=10.0.0.1 for=1h0m0s refusals=3`); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log)
		}
		time.Sleep(time.Hour)
		if c.connect("10.0.0.1:8") == nil {
			t.Error("the ban didn't end")
		}
	})
}

func TestLogOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newLoggedCrowd(Limits{})
		lines := func() int { return strings.Count(log.String(), "refusing a connection") }
		report := func(peer string) { c.LogRefusal(tcpAddr(peer), true, "auth_error", errors.New("no name")) }
		for range 10 {
			report("10.0.0.1:7")
			report("[2001:db8::1]:7")
			report("[2001:db8::2]:7") // the same /64 network
		}
		if got := lines(); got != 2 {
			t.Errorf("%d lines:\n%s", got, log)
		}
		time.Sleep(refusalPeriod)
		log.Reset()
		report("10.0.0.1:8")
		if got, want := log.String(), `peer=10.0.0.1:8 reason=auth_error err="no name" unlogged=9`; !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		// All addresses together have a limit, too.
		log.Reset()
		for i := range 2 * mostAddresses {
			report(fmt.Sprintf("10.1.%d.%d:7", i>>8, i&0xff))
		}
		if got := lines(); got > refusalBurst {
			t.Errorf("%d lines", got)
		}
		if got := len(c.addresses.known); got != mostAddresses || c.addresses.idle.Len() != got {
			t.Errorf("the gate remembers %d addresses, of which %d are idle", got, c.addresses.idle.Len())
		}
	})
}

// A connection beyond the rate waits in the kernel. A refused one doesn't count for the rate.
func TestAcceptRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(Limits{AcceptRate: 2, AllowFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		kernel := &queue{from: []string{"10.0.0.1:1", "11.0.0.1:1", "11.0.0.1:2", "10.0.0.1:2", "11.0.0.1:3", "10.0.0.1:3", "10.0.0.1:4"}}
		l := c.Guard(kernel)
		began := time.Now()
		for i, want := range []time.Duration{0, 0, 500 * time.Millisecond, time.Second} {
			conn, err := l.Accept()
			if took := time.Since(began); err != nil || took != want {
				t.Errorf("connection %d, from %v, is accepted after %v: %v", i, conn.RemoteAddr(), took, err)
			}
		}
		if len(c.refused) != 3 {
			t.Errorf("refused %v", c.refused)
		}
		// A close ends the wait for a turn.
		go l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// queue is a listener with connections from these addresses.
type queue struct {
	net.Listener
	from []string
}

func (q *queue) Accept() (net.Conn, error) {
	from := q.from[0]
	q.from = q.from[1:]
	return &socket{from: from}, nil
}

func (q *queue) Close() error { return nil }
