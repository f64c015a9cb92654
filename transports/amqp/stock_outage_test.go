package amqp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

// After a lost connection, the stock parts have data races, which end a test under -race. So these
// tests run the stock parts in a process of their own, and read only its output.
const (
	apartTest = "PENTROUGH_AMQP_APART_TEST"
	apartURL  = "PENTROUGH_AMQP_APART_URL"
	finding   = "found: "
)

// apart runs f in another process of this binary and returns its result.
func apart(t *testing.T, f func(url string) string) string {
	t.Helper()
	if os.Getenv(apartTest) == t.Name() {
		fmt.Println(finding + f(os.Getenv(apartURL)))
		os.Exit(0)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), apartTest+"="+t.Name(), apartURL+"="+testenv.Broker(t).VHost(t), "GORACE=exitcode=0 atexit_sleep_ms=20")
	out, err := child.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if got, ok := strings.CutPrefix(strings.TrimSpace(line), finding); ok {
			return got
		}
	}
	t.Fatalf("no answer, %v:\n%s", err, out)
	return ""
}

// swapQueue replaces the queue "q" by one with other arguments and one message, while the consumer
// has no connection.
func swapQueue(t *testing.T, peer *peer, proxy *testenv.Proxy) {
	t.Helper()
	peer.consumed("q", 1)
	proxy.Down()
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	peer.queue("q", amqp.Table{"x-max-length": int32(5)})
	peer.put("q", "wrong")
	proxy.Up()
}

func TestStockConsumesFromTheWrongQueueAfterAnOutage(t *testing.T) {
	t.Parallel()
	got := apart(t, func(url string) string {
		proxy, cuttable := testenv.Through(t, url)
		peer := dial(t, url)
		peer.queue("q", nil)
		stock := stockConsumer(t, cuttable)
		swapQueue(t, peer, proxy)
		return string(next(t, stock.out).Payload)
	})
	if got != "wrong" {
		t.Errorf("the stock subscriber received %q", got)
	}

	url, peer := queued(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable, onQueue))
	out := r.subscribe(t.Context(), "q")
	swapQueue(t, peer, proxy)
	r.sick("topic q", "PRECONDITION_FAILED", "x-max-length")
	none(t, out)
}

func TestStockClosesOnlyWhenTheBrokerIsBack(t *testing.T) {
	t.Parallel()
	const enough = 3 * time.Second
	got := apart(t, func(url string) string {
		proxy, cuttable := testenv.Through(t, url)
		peer := dial(t, url)
		peer.queue("q", nil)
		log := &errorLog{seen: make(chan string, 1000)}
		stock, err := wamqp.NewSubscriber(wamqp.NewDurableQueueConfig(cuttable), log)
		if err != nil {
			return err.Error()
		}
		if _, err := stock.Subscribe(context.Background(), "q"); err != nil {
			return err.Error()
		}
		// The result depends on which of its goroutines notices the outage first.
		for waits := false; !waits; {
			peer.consumed("q", 1)
			proxy.Down()
			if waits = log.says("Failed to prepare consume"); !waits {
				proxy.Up()
			}
		}
		done := make(chan error, 1)
		go func() { done <- stock.Close() }()
		select {
		case <-done:
			return "closed"
		case <-time.After(enough):
			return "waiting"
		}
	})
	if got != "waiting" {
		t.Errorf("the stock subscriber is %s", got)
	}

	url, _ := queued(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable, onQueue))
	out := r.subscribe(t.Context(), "q")
	r.well("topic q")
	proxy.Down()
	r.sick("consumer connection")
	r.closeAtOnce() // the broker stays away
	closed(t, out)
}

// errorLog collects what the stock parts log as errors.
type errorLog struct {
	watermill.NopLogger
	seen chan string
}

func (l *errorLog) Error(msg string, _ error, _ watermill.LogFields) { l.seen <- msg }

func (l *errorLog) With(watermill.LogFields) watermill.LoggerAdapter { return l }

// says reports whether msg is logged soon.
func (l *errorLog) says(msg string) bool {
	for late := time.After(2 * time.Second); ; {
		select {
		case said := <-l.seen:
			if said == msg {
				return true
			}
		case <-late:
			return false
		}
	}
}

// flood publishes from several goroutines through cuts. It reports whether all of them can still
// publish after the last cut.
func flood(t *testing.T, proxy *testenv.Proxy, publish func(*message.Message) error) bool {
	t.Helper()
	const publishers, cuts, enough = 4, 10, 6 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	sent := map[int]int{}
	for n := range publishers {
		go func() {
			for ctx.Err() == nil {
				if publish(outgoing("x")) == nil {
					mu.Lock()
					sent[n]++
					mu.Unlock()
				}
			}
		}()
	}
	all := func() bool {
		mu.Lock()
		clear(sent)
		mu.Unlock()
		for deadline := time.Now().Add(enough); time.Now().Before(deadline); {
			mu.Lock()
			n := len(sent)
			mu.Unlock()
			if n == publishers {
				return true
			}
			<-time.After(10 * time.Millisecond)
		}
		return false
	}
	for range cuts {
		if !all() {
			return false
		}
		proxy.Cut()
	}
	return all()
}

func TestStockPoolIsDeadAfterAFewCuts(t *testing.T) {
	t.Parallel()
	got := apart(t, func(url string) string {
		proxy, cuttable := testenv.Through(t, url)
		dial(t, url).queue("q", nil)
		c := wamqp.NewDurableQueueConfig(cuttable)
		c.Publish.ConfirmDelivery = true
		c.Publish.ChannelPoolSize = 2
		p, err := wamqp.NewPublisher(c, watermill.NopLogger{})
		if err != nil {
			return err.Error()
		}
		if flood(t, proxy, func(msg *message.Message) error { return p.Publish("q", msg) }) {
			return "alive"
		}
		return "dead"
	})
	if got != "dead" {
		t.Errorf("the stock publisher is %s", got)
	}
	// This package: TestNothingConfirmedIsLostThroughCuts.
}
