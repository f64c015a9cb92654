package device

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// hostEvents is the host's own presence.
type hostEvents struct {
	start, stop sync.Once
	quit        chan struct{}
	beating     sync.WaitGroup
}

// Start publishes that the host started, and its heartbeats from then on.
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

// CloseSessions does what [Provider] says of it. A registry whose sessions are closed takes no more.
func (r *Registry) CloseSessions(ctx context.Context) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		sh.closing = true
		for _, f := range sh.flapping {
			for len(f.waiting) > 0 {
				f.wakeFirst()
			}
		}
		sh.mu.Unlock()
	}
	sessions := r.liveSessions()
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

// stop ends the heartbeats and says so.
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

// Close ends everything at once: sessions, then the subscribers with what they keep.
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
		_ = s.Close() // it has no error
	}
}

// Subscriber returns a pipeline's own consumer of the topics.
func (r *Registry) Subscriber(pipeline string) transports.Subscriber {
	return r.feed.newSubscriber(pipeline)
}

// Tap does what transports.Tapper says of it.
func (r *Registry) Tap(ctx context.Context, topic string) <-chan *message.Message {
	return r.feed.tapTopic(ctx, topic)
}

// Drain does what transports.Drainer says of it.
func (r *Registry) Drain(topic string) { r.feed.drainTopic(topic) }
