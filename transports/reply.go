package transports

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Reply carries what became of one message back to the caller who sent it. A transport puts one on a message's context with
// [WithReply] and waits for Done; the router fills it. It is a pointer, so that it survives copies of the message.
//
// All methods are safe for concurrent use.
type Reply struct {
	// Wait is how long the caller wants to wait for an answer that comes from beyond this host, such as the result of
	// a command that is published to a broker. Zero: not at all.
	Wait time.Duration

	once sync.Once
	done chan struct{}

	mu      sync.Mutex
	outcome Outcome
}

// Outcome is what became of a message.
type Outcome struct {
	// Messages were produced and, where they have a destination, confirmed.
	Messages []*message.Message
	// Err is why the message was given up, nil if it was handled. Its kind says whose fault it was.
	Err error
	// Code says in HTTP's terms what Err's kind is, for a transport that answers a caller: 200 for a message that was handled or
	// dropped on purpose, 400 permanent, 500 retryable, 503 unavailable. Zero with an Err counts as 500.
	Code int
	// ID is the message's id, as described by the handler.
	ID string
	// Published says that at least one message went to a destination.
	Published bool
	// Answer yields the answer from beyond this host, if one is expected (Wait was set and the destination can answer).
	Answer <-chan *message.Message
}

// NewReply returns a reply whose caller waits for wait.
func NewReply(wait time.Duration) *Reply {
	return &Reply{Wait: wait, done: make(chan struct{})}
}

type replyKey struct{}

// WithReply returns a context that carries r.
func WithReply(ctx context.Context, r *Reply) context.Context {
	return context.WithValue(ctx, replyKey{}, r)
}

// ReplyFrom returns the reply that ctx carries, or nil.
func ReplyFrom(ctx context.Context) *Reply {
	r, _ := ctx.Value(replyKey{}).(*Reply)
	return r
}

// Settle says what became of the message. Only the first call counts.
func (r *Reply) Settle(o Outcome) {
	r.once.Do(func() {
		r.mu.Lock()
		r.outcome = o
		r.mu.Unlock()
		close(r.done)
	})
}

// Done is closed when the outcome is there.
func (r *Reply) Done() <-chan struct{} { return r.done }

// Outcome returns what became of the message; it is meaningful once Done is closed.
func (r *Reply) Outcome() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcome
}
