package transports

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// tapBuffer is how many messages a tap's reader may be behind before it misses some.
const tapBuffer = 256

// Taps shows copies of messages to whoever listens, without ever waiting for them. The zero value is ready.
type Taps struct {
	mu   sync.RWMutex
	taps map[string]map[chan *message.Message]struct{}
}

// Tap yields copies of what is shown under topic until ctx ends.
func (t *Taps) Tap(ctx context.Context, topic string) <-chan *message.Message {
	c := make(chan *message.Message, tapBuffer)
	t.mu.Lock()
	if t.taps == nil {
		t.taps = map[string]map[chan *message.Message]struct{}{}
	}
	if t.taps[topic] == nil {
		t.taps[topic] = map[chan *message.Message]struct{}{}
	}
	t.taps[topic][c] = struct{}{}
	t.mu.Unlock()
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taps[topic], c)
		close(c)
	})
	return c
}

// Show gives a copy of msg to every tap of topic that keeps up. It costs a lock and a look-up without taps.
func (t *Taps) Show(topic string, msg *message.Message) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c := range t.taps[topic] {
		select {
		case c <- msg.Copy():
		default:
		}
	}
}
