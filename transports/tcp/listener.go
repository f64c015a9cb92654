package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports/device"
)

// keepalive returns the configuration of the kernel's keepalive.
func (c *Config) keepalive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: c.Keepalive > 0, Idle: c.Keepalive, Interval: max(time.Second, c.Keepalive/4), Count: 4}
}

// listen returns nil if the transport only dials.
func (t *transport) listen(ctx context.Context) (net.Listener, error) {
	if t.config.listenAddr() == "" {
		return nil, nil
	}
	lc := net.ListenConfig{
		KeepAliveConfig: t.config.keepalive(),
		// Accepted connections inherit these options. That saves the system calls for each
		// connection.
		Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = setOptions(int(fd), &t.config) })
			return errors.Join(err, failed)
		},
	}
	if t.config.Keepalive == 0 {
		lc.KeepAlive = -1
	}
	l, err := listen.TCP(ctx, &lc, t.config.listenAddr())
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", t.config.listenAddr(), err)
	}
	return t.gate.Guard(l), nil
}

// accept accepts connections until the listener is closed.
func (t *transport) accept(l net.Listener) {
	for {
		socket, err := l.Accept()
		if err != nil {
			return
		}
		t.metrics.accepted.Inc()
		t.takeConn(socket.(*listen.Conn))
	}
}

// takeConn starts the goroutine of a connection, unless the host is stopping.
func (t *transport) takeConn(link *listen.Conn) {
	c, err := newConn(t, link, nil)
	if err == nil {
		err = t.addConn(c)
	}
	if err != nil {
		t.refuseConn(refusedLimit, link, err)
		_ = link.Close() // nothing was sent on it yet
		return
	}
	t.running.Go(c.begin)
}

// refusedByGate counts and logs a connection that the gate refuses.
func (t *transport) refusedByGate(socket net.Conn, err error) {
	t.metrics.accepted.Inc()
	t.refuseConn("", socket, err)
}

// refuseConn counts and logs a connection that doesn't become a session. why is the reason for the
// metrics. If the gate has refused the connection, err has the reason instead.
func (t *transport) refuseConn(why string, socket net.Conn, err error) {
	if errors.Is(err, errHealthCheck) {
		t.env.Logger.Debug("closing a connection without a device", "peer", socket.RemoteAddr(), "err", err)
		return
	}
	if r, ok := errors.AsType[*listen.Refusal](err); ok {
		why = r.Reason
	}
	t.metrics.refused.WithLabelValues(why).Inc()
	if !errors.Is(err, device.ErrClosing) && t.ctx.Err() == nil {
		fault := why == refusedAuth || why == refusedUnknown || why == refusedHeader || why == refusedToken
		t.gate.LogRefusal(socket.RemoteAddr(), fault, why, err)
	}
}

func (t *transport) addConn(c *conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiesced {
		return device.ErrClosing
	}
	t.conns[c] = struct{}{}
	return nil
}

func (t *transport) removeConn(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if len(t.conns) == 0 {
		t.connsEmpty.Broadcast()
	}
}
