package transports

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// tapBuffer and tapBytes are how many messages and bytes wait for a tap's reader before it misses
// some. A message that is larger than tapBytes waits alone.
const (
	tapBuffer = 256
	tapBytes  = 8 << 20
)

// Taps sends copies of messages to readers, and never waits for a reader. The zero value is ready
// to use.
type Taps struct {
	mu   sync.Mutex
	taps map[string]map[*tap]struct{}
}

// tap is one reader's messages.
type tap struct {
	messages chan *message.Message
	// sizes has the bytes of the messages in the channel, and of some that the reader has taken
	// since; sum is their sum.
	sizes []int
	sum   int
}

// offer sends a copy of msg to the reader, or drops it. Calls of offer must not overlap.
func (t *tap) offer(msg *message.Message) {
	for len(t.sizes) > len(t.messages) {
		t.sum -= t.sizes[0]
		t.sizes = t.sizes[1:]
	}
	size := len(msg.Payload)
	if len(t.sizes) > 0 && t.sum+size > tapBytes {
		return
	}
	select {
	case t.messages <- msg.Copy():
		t.sizes, t.sum = append(t.sizes, size), t.sum+size
	default:
	}
}

// Tap returns a channel that gets copies of the topic's messages until ctx ends.
func (t *Taps) Tap(ctx context.Context, topic string) <-chan *message.Message {
	reader := &tap{messages: make(chan *message.Message, tapBuffer)}
	t.mu.Lock()
	if t.taps == nil {
		t.taps = map[string]map[*tap]struct{}{}
	}
	if t.taps[topic] == nil {
		t.taps[topic] = map[*tap]struct{}{}
	}
	t.taps[topic][reader] = struct{}{}
	t.mu.Unlock()
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taps[topic], reader)
		close(reader.messages)
	})
	return reader.messages
}

// Show sends a copy of msg to every tap of topic that has room for it. Without taps it costs a
// lock and a map lookup.
func (t *Taps) Show(topic string, msg *message.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for reader := range t.taps[topic] {
		reader.offer(msg)
	}
}
