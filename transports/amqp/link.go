package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
)

// The two connections. A broker under memory pressure blocks connections that publish; acks go over the other.
const (
	consumerRole  = "consumer"
	publisherRole = "publisher"
)

// farewell bounds the orderly close of a connection.
const connectionCloseTime = time.Second

// link keeps one connection to the broker alive: it connects in the background, says when there is a new one, and begins
// again when it is lost.
type link struct {
	role         string
	dialer       *dialer
	connectivity *connectivity
	metrics      *metrics
	reconnect    Reconnect

	mu      sync.Mutex
	session *session
	// err is why there is no session.
	err error
	// changed is closed, and replaced, at each change of session or its blocking.
	changed chan struct{}
}

// session is one connection from its login to its loss.
type session struct {
	conn *amqp.Connection
	// gone is closed when the connection is lost.
	lost chan struct{}
	// err says why, once gone is closed.
	err error
	// blocked is the broker's reason for not taking messages, window the way out; guarded by link.mu.
	blocked       string
	confirmWindow *confirmWindow
}

// lost says whether the connection is gone. Its channels learn that first.
func (s *session) isLost() bool {
	if !s.conn.IsClosed() {
		return false
	}
	<-s.lost
	return true
}

func newLink(role string, d *dialer, c *connectivity, m *metrics) *link {
	return &link{
		role:         role,
		dialer:       d,
		connectivity: c,
		metrics:      m,
		reconnect:    d.config.Reconnect,
		err:          errors.New("not connected yet"),
		changed:      make(chan struct{}),
	}
}

// change applies f and tells all who wait.
func (l *link) changeState(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns the session, or why there is none, and a channel that is closed when that changes.
func (l *link) currentState() (s *session, blocked string, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		return l.session, l.session.blocked, l.changed, nil
	}
	return nil, "", l.changed, l.err
}

// wait returns the session as soon as there is one.
func (l *link) awaitSession(ctx context.Context) (*session, error) {
	for {
		s, _, changed, err := l.currentState()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no connection to the broker: %w", err)
		}
	}
}

// run connects and connects again until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.changeState(func() { l.session, l.err = nil, errClosedTransport })
	pauses := l.reconnect.pauses()
	for {
		conn, err := l.dialer.dial(ctx, l.role)
		if err == nil {
			l.metrics.connects.WithLabelValues(l.role).Inc()
			began := time.Now()
			err = l.serveConnection(ctx, conn)
			// A connection that is lost at once again, over and over, deserves longer pauses.
			if time.Since(began) > l.reconnect.MaxInterval {
				pauses.Reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		l.changeState(func() { l.session, l.err = nil, err })
		l.connectivity.reportRole(l.role, err)
		if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// hold offers a connection until it is lost or ctx ends, and returns why.
func (l *link) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	closes := conn.NotifyClose(make(chan *amqp.Error, 1))
	blockings := conn.NotifyBlocked(make(chan amqp.Blocking, 4))
	s := &session{conn: conn, lost: make(chan struct{})}
	l.changeState(func() { l.session = s })
	l.connectivity.reportRole(l.role, nil)
	defer func() {
		l.mu.Lock()
		blocked := s.blocked != ""
		l.mu.Unlock()
		if blocked {
			l.metrics.blocked.Set(0)
		}
	}()
	for {
		select {
		case e := <-closes:
			s.err = fmt.Errorf("connection to %s: %w", l.dialer.endpoint.addr, plainError(e))
			close(s.lost)
			return s.err
		case b, ok := <-blockings:
			if !ok {
				blockings = nil
				continue
			}
			l.recordBlocking(s, b)
		case <-ctx.Done():
			s.err = errClosedTransport
			// The error is the peer's silence, and the connection is over either way.
			_ = conn.CloseDeadline(time.Now().Add(connectionCloseTime))
			close(s.lost)
			return s.err
		}
	}
}

func (l *link) recordBlocking(s *session, b amqp.Blocking) {
	reason := ""
	if b.Active {
		reason = orDefault(b.Reason, "without a reason")
		l.metrics.blocked.Set(1)
		l.connectivity.log.Warn("the broker blocks publishing, messages wait", "reason", reason)
	} else {
		l.metrics.blocked.Set(0)
		l.connectivity.log.Info("the broker takes messages again")
	}
	l.changeState(func() { s.blocked = reason })
}
