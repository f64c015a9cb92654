package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// A link keeps one connection to the broker.
//
// A transport has two links, because a broker under memory pressure blocks the connections that
// publish. The consumer link carries deliveries and acks, and the publisher link carries published
// messages.
//
// A link has four states:
//
//   - disconnected: session is nil, and err says why. run dials again after a pause.
//   - connected: session is set.
//   - blocked: the session is set, and its field blocked has the broker's reason. Published
//     messages wait.
//   - closed: ctx of run has ended. err is errClosedTransport, and doesn't change any more.
//
// A session is one connection. Each new connection is a new session.
//
// Invariants: err isn't nil while session is nil. changed is closed and replaced at each change of
// state, so that a caller can wait for the next one. session.err is set before session.lost is
// closed, and never changes after that. The library closes the channels of a lost connection
// first; session.isLost then waits until run has noticed the loss.
//
// Lock order: link.mu is locked alone. It also guards the fields blocked and confirmWindow of the
// session.

// consumerRole and publisherRole name the two connections in the broker's tools, the log and the
// metrics.
const (
	consumerRole  = "consumer"
	publisherRole = "publisher"
)

// connectionCloseTime bounds the orderly close of a connection.
const connectionCloseTime = time.Second

// link keeps one connection to the broker. It connects in the background, and again after each
// loss.
type link struct {
	role         string
	dialer       *dialer
	connectivity *connectivity
	metrics      *metrics
	reconnect    transports.Reconnect

	mu      sync.Mutex
	session *session
	// err says why there is no session.
	err error
	// changed is closed and replaced when the session, or a field of it that mu guards, changes.
	changed chan struct{}
}

// session is one connection, from the login to the loss.
type session struct {
	conn *amqp.Connection
	// lost is closed when the connection is lost. From then on err says why.
	lost chan struct{}
	// err says why the connection was lost. It is set before lost is closed.
	err error
	// blocked is the broker's reason for blocking the connection. confirmWindow is the outbox's
	// channel on it. Both are guarded by link.mu.
	blocked       string
	confirmWindow *confirmWindow
}

// isLost reports whether the connection is lost. If it is, isLost waits until err is set.
func (s *session) isLost() bool {
	if !s.conn.IsClosed() {
		return false
	}
	<-s.lost
	return true
}

// newLink returns a link that isn't connected yet.
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

// changeState calls f with the lock and wakes all callers that wait for a change.
func (l *link) changeState(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// currentState returns the session, or why there is none, and a channel that is closed at the next
// change.
func (l *link) currentState() (s *session, blocked string, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		return l.session, l.session.blocked, l.changed, nil
	}
	return nil, "", l.changed, l.err
}

// awaitSession returns the session as soon as there is one.
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

// run connects, and again after each loss, until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.changeState(func() { l.session, l.err = nil, errClosedTransport })
	pauses := pausesOf(l.reconnect)
	for {
		conn, err := l.dialer.dial(ctx, l.role)
		if err == nil {
			l.metrics.connects.WithLabelValues(l.role).Inc()
			began := time.Now()
			err = l.serveConnection(ctx, conn)
			// If connections are lost soon after the login, the pauses keep growing.
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

// serveConnection makes a connection the session until it is lost or ctx ends, and returns why it
// ended.
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
			// An error says that the broker didn't answer. The connection ends in any case.
			_ = conn.CloseDeadline(time.Now().Add(connectionCloseTime))
			close(s.lost)
			return s.err
		}
	}
}

// recordBlocking records and logs that the broker blocks publishing, or takes messages again.
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
