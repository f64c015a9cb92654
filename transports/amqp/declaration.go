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
	again chan struct{}

	mu sync.Mutex
	// on is the session of the last attempt, err its result and at its time. Before the first one, and after forget, on is nil.
	on  *session
	err error
	at  time.Time
	// changed is closed, and replaced, with each attempt.
	changed chan struct{}
}

func newDeclaration(t *transport, r *route) *declaration {
	d := &declaration{t: t, route: r, again: make(chan struct{}, 1), changed: make(chan struct{})}
	d.ctx, d.end = context.WithCancel(t.closing)
	return d
}

// queue is what a publisher declares beside the exchange. An exclusive queue belongs to the consuming connection, and of what is only
// checked a publisher needs the exchange.
func (d *declaration) queue() string {
	if d.route.config.Queue.Exclusive || !d.route.declare {
		return ""
	}
	return d.route.queue
}

// keep declares until ctx ends.
func (d *declaration) keep() {
	topic, pauses := d.route.topic, d.t.config.Reconnect.pauses()
	defer d.t.topics.forget(topic, d)
	for {
		s, err := d.t.publisher.wait(d.ctx)
		if err != nil {
			return
		}
		if err = d.route.build(s.conn, d.queue()); err != nil && s.lost() {
			continue
		}
		d.result(s, err)
		var retry <-chan time.Time
		d.t.topics.report(topic, d, err)
		if err == nil {
			pauses.Reset()
		} else {
			retry = time.After(pauses.NextBackOff())
		}
		select {
		case <-retry:
		case <-d.again:
		case <-s.gone:
			pauses.Reset()
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *declaration) result(s *session, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on, d.err, d.at = s, err, time.Now()
	close(d.changed)
	d.changed = make(chan struct{})
}

// state says whether the topic is decided on a session, and how; changed is closed when that may be different.
func (d *declaration) state(s *session) (decided bool, changed <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return true, nil, transports.ErrClosed
	}
	return d.on == s, d.changed, d.err
}

// forget has the topic declared again before the next message, unless that was done less than pause ago.
func (d *declaration) forget(pause time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on == nil || time.Since(d.at) < pause {
		return
	}
	d.on, d.err = nil, nil
	select {
	case d.again <- struct{}{}:
	default:
	}
}
