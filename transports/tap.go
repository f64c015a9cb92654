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
	taps map[string]map[*TapBuffer]struct{}
}

// TapBuffer has the messages that wait for one reader of a tap. It is bounded in messages and
// bytes.
type TapBuffer struct {
	messages chan *message.Message
	// sizes has the size of each message in the channel, and of some that the reader has already
	// taken. sum is their sum.
	sizes []int
	sum   int
}

// NewTapBuffer returns an empty buffer.
func NewTapBuffer() *TapBuffer { return &TapBuffer{messages: make(chan *message.Message, tapBuffer)} }

// Messages returns the channel for the reader.
func (t *TapBuffer) Messages() <-chan *message.Message { return t.messages }

// Close closes the channel of Messages. Calls of Offer must have ended.
func (t *TapBuffer) Close() { close(t.messages) }

// Offer puts msg into the buffer, or drops it. Calls of Offer must not overlap. The caller must
// not change msg afterwards.
func (t *TapBuffer) Offer(msg *message.Message) {
	for len(t.sizes) > len(t.messages) {
		t.sum -= t.sizes[0]
		t.sizes = t.sizes[1:]
	}
	size := len(msg.Payload)
	if len(t.sizes) > 0 && t.sum+size > tapBytes {
		return
	}
	select {
	case t.messages <- msg:
		t.sizes, t.sum = append(t.sizes, size), t.sum+size
	default:
	}
}

// Tap returns a channel that gets copies of the topic's messages until ctx ends.
func (t *Taps) Tap(ctx context.Context, topic string) <-chan *message.Message {
	reader := NewTapBuffer()
	t.mu.Lock()
	if t.taps == nil {
		t.taps = map[string]map[*TapBuffer]struct{}{}
	}
	if t.taps[topic] == nil {
		t.taps[topic] = map[*TapBuffer]struct{}{}
	}
	t.taps[topic][reader] = struct{}{}
	t.mu.Unlock()
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taps[topic], reader)
		reader.Close()
	})
	return reader.Messages()
}

// Show sends a copy of msg to every tap of topic that has room for it. Without taps it costs a
// lock and a map lookup.
func (t *Taps) Show(topic string, msg *message.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for reader := range t.taps[topic] {
		reader.Offer(msg.Copy())
	}
}
