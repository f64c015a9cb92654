package amqp

import (
	"context"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// A declaration keeps the exchange and queue of one published topic in the broker. Its goroutine
// declares them on every connection, before the first message, and repeats that until it works.

// declaration is a topic that publishers use.
type declaration struct {
	t     *transport
	route *route
	// users is the number of its publishers. It is guarded by outbox.mu.
	users int
	// ctx ends when the last publisher is closed.
	ctx context.Context
	end context.CancelFunc
	// retry asks for another attempt.
	retry chan struct{}

	mu sync.Mutex
	// session is the connection of the last attempt, err is its result, and attempted its time.
	// Before the first attempt, and after forgetResult, session is nil.
	session   *session
	err       error
	attempted time.Time
	// changed is closed and replaced at each attempt.
	changed chan struct{}
}

// newDeclaration returns the declaration of a topic. The caller runs keepDeclared.
func newDeclaration(t *transport, r *route) *declaration {
	d := &declaration{t: t, route: r, retry: make(chan struct{}, 1), changed: make(chan struct{})}
	d.ctx, d.end = context.WithCancel(t.closing)
	return d
}

// queueToDeclare returns the queue that a publisher declares, or "" for none. An exclusive queue
// belongs to the consuming connection. With declare = false a publisher needs only the exchange.
func (d *declaration) queueToDeclare() string {
	if d.route.config.Queue.Exclusive || !d.route.declare {
		return ""
	}
	return d.route.queue
}

// keepDeclared declares the topic on each connection until ctx ends.
func (d *declaration) keepDeclared() {
	topic, pauses := d.route.topic, pausesOf(d.t.config.Reconnect)
	defer d.t.topics.forget(topic, d)
	for {
		s, err := d.t.publisher.awaitSession(d.ctx)
		if err != nil {
			return
		}
		if err = d.route.declareTopology(s.conn, d.queueToDeclare()); err != nil && s.isLost() {
			continue
		}
		d.recordResult(s, err)
		var retry <-chan time.Time
		d.t.topics.report(topic, d, err)
		if err == nil {
			pauses.Reset()
		} else {
			retry = time.After(pauses.NextBackOff())
		}
		select {
		case <-retry:
		case <-d.retry:
		case <-s.lost:
			pauses.Reset()
		case <-d.ctx.Done():
			return
		}
	}
}

// recordResult records the result of an attempt and wakes all callers that wait for it.
func (d *declaration) recordResult(s *session, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session, d.err, d.attempted = s, err, time.Now()
	close(d.changed)
	d.changed = make(chan struct{})
}

// resultOn returns the result of the last attempt on a session. If there is none yet, decided is
// false. changed is closed at the next attempt.
func (d *declaration) resultOn(s *session) (decided bool, changed <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return true, nil, transports.ErrClosed
	}
	return d.session == s, d.changed, d.err
}

// forgetResult makes the goroutine declare the topic again before the next message. It does
// nothing if the last attempt was less than pause ago.
func (d *declaration) forgetResult(pause time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == nil || time.Since(d.attempted) < pause {
		return
	}
	d.session, d.err = nil, nil
	select {
	case d.retry <- struct{}{}:
	default:
	}
}
