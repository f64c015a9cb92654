package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
)

// The shortest and longest pause between attempts to connect.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// device is one simulated device.
type device struct {
	fleet  *fleet
	turns  chan struct{} // limits how many devices dial at a time
	from   netip.Addr
	id     string
	silent bool
	n      int // number of data lines that were sent
}

// live connects the device. With -reconnect it connects again after each connection, until ctx
// ends.
func (d *device) live(ctx context.Context) {
	pauses := backoff.New(firstPause, longestPause)
	for first := true; ; {
		conn, err := d.dial(ctx)
		if err == nil {
			d.fleet.connected(first)
			first = false
			pauses.Reset()
			wanted, end := d.session(ctx)
			d.talk(wanted, conn)
			if wanted.Err() == nil {
				d.fleet.lost.Add(1)
			}
			end()
		} else if ctx.Err() == nil {
			d.fleet.failures.Add(1)
		}
		if !d.fleet.options.reconnect {
			return
		}
		if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// session returns the context of one connection. With -session it ends after a random time.
func (d *device) session(ctx context.Context) (context.Context, context.CancelFunc) {
	if about := d.fleet.options.session; about > 0 {
		return context.WithTimeout(ctx, about/2+rand.N(about))
	}
	return context.WithCancel(ctx)
}

func (d *device) dial(ctx context.Context) (net.Conn, error) {
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if d.from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.from, 0))
	}
	if c := d.fleet.options.tls; c != nil {
		encrypted := tls.Dialer{NetDialer: &dialer, Config: c}
		return encrypted.DialContext(ctx, "tcp", d.fleet.options.addr)
	}
	return dialer.DialContext(ctx, "tcp", d.fleet.options.addr)
}

// talk sends and receives lines until the connection or ctx ends.
func (d *device) talk(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	out := &writer{device: d, conn: conn}
	if hello := d.fleet.options.hello; hello != "" && out.line(hello, "") != nil {
		return
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel() // before the wait for sending
	if d.fleet.options.rate > 0 {
		sending.Go(func() {
			defer cancel() // a connection that can't be written to has ended
			d.send(ctx, out)
		})
	}
	if d.silent {
		<-ctx.Done()
		return
	}
	d.listen(conn, out)
}

// send writes data lines at the rate of -rate. Each device begins at a different time, so that
// they don't all send at once.
func (d *device) send(ctx context.Context, out *writer) {
	interval := time.Duration(float64(time.Second) / d.fleet.options.rate)
	select {
	case <-time.After(rand.N(interval)):
	case <-ctx.Done():
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		d.n++
		if out.line(d.fleet.options.data, strconv.Itoa(d.n)) != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// listen reads lines. It records each line before it answers the line.
func (d *device) listen(conn io.Reader, out *writer) {
	r := bufio.NewReader(conn)
	var record []byte
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return // an incomplete line isn't recorded
		}
		d.fleet.bytes.Add(int64(len(line)))
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		record = append(append(append(append(record, d.id...), '\t'), line...), '\n')
		lines = append(lines, line)
		if hasWholeLine(r) {
			continue
		}
		d.fleet.note(record)
		d.fleet.read.Add(int64(len(lines)))
		for _, line := range lines {
			if reply := d.fleet.options.reply; reply != "" && out.line(reply, line) != nil {
				return
			}
		}
		record, lines = record[:0], lines[:0]
	}
}

// hasWholeLine reports whether another complete line is already buffered.
func hasWholeLine(r *bufio.Reader) bool {
	there, err := r.Peek(r.Buffered())
	return err == nil && strings.Contains(string(there), "\n")
}

// writer is the sending side of a connection.
type writer struct {
	device *device
	conn   net.Conn
	mu     sync.Mutex
}

var errTemplate = errors.New("a line can't contain a line feed")

// line sends a template as a line. It replaces {n} and {line} by value, and {id} by the device's
// id.
func (w *writer) line(template, value string) error {
	text := strings.NewReplacer("{id}", w.device.id, "{n}", value, "{line}", value).Replace(template)
	if strings.Contains(text, "\n") {
		return errTemplate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := io.WriteString(w.conn, text+"\r\n"); err != nil {
		return err
	}
	w.device.fleet.sent.Add(1)
	return nil
}
