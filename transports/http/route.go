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

// route is a path that a pipeline subscribed to. The server's lock guards it.
type route struct {
	path string
	sub  *subscription // nil while nobody takes its messages
}

// subscription hands the messages of one path to a pipeline, in the order in which their requests were complete.
type subscription struct {
	server *server
	route  *route
	out    chan *message.Message
	// ended is closed when it takes no more.
	ended chan struct{}
	// closed is closed when acks don't count any more either.
	closed chan struct{}
	done   chan struct{}
	wake   chan struct{}

	// The server's lock guards what follows.
	waiting   []*exchange
	unsettled int
	arrived   int
}

// exchange is one request and the message that is made of it.
type exchange struct {
	sub   *subscription
	msg   *message.Message
	reply *transports.Reply
	void  context.CancelCauseFunc
	// refused is closed when the message will not be handed out.
	refused chan struct{}
}

// paths returns the topics that there are.
func (s *server) paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.routes))
}

// live reports whether somebody takes the path's messages. The lock is held.
func (rt *route) live() bool {
	if rt.sub == nil {
		return false
	}
	select {
	case <-rt.sub.ended:
		return false
	default:
		return true
	}
}

// enqueue puts the exchange behind those that came before. It is false if nobody takes the path's messages.
func (s *server) enqueue(rt *route, e *exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !rt.live() {
		return false
	}
	e.sub = rt.sub
	e.sub.waiting = append(e.sub.waiting, e)
	e.sub.arrived++
	e.sub.signal()
	return true
}

// withdraw takes the exchange back. It is false if its message was handed out, or is just about to be.
func (s *server) withdraw(e *exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(e.sub.waiting, e)
	if i < 0 {
		return false
	}
	e.sub.waiting = slices.Delete(e.sub.waiting, i, i+1)
	return true
}

// run hands messages out until ctx ends or the subscriber is closed; in the first case it then waits for what is unsettled.
func (u *subscription) run(ctx context.Context) {
	var deliveries sync.WaitGroup
	defer func() {
		u.stop()
		deliveries.Wait()
		u.server.mu.Lock()
		u.route.sub = nil
		u.server.mu.Unlock()
		close(u.out)
		close(u.done)
	}()
	cancelled := ctx.Done()
	for {
		e, done := u.next(ctx)
		if done {
			return
		}
		if e == nil {
			select {
			case <-u.wake:
			case <-cancelled:
				cancelled = nil
				u.stop()
			case <-u.closed:
			}
			continue
		}
		u.server.taps.Show(u.route.path, e.msg)
		select {
		case u.out <- e.msg:
			deliveries.Go(func() { u.await(e) })
		case <-e.msg.Context().Done(): // the caller has gone
			u.settled()
		case <-cancelled:
			close(e.refused)
			u.settled()
		case <-u.closed:
			close(e.refused)
			u.settled()
		}
	}
}

// next takes the first message that may be handed out, if there is one. done says that the subscription has ended.
func (u *subscription) next(ctx context.Context) (e *exchange, done bool) {
	u.server.mu.Lock()
	defer u.server.mu.Unlock()
	switch {
	case isClosed(u.closed):
		return nil, true
	case ctx.Err() != nil:
		return nil, u.unsettled == 0
	case len(u.waiting) == 0 || u.unsettled >= u.server.config.Window:
		return nil, false
	}
	e = u.waiting[0]
	u.waiting[0] = nil
	u.waiting = u.waiting[1:]
	u.unsettled++
	return e, false
}

// await waits until the message is settled, its caller has gone, or acks don't count any more.
func (u *subscription) await(e *exchange) {
	select {
	case <-e.msg.Acked():
	case <-e.msg.Nacked():
	case <-e.msg.Context().Done():
	case <-u.closed:
		e.void(transports.ErrVoid)
	}
	u.settled()
}

func (u *subscription) settled() {
	u.server.mu.Lock()
	defer u.server.mu.Unlock()
	u.unsettled--
	u.signal()
}

func (u *subscription) signal() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// stop takes no more and refuses who waits.
func (u *subscription) stop() {
	u.server.mu.Lock()
	defer u.server.mu.Unlock()
	if isClosed(u.ended) {
		return
	}
	close(u.ended)
	for _, e := range u.waiting {
		close(e.refused)
	}
	u.waiting = nil
}

// subscriber is one pipeline's use.
type subscriber struct {
	server   *server
	pipeline string

	// The server's lock guards these.
	closed        chan struct{}
	subscriptions []*subscription
}

func (s *server) Subscriber(c transports.Consumer) (message.Subscriber, error) {
	return &subscriber{server: s, pipeline: c.Pipeline, closed: make(chan struct{})}, nil
}

// Subscribe makes the path known and takes its messages.
func (s *subscriber) Subscribe(ctx context.Context, path string) (<-chan *message.Message, error) {
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if isClosed(s.closed) || srv.life.Err() != nil {
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, path, transports.ErrClosed)
	}
	rt := srv.routes[path]
	if rt == nil {
		rt = &route{path: path}
		srv.routes[path] = rt
	}
	if rt.sub != nil {
		return nil, fmt.Errorf("subscribing pipeline %s to %s: the path has a subscription", s.pipeline, path)
	}
	sub := &subscription{
		server: srv, route: rt, out: make(chan *message.Message), wake: make(chan struct{}, 1),
		ended: make(chan struct{}), closed: s.closed, done: make(chan struct{}),
	}
	rt.sub = sub
	s.subscriptions = slices.DeleteFunc(s.subscriptions, func(old *subscription) bool { return isClosed(old.done) })
	s.subscriptions = append(s.subscriptions, sub)
	stop := context.AfterFunc(srv.life, s.end)
	srv.work.Go(func() {
		defer stop()
		sub.run(ctx)
	})
	return sub.out, nil
}

// end voids what is unsettled.
func (s *subscriber) end() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if !isClosed(s.closed) {
		close(s.closed)
	}
}

// Close ends the pipeline's use: what is unsettled becomes void, and who waits is refused.
func (s *subscriber) Close() error {
	s.end()
	s.server.mu.Lock()
	subs := s.subscriptions
	s.server.mu.Unlock()
	for _, sub := range subs {
		<-sub.done
	}
	return nil
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
