package amqp

import (
	"context"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// declaration keeps one topic that is published to in the broker: what it needs is declared on every connection, before there is a
// message, and again until that works.
type declaration struct {
	t     *transport
	route *route
	// users counts the publishers that need it; guarded by outbox.mu.
	users int
	// ctx ends when the last of them is closed.
	ctx context.Context
	end context.CancelFunc
	// again asks for another attempt.
	retry chan struct{}

	mu sync.Mutex
	// on is the session of the last attempt, err its result and at its time. Before the first one, and after forget, on is nil.
	session   *session
	err       error
	attempted time.Time
	// changed is closed, and replaced, with each attempt.
	changed chan struct{}
}

func newDeclaration(t *transport, r *route) *declaration {
	d := &declaration{t: t, route: r, retry: make(chan struct{}, 1), changed: make(chan struct{})}
	d.ctx, d.end = context.WithCancel(t.closing)
	return d
}

// queue is what a publisher declares beside the exchange. An exclusive queue belongs to the consuming connection, and of what is only
// checked a publisher needs the exchange.
func (d *declaration) queueToDeclare() string {
	if d.route.config.Queue.Exclusive || !d.route.declare {
		return ""
	}
	return d.route.queue
}

// keep declares until ctx ends.
func (d *declaration) keepDeclared() {
	topic, pauses := d.route.topic, d.t.config.Reconnect.pauses()
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

func (d *declaration) recordResult(s *session, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session, d.err, d.attempted = s, err, time.Now()
	close(d.changed)
	d.changed = make(chan struct{})
}

// state says whether the topic is decided on a session, and how; changed is closed when that may be different.
func (d *declaration) resultOn(s *session) (decided bool, changed <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return true, nil, transports.ErrClosed
	}
	return d.session == s, d.changed, d.err
}

// forget has the topic declared again before the next message, unless that was done less than pause ago.
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
