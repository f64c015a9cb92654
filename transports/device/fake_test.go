package device

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

// lines is a framing for tests: the payload and a line feed.
type lines struct{}

func (lines) Max() int { return 1 << 16 }

func (lines) Append(dst, payload []byte) ([]byte, error) {
	for _, b := range payload {
		if b == '\n' {
			return dst, codec.ErrPayload
		}
	}
	return append(append(dst, payload...), '\n'), nil
}

func (lines) Split([]byte, int) (int, []byte, error) { return 0, nil, nil }

// pipe is a connection whose kernel takes what it is granted. It records every byte. With record
// above 0 it behaves like TLS with records of that many bytes: taken has only whole records.
type pipe struct {
	mu       sync.Mutex
	room     int
	record   int
	sealed   []byte // the record of which the kernel has only a part
	missing  int    // how many bytes of it the kernel doesn't have
	broken   string // what the queue did wrong
	taken    []byte
	writes   int
	closed   bool
	spurious bool // WaitWritable returns once without room
	gone     bool
	unread   bool
	silent   bool // the peer has sent nothing
	// quietFor is for how long nothing has arrived, and probes counts the probes.
	quietFor      time.Duration
	probes        int
	authenticated bool
	lastRead      time.Time
	changed       chan struct{}
	onTry         func() // called once, when TryWrite has taken its bytes and not yet returned
	tryError      error
}

func newPipe(room int) *pipe { return &pipe{room: room, changed: make(chan struct{})} }

func (p *pipe) TryWrite(b []byte) (taken, begun int, err error) {
	p.mu.Lock()
	defer func() {
		f := p.onTry
		p.onTry = nil
		p.mu.Unlock()
		if f != nil {
			f()
		}
	}()
	if p.closed {
		return 0, 0, net.ErrClosed
	}
	p.writes++
	if !bytes.HasPrefix(b, p.sealed) {
		p.broken = fmt.Sprintf("TryWrite got %q after it had begun %q", b, p.sealed)
	}
	for rest := b; len(rest) > 0 && p.tryError == nil; rest = b[taken:] {
		if len(p.sealed) == 0 && p.record > 0 {
			p.sealed = append(p.sealed, rest[:min(p.record, len(rest))]...)
			p.missing = len(p.sealed)
		}
		if p.record == 0 {
			p.missing = len(rest)
		}
		n := min(p.room, p.missing)
		p.room -= n
		p.missing -= n
		switch {
		case p.record == 0:
			taken += n
			p.taken = append(p.taken, rest[:n]...)
		case p.missing == 0:
			taken += len(p.sealed)
			p.taken = append(p.taken, p.sealed...)
			p.sealed = nil
		}
		if p.missing > 0 {
			break
		}
	}
	return taken, taken + len(p.sealed), p.tryError
}

func (p *pipe) WaitWritable(deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		p.mu.Lock()
		room, closed, changed := p.room, p.closed, p.changed
		spurious := p.spurious
		p.spurious = false
		p.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case room > 0, spurious:
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) grant(n int) { p.change(func() { p.room += n }) }

func (p *pipe) Gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

func (p *pipe) SilentFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.quietFor
}

func (p *pipe) Heard() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.silent
}

func (p *pipe) Authenticated() bool { return p.authenticated }

// probed returns the number of probes.
func (p *pipe) probed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probes
}

func (p *pipe) Probe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probes++
}

func (p *pipe) LastRead() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastRead
}

func (p *pipe) Unread() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unread
}

func (p *pipe) Close() error {
	p.change(func() { p.closed = true })
	return nil
}

func (p *pipe) bytes() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.taken)
}

func testOptions(now func() time.Time) Options {
	return Options{
		Host: "host", Protocol: protocol.Plain(lines{}), Directory: NewDirectory(now), FlappingAdvice: "several devices behind one address: use first-frame",
		Canonical: func(device string) (string, error) { return device, CheckName(device) },
		Limits:    Limits{QueueCount: 100, QueueBytes: 1 << 16, WriteTimeout: 30 * time.Second},
		Feed: FeedOptions{
			EventsWindow: 10, DataWindow: 10, EventsBacklog: 100, EventsTotal: 1000, DataPerDevice: 4, DataTotal: 8, Heartbeat: 10 * time.Second,
		},
		Logger: slog.New(slog.DiscardHandler), Now: now,
	}
}

func testRegistry(t *testing.T, change func(*Options)) *Registry {
	t.Helper()
	o := testOptions(time.Now)
	if change != nil {
		change(&o)
	}
	r, err := NewRegistry(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func connect(t *testing.T, r *Registry, device string, conn Conn) *Session {
	t.Helper()
	s, err := r.Connect(t.Context(), device, "192.0.2.1:1000", conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func enqueue(t *testing.T, r *Registry, device, payload string) Write {
	t.Helper()
	w, err := r.Enqueue(device, []byte(payload), EnqueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}
