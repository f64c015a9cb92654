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

// subscription hands out the messages of one path, in the order in which their requests were
// complete.
//
// An exchange is waiting, then out, then neither. It is no longer waiting when its request
// withdraws it, which is so until it is handed out. It is no longer out when it is settled or
// void; its place in the window is free then.
type subscription struct {
	server *server
	path   string
	take   func(*transports.Delivery)
	// open ends when nothing more is handed out.
	open context.Context
	// life is the subscriber's: when it ends, what is out becomes void.
	life context.Context
	// done is closed when nothing is out any more, either.
	done chan struct{}
	wake chan struct{}

	mu        sync.Mutex
	waiting   []*exchange
	unsettled map[*exchange]struct{}
	enqueued  int
}

// exchange is one request and the delivery that is made of it.
type exchange struct {
	transports.Delivery
	sub  *subscription
	void context.CancelCauseFunc
	// outcome holds the first that was given, for the request's goroutine.
	outcome chan *transports.Outcome
}

// subscriptionOf returns the subscription that takes the path's messages, or nil. known says that
// the path is a topic.
func (s *server) subscriptionOf(path string) (u *subscription, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, known = s.routes[path]
	if u != nil && u.open.Err() != nil {
		u = nil
	}
	return u, known
}

// paths returns the topics that there are.
func (s *server) topicPaths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.routes))
}

// run hands messages out until the subscription takes no more, and then waits for what is out.
func (u *subscription) handOut() {
	for u.open.Err() == nil {
		if e := u.nextExchange(); e != nil {
			u.server.taps.Show(u.path, &message.Message{UUID: e.UUID, Metadata: e.Metadata, Payload: e.Payload})
			u.take(&e.Delivery)
			continue
		}
		select {
		case <-u.wake:
		case <-u.open.Done(): // who waits withdraws
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

// enqueue puts the exchange behind those that came before. It is false if nothing is handed out
// any more.
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

// next takes the first exchange that may be handed out. It returns nil if there is none.
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

// withdraw takes the exchange back. It is false if its delivery was handed out, or is just about
// to be.
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

// settle is the delivery's Settle. A caller who seemed to be gone, for which the delivery became
// void, still gets the outcome.
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

// leave gives the place in the window free. The subscription's lock is held.
func (e *exchange) freePlace() {
	delete(e.sub.unsettled, e)
	e.sub.wakeRun()
}

// give passes an outcome to the request's goroutine, unless one was given before.
func (e *exchange) giveOutcome(o *transports.Outcome) {
	select {
	case e.outcome <- o:
	default:
	}
}

// subscriber is one pipeline's use.
type subscriber struct {
	server   *server
	pipeline string
	// life ends with Close, or with the server's.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup // subscriptions
}

func (s *server) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	life, end := context.WithCancel(s.life)
	return &subscriber{server: s, pipeline: c.Pipeline, life: life, end: end}, nil
}

// Subscribe makes the path known and takes its messages.
func (s *subscriber) Subscribe(ctx context.Context, path string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case s.life.Err() != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, path, transports.ErrClosed)
	case srv.routes[path] != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: the path has a subscription", s.pipeline, path)
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

// Close ends the pipeline's use: what is out becomes void, and who waits is refused.
func (s *subscriber) Close() error {
	s.server.mu.Lock()
	s.end()
	s.server.mu.Unlock()
	s.work.Wait()
	return nil
}
