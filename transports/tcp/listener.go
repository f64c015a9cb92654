package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports/device"
)

// The pauses after an accept that didn't work, such as for want of file descriptors.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

func (t *transport) listen(ctx context.Context) (*net.TCPListener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: t.config.Keepalive > 0, Idle: t.config.Keepalive, Interval: max(time.Second, t.config.Keepalive/4), Count: 4},
		// Accepted connections inherit these options, which saves each of them the calls.
		Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = setOptions(int(fd), &t.config) })
			return errors.Join(err, failed)
		},
	}
	if t.config.Keepalive == 0 {
		lc.KeepAlive = -1
	}
	l, err := listen.TCP(ctx, &lc, t.config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", t.config.Listen, err)
	}
	return l, nil
}

// accept takes connections until the listener is closed.
func (t *transport) accept(l *net.TCPListener) {
	pauses := backoff.New(firstPause, longestPause)
	for {
		socket, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		t.accepting.Report(err)
		if err != nil {
			if !backoff.Sleep(t.ctx, pauses.NextBackOff()) {
				return
			}
			continue
		}
		pauses.Reset()
		t.metrics.accepted.Inc()
		t.take(socket)
	}
}

// take begins a connection, unless there are too many.
func (t *transport) take(socket *net.TCPConn) {
	c, err := newConn(t, socket)
	if err == nil {
		err = t.enter(c)
	}
	if err != nil {
		t.refuse(refusedLimit, socket, err)
		_ = socket.Close() // nothing was said on it yet
		return
	}
	t.running.Go(c.begin)
}

// refuse counts and logs a connection that doesn't become a session. Strangers can cause it, so not every one is logged.
func (t *transport) refuse(why string, socket *net.TCPConn, err error) {
	t.metrics.refused.WithLabelValues(why).Inc()
	if !errors.Is(err, device.ErrClosing) && t.ctx.Err() == nil {
		t.complaints.Do(func() { t.env.Logger.Info("refusing a connection", "peer", socket.RemoteAddr(), "err", err) })
	}
}

func (t *transport) enter(c *conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.quiet:
		return device.ErrClosing
	case t.config.MaxConnections > 0 && len(t.conns) >= t.config.MaxConnections:
		return fmt.Errorf("max_connections, %d, are there", t.config.MaxConnections)
	case t.unidentified >= t.config.MaxUnidentified:
		return fmt.Errorf("max_unidentified, %d, are there", t.config.MaxUnidentified)
	}
	t.conns[c] = struct{}{}
	t.unidentified++
	return nil
}

// identified says that c is a session now, or never will be.
func (t *transport) identified() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unidentified--
}

func (t *transport) leave(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if len(t.conns) == 0 {
		t.emptied.Broadcast()
	}
}
