package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// consumed is a queue whose consumers end at the nth check.
type consumed struct {
	looks, leave int
	err          error
}

func (c *consumed) QueueDeclarePassive(string, bool, bool, bool, bool, amqp.Table) (amqp.Queue, error) {
	if c.looks++; c.looks >= c.leave {
		return amqp.Queue{}, c.err
	}
	return amqp.Queue{Consumers: 1}, nil
}

func TestAConsumerWaitsUntilTheLostOneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := &consumed{leave: 3}
		if err := awaitNoConsumer(t.Context(), queue, "q"); err != nil || queue.looks != 3 {
			t.Errorf("%v after %d looks, want 3", err, queue.looks)
		}
		began := time.Now()
		if err := awaitNoConsumer(t.Context(), &consumed{leave: 1e6}, "q"); err != nil || time.Since(began) != returnTime {
			t.Errorf("%v after %s with a consumer that stays, want %s", err, time.Since(began), returnTime)
		}
		gone := errors.New("gone")
		if err := awaitNoConsumer(t.Context(), &consumed{leave: 2, err: gone}, "q"); !errors.Is(err, gone) {
			t.Errorf("%v of a queue that is gone", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if err := awaitNoConsumer(ctx, &consumed{leave: 1e6}, "q"); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %s when nobody wants more", err, time.Since(began))
		}
	})
}
