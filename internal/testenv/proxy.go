package testenv

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Proxy stands between a client and a broker, and can cut, refuse, stop and swallow what passes.
type Proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	refuse bool
	// mute, while set, passes no bytes in either direction.
	mute bool
	// moving is open while bytes pass; Stall puts another in its place, and Up closes that.
	moving  chan struct{}
	running sync.WaitGroup
}

// Through returns a URL that leads to the same broker through a new proxy.
func Through(t testing.TB, url string) (*Proxy, string) {
	t.Helper()
	uri, err := amqp.ParseURI(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := fmt.Sprintf("%s:%d", uri.Host, uri.Port)
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]struct{}{}, moving: make(chan struct{})}
	close(p.moving)
	p.running.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.Up()
		p.Cut()
		p.running.Wait()
	})
	return p, strings.Replace(url, target, l.Addr().String(), 1)
}

func (p *Proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		if p.refuse {
			in.Close()
			out.Close()
			p.mu.Unlock()
			continue
		}
		p.conns[in], p.conns[out] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.running.Go(func() { p.pass(in, out) })
		p.running.Go(func() { p.pass(out, in) })
	}
}

func (p *Proxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	_, _ = io.Copy(writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		mute, moving := p.mute, p.moving
		p.mu.Unlock()
		<-moving
		if mute {
			return len(b), nil
		}
		return to.Write(b)
	}), from)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// Down cuts and refuses until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.Cut()
}

// Up lets everything pass again.
func (p *Proxy) Up() {
	p.mu.Lock()
	p.refuse, p.mute = false, false
	select {
	case <-p.moving:
	default:
		close(p.moving)
	}
	p.mu.Unlock()
}

// Stall lets no byte pass until Up, and loses none: a partition.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moving = make(chan struct{})
}

// Silence lets bytes vanish, as a dead peer behind a living network does.
func (p *Proxy) Silence() {
	p.mu.Lock()
	p.mute = true
	p.mu.Unlock()
}
