package router

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// inFlightOf gives the host a budget for messages in flight.
func inFlightOf(limit int) (*transports.Budget, func(*Config)) {
	b := transports.NewBudget(limit)
	return b, func(c *Config) { c.Memory.InFlight = b }
}

func TestOutputsAreInFlightUntilTheyAreConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		budget, limited := inFlightOf(1 << 20)
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			var parts []*message.Message
			for range 10 {
				parts = append(parts, handlers.NewMessage([]byte(strings.Repeat("x", 1000))))
			}
			return parts, nil
		}), limited)
		defer h.stop()
		h.out.failPublishing(errBroken)
		h.in.send("a", "1")
		synctest.Wait()
		first := budget.Used()
		if first < 10_000 || first > 12_000 {
			t.Errorf("%d bytes are in flight while ten outputs of 1,000 bytes wait", first)
		}
		pass(maxRetryAfter) // attempts to publish don't add up
		if used := budget.Used(); used != first {
			t.Errorf("%d bytes are in flight later, not %d", used, first)
		}
		h.out.failPublishing(nil)
		pass(maxRetryAfter)
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are in flight after the end", used)
		}
	})
}

func TestRerunsTakeTheirBytesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		budget, limited := inFlightOf(1 << 20)
		f := &failing{}
		h := newHarness(t, handlerFunc(f.handle), limited)
		defer h.stop()
		h.in.send("a", "1")
		synctest.Wait()
		first := budget.Used()
		pass(maxRetryAfter)
		if used := budget.Used(); used != first || used == 0 {
			t.Errorf("%d bytes are in flight after reruns, not %d", used, first)
		}
		f.up.Store(true)
		pass(maxRetryAfter)
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are in flight after the end", used)
		}
	})
}

func TestCallersBeyondTheBytesInFlightAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		budget, limited := inFlightOf(100)
		release := make(chan struct{})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			<-release
			return nil, nil
		}), callers, limited)
		defer h.stop()
		h.in.send("a", "1", "header.long", strings.Repeat("x", 200)) // alone, it is let in
		synctest.Wait()
		if o := <-h.in.send("b", "2").outcome; o.Code != 503 || !errors.Is(o.Err, errMemoryFull) {
			t.Errorf("a caller beyond the budget got %d, %v", o.Code, o.Err)
		}
		close(release)
		synctest.Wait()
		if o := <-h.in.send("b", "3").outcome; o.Code != 200 {
			t.Errorf("a caller after that got %d, %v", o.Code, o.Err)
		}
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are in flight after the end", used)
		}
	})
}

func TestOrphansMakeRoomForOtherMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		budget, limited := inFlightOf(1000)
		release := make(chan struct{})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			<-release
			return nil, nil
		}), limited)
		defer h.stop()
		h.in.send("a", "1", "header.long", strings.Repeat("x", 2000))
		synctest.Wait()
		h.in.cut(h.in.subs[0])
		h.in.lose() // another host got the redelivered message
		close(release)
		pass(time.Minute)
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are in flight although nothing runs", used)
		}
	})
}
