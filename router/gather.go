package router

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

// gather collects single messages into batches, in order, and calls a batch handler with each
// batch. A batch ends when it has the configured size, or after the configured interval. Each
// message gets its own outcome.
type gather struct {
	handler handlers.BatchHandler
	config  Batch
	life    context.Context
	items   chan gathered
	work    sync.WaitGroup
}

// gathered is a message that waits for its batch.
type gathered struct {
	msg     *message.Message
	outcome chan handlers.Outcome
}

func newGather(life context.Context, h handlers.BatchHandler, c Batch) *gather {
	g := &gather{handler: h, config: c, life: life, items: make(chan gathered)}
	g.work.Go(g.collectBatches)
	return g
}

// Handle adds the message to a batch and returns its outcome.
func (g *gather) Handle(msg *message.Message) ([]*message.Message, error) {
	item := gathered{msg, make(chan handlers.Outcome, 1)}
	select {
	case g.items <- item:
	case <-msg.Context().Done():
		return nil, context.Cause(msg.Context())
	case <-g.life.Done():
		return nil, context.Cause(g.life)
	}
	handlers.Enqueued(msg.Context())
	outcome := <-item.outcome
	return outcome.Messages, outcome.Err
}

// collectBatches runs one batch after the other until the pipeline's life ends. It is a goroutine.
func (g *gather) collectBatches() {
	for {
		var batch []gathered
		select {
		case item := <-g.items:
			batch = append(batch, item)
		case <-g.life.Done():
			return
		}
		full := time.NewTimer(g.config.Interval)
	filling:
		for len(batch) < g.config.Size {
			select {
			case item := <-g.items:
				batch = append(batch, item)
			case <-full.C:
				break filling
			case <-g.life.Done():
				break filling
			}
		}
		full.Stop()
		g.runBatch(batch)
	}
}

// runBatch handles a batch and gives each message its outcome.
func (g *gather) runBatch(batch []gathered) {
	msgs := make([]*message.Message, len(batch))
	for i, item := range batch {
		msgs[i] = item.msg
	}
	outcomes, err := g.callHandler(msgs)
	if err == nil && len(outcomes) != len(batch) {
		err = fmt.Errorf("the handler returned %d outcomes for a batch of %d messages", len(outcomes), len(batch))
	}
	for i, item := range batch {
		if err != nil {
			item.outcome <- handlers.Outcome{Err: err}
			continue
		}
		item.outcome <- outcomes[i]
	}
}

// callHandler calls the handler, and returns an error if it panics.
func (g *gather) callHandler(msgs []*message.Message) (outcomes []handlers.Outcome, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a batch: %v\n%s", r, debug.Stack())
		}
	}()
	return g.handler.HandleBatch(g.life, msgs), nil
}
