package timeout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
)

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		m, err := (&Config{Timeout: time.Minute}).New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

// waits is a handler that returns why its context ended.
func waits(msg *message.Message) ([]*message.Message, error) {
	<-msg.Context().Done()
	return nil, context.Cause(msg.Context())
}

func TestAnAttemptEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := middlewaretest.NewHost(t).Build(&Config{Timeout: 3 * time.Second})
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "")
		begun := time.Now()
		_, err := m.Wrap(waits)(msg)
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "took longer than 3s: context deadline exceeded" {
			t.Errorf("error %q", err)
		}
		if k := handlers.KindOf(err); k != handlers.KindRetryable {
			t.Errorf("kind %v", k)
		}
		if handlers.Cancelled(msg.Context()) || msg.Context().Err() != nil {
			t.Error("the deadline is still on the message")
		}
	})
}

func TestASuccessAfterTheDeadlineIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := middlewaretest.NewHost(t).Build(&Config{Timeout: time.Second})
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "")
		out, err := m.Wrap(func(msg *message.Message) ([]*message.Message, error) {
			<-msg.Context().Done()
			return []*message.Message{handlers.NewMessage(nil)}, nil
		})(msg)
		if err != nil || len(out) != 1 {
			t.Errorf("%v, %v", out, err)
		}
	})
}

// Watermill's middleware leaves its ended context on the message, so that each further attempt has
// no time.
func TestTheDeadlineIsTakenOffAgain(t *testing.T) {
	left := func(wrap message.HandlerMiddleware) error {
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "")
		_, _ = wrap(func(*message.Message) ([]*message.Message, error) { return nil, nil })(msg)
		return msg.Context().Err()
	}
	if left(stock.Timeout(time.Minute)) == nil {
		t.Error("the stock middleware takes its context off: the hazard is gone")
	}
	if err := left(middlewaretest.NewHost(t).Build(&Config{Timeout: time.Minute}).Wrap); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	if err := (&Config{}).Validate(); err == nil {
		t.Error("no timeout is fine")
	}
	if c := defaults; c.Validate() != nil {
		t.Error(c.Validate())
	}
}
