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

// Proxy is between a client and a broker. It can cut connections, refuse them, delay bytes, and
// drop bytes.
type Proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	refuse bool
	// While silent is set, the proxy drops all bytes, in both directions.
	silent bool
	// Bytes pass only while moving is a closed channel. Stall replaces it by an open one, and Up
	// closes that one.
	moving  chan struct{}
	running sync.WaitGroup
}

// Through starts a proxy and returns a URL that leads through it to the same broker.
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
	p.running.Go(p.acceptAll)
	t.Cleanup(func() {
		l.Close()
		p.Up()
		p.Cut()
		p.running.Wait()
	})
	return p, strings.Replace(url, target, l.Addr().String(), 1)
}

func (p *Proxy) acceptAll() {
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
		p.running.Go(func() { p.copyBytes(in, out) })
		p.running.Go(func() { p.copyBytes(out, in) })
	}
}

func (p *Proxy) copyBytes(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	_, _ = io.Copy(writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		mute, moving := p.silent, p.moving
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

// Down cuts all connections and refuses new ones until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.Cut()
}

// Up lets all bytes pass again.
func (p *Proxy) Up() {
	p.mu.Lock()
	p.refuse, p.silent = false, false
	select {
	case <-p.moving:
	default:
		close(p.moving)
	}
	p.mu.Unlock()
}

// Stall delays all bytes until Up and loses none, like a network partition.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moving = make(chan struct{})
}

// Silence drops all bytes, like a dead peer behind a working network.
func (p *Proxy) Silence() {
	p.mu.Lock()
	p.silent = true
	p.mu.Unlock()
}
