package http

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// subscription delivers the messages of one path, in the order in which their requests were
// complete.
//
// An exchange has these states:
//
//   - waiting: it is in waiting. Its request can withdraw it.
//   - unsettled: its message is delivered, and it takes a place in the window.
//   - finished: it was withdrawn, its delivery was settled, or its delivery became void.
//
// mu guards these states. It is taken after server.mu, never before.
type subscription struct {
	server *server
	path   string
	take   func(*transports.Delivery)
	// open ends when no more messages are delivered.
	open context.Context
	// life is the context of the subscriber. When it ends, unsettled deliveries become void.
	life context.Context
	// done is closed when handOut returns: no delivery is unsettled then.
	done chan struct{}
	wake chan struct{}

	mu        sync.Mutex
	waiting   []*exchange
	unsettled map[*exchange]struct{}
	enqueued  int
}

// exchange is one request and the delivery of its message.
type exchange struct {
	transports.Delivery
	sub  *subscription
	void context.CancelCauseFunc
	// outcome passes the first outcome to the goroutine of the request.
	outcome chan *transports.Outcome
}

// subscriptionOf returns the subscription of the path, or nil. known reports whether the path is a
// topic.
func (s *server) subscriptionOf(path string) (u *subscription, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, known = s.routes[path]
	if u != nil && u.open.Err() != nil {
		u = nil
	}
	return u, known
}

// topicPaths returns the paths that are topics.
func (s *server) topicPaths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.routes))
}

// handOut delivers messages until open ends. Then it waits until all deliveries are settled.
func (u *subscription) handOut() {
	for u.open.Err() == nil {
		if e := u.nextExchange(); e != nil {
			u.server.taps.Show(u.path, &message.Message{UUID: e.UUID, Metadata: e.Metadata, Payload: e.Payload})
			u.take(&e.Delivery)
			continue
		}
		select {
		case <-u.wake:
		case <-u.open.Done(): // the waiting requests withdraw
		}
	}
	for u.life.Err() == nil && u.countUnsettled() > 0 {
		select {
		case <-u.wake:
		case <-u.life.Done():
		}
	}
	u.voidAll()
	u.server.mu.Lock()
	u.server.routes[u.path] = nil
	u.server.mu.Unlock()
	close(u.done)
}

// enqueue adds the exchange as the last one. It returns false if no more messages are delivered.
func (u *subscription) enqueue(e *exchange) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open.Err() != nil {
		return false
	}
	e.sub = u
	u.waiting = append(u.waiting, e)
	u.enqueued++
	u.wakeRun()
	return true
}

// nextExchange returns the first waiting exchange if the window has room. Otherwise it returns
// nil.
func (u *subscription) nextExchange() *exchange {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.waiting) == 0 || len(u.unsettled) >= u.server.config.Window {
		return nil
	}
	e := u.waiting[0]
	u.waiting[0] = nil
	u.waiting = u.waiting[1:]
	u.unsettled[e] = struct{}{}
	return e
}

func (u *subscription) countUnsettled() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.unsettled)
}

func (u *subscription) voidAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for e := range u.unsettled {
		e.void(transports.ErrVoid)
	}
	clear(u.unsettled)
}

func (u *subscription) wakeRun() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// withdraw removes a waiting exchange. It returns false if the message is delivered, or is being
// delivered.
func (e *exchange) withdraw() bool {
	e.sub.mu.Lock()
	defer e.sub.mu.Unlock()
	i := slices.Index(e.sub.waiting, e)
	if i < 0 {
		return false
	}
	e.sub.waiting = slices.Delete(e.sub.waiting, i, i+1)
	return true
}

// settle implements the delivery's Settle. If the delivery became void because the caller seemed
// to be gone, the request still gets the outcome.
func (e *exchange) settle(o *transports.Outcome) {
	e.sub.mu.Lock()
	defer e.sub.mu.Unlock()
	e.freePlace()
	e.giveOutcome(o)
}

// cancel makes the delivery void.
func (e *exchange) cancel() {
	e.sub.mu.Lock()
	defer e.sub.mu.Unlock()
	e.void(transports.ErrVoid)
	e.freePlace()
}

// freePlace frees the exchange's place in the window. The caller has the subscription's lock.
func (e *exchange) freePlace() {
	delete(e.sub.unsettled, e)
	e.sub.wakeRun()
}

// giveOutcome passes an outcome to the request's goroutine, unless it has one already.
func (e *exchange) giveOutcome(o *transports.Outcome) {
	select {
	case e.outcome <- o:
	default:
	}
}

// subscriber is the consumer of one pipeline.
type subscriber struct {
	server   *server
	pipeline string
	// life ends with Close, or when the server closes.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup // subscriptions
}

func (s *server) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	life, end := context.WithCancel(s.life)
	return &subscriber{server: s, pipeline: c.Pipeline, life: life, end: end}, nil
}

// Subscribe makes the path a topic and delivers its messages.
func (s *subscriber) Subscribe(ctx context.Context, path string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case s.life.Err() != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, path, transports.ErrClosed)
	case srv.routes[path] != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: another pipeline has subscribed", s.pipeline, path)
	}
	open, end := context.WithCancel(ctx)
	u := &subscription{
		server: srv, path: path, take: take, open: open, life: s.life,
		done: make(chan struct{}), wake: make(chan struct{}, 1), unsettled: map[*exchange]struct{}{},
	}
	srv.routes[path] = u
	stop := context.AfterFunc(s.life, end)
	s.work.Add(1)
	srv.work.Go(func() {
		defer s.work.Done()
		defer end()
		defer stop()
		u.handOut()
	})
	return u.done, nil
}

// Close ends the subscriptions. Unsettled deliveries become void, and waiting requests are
// refused.
func (s *subscriber) Close() error {
	s.server.mu.Lock()
	s.end()
	s.server.mu.Unlock()
	s.work.Wait()
	return nil
}
