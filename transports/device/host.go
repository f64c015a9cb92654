package device

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// hostEvents has the state of the events of the host itself.
type hostEvents struct {
	start, stop sync.Once
	quit        chan struct{}
	beating     sync.WaitGroup
}

// Start publishes that the host started, and heartbeats from then on.
func (r *Registry) Start() {
	r.host.start.Do(func() {
		r.feed.publishHost(HostStarted)
		r.host.quit = make(chan struct{})
		r.host.beating.Go(func() {
			ticker := time.NewTicker(r.feed.options.Heartbeat)
			defer ticker.Stop()
			for {
				select {
				case <-ticker.C:
					r.feed.publishHost(HostHeartbeat)
				case <-r.host.quit:
					return
				}
			}
		})
	})
}

// CloseSessions implements [Provider]. After it, Connect returns ErrClosing.
func (r *Registry) CloseSessions(ctx context.Context) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		sh.closing = true
		for _, c := range sh.contests {
			c.wakeAll()
		}
		sh.mu.Unlock()
	}
	sessions := r.Sessions()
	for _, s := range sessions {
		s.slot.waitUntilEmpty(ctx)
	}
	for _, s := range sessions {
		s.End(ServerShutdown)
	}
	r.writers.Wait()
	r.stopHeartbeats()
	r.feed.drainTopic(EventsTopic)
	r.feed.drainTopic(DataTopic)
}

// stopHeartbeats ends the heartbeats and publishes that the host stopped.
func (r *Registry) stopHeartbeats() {
	r.host.stop.Do(func() {
		started := true
		r.host.start.Do(func() { started = false })
		if started {
			close(r.host.quit)
			r.host.beating.Wait()
			r.feed.publishHost(HostStopped)
		}
	})
}

// Close ends the sessions and then the subscribers. It doesn't wait until frames are written or
// deliveries are settled.
func (r *Registry) Close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	r.CloseSessions(now)
	r.feed.mu.Lock()
	subscribers := make([]*subscriber, 0, len(r.feed.subscribers))
	for s := range r.feed.subscribers {
		subscribers = append(subscribers, s)
	}
	r.feed.mu.Unlock()
	for _, s := range subscribers {
		_ = s.Close() // always nil
	}
	r.feed.confirming.Wait()
}

// Subscriber returns a new consumer for a pipeline.
func (r *Registry) Subscriber(pipeline string) transports.Subscriber {
	return r.feed.newSubscriber(pipeline)
}

// Tap returns copies of the topic's messages, as transports.Tapper requires.
func (r *Registry) Tap(ctx context.Context, topic string) <-chan *message.Message {
	return r.feed.tapTopic(ctx, topic)
}

// Drain implements transports.Drainer.
func (r *Registry) Drain(topic string) { r.feed.drainTopic(topic) }
