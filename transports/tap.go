package transports

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// tapBuffer is how many messages wait for a tap's reader before it misses some.
const tapBuffer = 256

// Taps sends copies of messages to readers, and never waits for a reader. The zero value is ready
// to use.
type Taps struct {
	mu   sync.RWMutex
	taps map[string]map[chan *message.Message]struct{}
}

// Tap returns a channel that gets copies of the topic's messages until ctx ends.
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

// Show sends a copy of msg to every tap of topic that has room for it. Without taps it costs a
// lock and a map lookup.
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
