package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

func TestMain(m *testing.M) { await.Main(m) }

// ahead returns the difference of a wall clock, which a test can change.
func ahead(by time.Duration) *atomic.Int64 {
	var off atomic.Int64
	off.Store(int64(by))
	return &off
}

// build makes a clock with one topic, x, and doesn't start it. off is the difference of its wall
// clock to the bubble's time.
func build(t testing.TB, config TopicConfig, off *atomic.Int64) *clock {
	t.Helper()
	now := func() time.Time { return time.Now() }
	if off != nil {
		now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	}
	c := &Config{Topics: map[string]TopicConfig{"x": config}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	tr, err := c.New(transports.Env{
		Name: "test", Host: "host-1", Logger: slog.New(slog.DiscardHandler), Now: now, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tr.(*clock)
}

func start(t testing.TB, k *clock) {
	t.Helper()
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func subscriberOf(t testing.TB, k *clock, pipeline string) message.Subscriber {
	t.Helper()
	s, err := k.Subscriber(transports.Consumer{Pipeline: pipeline})
	if err != nil {
		t.Fatal(err)
	}
	return transporttest.Stock(s)
}

func subscribe(ctx context.Context, t testing.TB, s message.Subscriber) <-chan *message.Message {
	t.Helper()
	out, err := s.Subscribe(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// consume starts the clock with one pipeline.
func consume(t testing.TB, k *clock) <-chan *message.Message {
	t.Helper()
	out := subscribe(t.Context(), t, subscriberOf(t, k, "a"))
	start(t, k)
	return out
}

// none checks that there is no tick now, and that the output is open.
func none(t testing.TB, out <-chan *message.Message) {
	t.Helper()
	synctest.Wait()
	select {
	case msg, ok := <-out:
		if !ok {
			t.Fatal("the output is closed")
		}
		t.Fatalf("received %s", msg.Payload)
	default:
	}
}

// closed checks that the output closes without another tick.
func closed(t testing.TB, out <-chan *message.Message) {
	t.Helper()
	if msg, ok := <-out; ok {
		t.Fatalf("received %s, want a closed output", msg.Payload)
	}
}

// want checks a tick's payload and its number of missed ticks.
func want(t testing.TB, msg *message.Message, payload, missed string) {
	t.Helper()
	if string(msg.Payload) != payload || msg.Metadata[missedKey] != missed {
		t.Errorf("received %s after %s missed ones, want %s after %s", msg.Payload, msg.Metadata[missedKey], payload, missed)
	}
}

// counted checks the metrics: the number of ticks, and of those that pipeline a missed.
func counted(t testing.TB, k *clock, made, missed int) {
	t.Helper()
	want := fmt.Sprintf(`# HELP pentrough_schedule_missed_total Ticks that a pipeline missed: the tick before was unsettled, a newer tick replaced a nacked one, or the host was stopped.
# TYPE pentrough_schedule_missed_total counter
pentrough_schedule_missed_total{pipeline="a",topic="x"} %d
# HELP pentrough_schedule_ticks_total Ticks that a topic made.
# TYPE pentrough_schedule_ticks_total counter
pentrough_schedule_ticks_total{topic="x"} %d
`, missed, made)
	if err := testutil.CollectAndCompare(k, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		k := build(t, TopicConfig{Every: 30 * time.Second, Payload: "{n}"}, nil)
		out := consume(t, k)
		for i := range 200 {
			msg := <-out
			if gone := time.Since(begun); gone != time.Duration(i+1)*30*time.Second {
				t.Fatalf("tick %d came after %s", i+1, gone)
			}
			want(t, msg, fmt.Sprint(i+1), "0")
			time.Sleep(29 * time.Second) // nearly until the next tick
			msg.Ack()
		}
		counted(t, k, 200, 0)
	})
}

func TestMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's time begins at 2000-01-01
		config := TopicConfig{
			Every:    1500 * time.Millisecond,
			Payload:  `{"id":"{id}","at":"{time}","unix":{unix},"n":{n},"cmd":"{other}"}`,
			Metadata: map[string]string{"content_type": "application/json", "device": "10.0.0.7"},
		}
		msg := <-consume(t, build(t, config, nil))
		const due = "2000-01-01T00:00:01.5Z"
		id := uuid.NewSHA1(idNamespace, []byte("host-1\x00test\x00x\x00"+due)).String()
		if diff := cmp.Diff(message.Metadata{
			"message_id": id, "timestamp": due, "schedule.due": due, "schedule.missed": "0",
			"content_type": "application/json", "device": "10.0.0.7",
		}, msg.Metadata); diff != "" {
			t.Error(diff)
		}
		want := `{"id":"` + id + `","at":"2000-01-01T00:00:01Z","unix":946684801,"n":1,"cmd":"{other}"}`
		if string(msg.Payload) != want {
			t.Errorf("payload %s, want %s", msg.Payload, want)
		}
		if _, err := uuid.Parse(msg.UUID); err != nil || msg.UUID == id {
			t.Errorf("the UUID %q isn't one of its own: %v", msg.UUID, err)
		}
		msg.Ack()
	})
}

func TestMissedTicksDontPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: 30 * time.Second, Payload: "{n}"}, nil)
		out := consume(t, k)
		first := <-out
		time.Sleep(10*time.Minute + 5*time.Second) // 20 ticks are due in this time
		none(t, out)
		first.Ack()
		none(t, out)
		next := <-out
		want(t, next, "22", "20")
		next.Ack()
		after := <-out
		want(t, after, "23", "0")
		after.Ack()
		counted(t, k, 23, 20)
	})
}

// take starts the clock with one pipeline that calls take.
func take(t testing.TB, k *clock, take func(*transports.Delivery)) (transports.Subscriber, <-chan struct{}) {
	t.Helper()
	s, err := k.Subscriber(transports.Consumer{Pipeline: "a"})
	if err != nil {
		t.Fatal(err)
	}
	done, err := s.Subscribe(t.Context(), "x", take)
	if err != nil {
		t.Fatal(err)
	}
	start(t, k)
	return s, done
}

func TestSettledInTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		var got []string
		take(t, k, func(d *transports.Delivery) {
			again := d.Metadata[transports.Redelivered] == "true"
			got = append(got, string(d.Payload))
			if again {
				d.Settle(&transports.Outcome{})
			}
			d.Settle(nil) // after this it is redelivered
		})
		time.Sleep(3*time.Second + firstPause)
		synctest.Wait()
		if diff := cmp.Diff([]string{"1", "1", "2", "2", "3", "3"}, got); diff != "" {
			t.Error(diff)
		}
		counted(t, k, 3, 0)
	})
}

// TestSettledTwice checks that settling a tick twice doesn't settle the next one.
func TestSettledTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		var got []*transports.Delivery
		take(t, k, func(d *transports.Delivery) { got = append(got, d) })
		time.Sleep(time.Second)
		synctest.Wait()
		first := got[0]
		first.Settle(&transports.Outcome{})
		time.Sleep(time.Second)
		synctest.Wait()
		first.Settle(&transports.Outcome{})
		first.Settle(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(got) != 2 || string(got[1].Payload) != "2" {
			t.Fatalf("%d ticks were handed out, want 2: the second is unsettled", len(got))
		}
		counted(t, k, 62, 60)
		got[1].Settle(&transports.Outcome{})
	})
}

func TestSettledWhenVoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		var got []*transports.Delivery
		s, done := take(t, k, func(d *transports.Delivery) { got = append(got, d) })
		time.Sleep(time.Second)
		synctest.Wait()
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			got[0].Settle(nil) // at the same time
		}()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-settled
		<-done
		got[0].Settle(nil)
		time.Sleep(time.Minute)
		if len(got) != 1 {
			t.Errorf("%d ticks were handed out after Close", len(got)-1)
		}
	})
}

func TestNackedComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Minute, Payload: "{n}"}, nil)
		out := consume(t, k)
		first := <-out
		if first.Metadata[transports.Redelivered] != "" {
			t.Error("a new tick says that it is redelivered")
		}
		first.Nack()
		begun, pause := time.Now(), firstPause
		for range 5 {
			again := <-out
			if took := time.Since(begun); took < pause/2 || took > pause {
				t.Errorf("it came again after %s, want %s to %s", took, pause/2, pause)
			}
			if again.UUID != first.UUID || again.Metadata[transports.MessageID] != first.Metadata[transports.MessageID] {
				t.Error("what comes again isn't the same tick")
			}
			if again.Metadata[transports.Redelivered] != "true" {
				t.Error("what comes again doesn't say so")
			}
			want(t, again, "1", "0")
			again.Nack()
			begun, pause = time.Now(), 2*pause
		}
		again := <-out
		again.Ack()
		none(t, out)
		second := <-out
		want(t, second, "2", "0")
		second.Ack()
	})
}

func TestNackedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		out := consume(t, k)
		first := <-out
		time.Sleep(1950 * time.Millisecond)
		first.Nack() // 2 was skipped, and 3 comes before its pause is over
		next := <-out
		want(t, next, "3", "2")
		if next.Metadata[transports.Redelivered] != "" {
			t.Error("a new tick says that it is redelivered")
		}
		next.Ack()
		counted(t, k, 3, 2)
	})
}

func TestTwoConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		stuck := subscribe(t.Context(), t, subscriberOf(t, k, "stuck"))
		quick := consume(t, k)
		held := <-stuck
		for i := range 10 {
			msg := <-quick
			want(t, msg, fmt.Sprint(i+1), "0")
			if i == 0 && (msg == held || msg.Metadata[transports.MessageID] != held.Metadata[transports.MessageID]) {
				t.Error("two pipelines must get messages of their own with the tick's id")
			}
			msg.Ack()
		}
		held.Ack()
		msg := <-stuck
		want(t, msg, "11", "9")
		msg.Ack()
		(<-quick).Ack()
	})
}

func TestAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		out := consume(t, build(t, TopicConfig{Every: time.Minute, AtStart: true, Payload: "{n}"}, nil))
		for i := range 3 {
			msg := <-out
			want(t, msg, fmt.Sprint(i+1), "0")
			if gone := time.Since(begun); gone != time.Duration(i)*time.Minute {
				t.Errorf("tick %d came after %s", i+1, gone)
			}
			msg.Ack()
		}
	})
}

func TestQuiesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		has, handled, gaveBack := subscriberOf(t, k, "has"), subscriberOf(t, k, "handled"), subscriberOf(t, k, "gave back")
		hasOut, handledOut, gaveBackOut := subscribe(ctx, t, has), subscribe(ctx, t, handled), subscribe(ctx, t, gaveBack)
		start(t, k)
		msg := <-hasOut
		(<-handledOut).Ack()
		(<-gaveBackOut).Nack()
		synctest.Wait()
		for range 2 {
			k.Quiesce()
		}
		time.Sleep(time.Hour)
		for _, out := range []<-chan *message.Message{hasOut, handledOut, gaveBackOut} {
			none(t, out)
		}
		if err := msg.Context().Err(); err != nil {
			t.Errorf("Quiesce ended a message's context: %v", err)
		}
		msg.Ack()
		cancel()
		for _, out := range []<-chan *message.Message{hasOut, handledOut, gaveBackOut} {
			closed(t, out)
		}
	})
}

func TestTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		start(t, k)
		ctx, cancel := context.WithCancel(t.Context())
		first, err := k.Tap(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		second, err := k.Tap(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if msg := <-first; string(msg.Payload) != fmt.Sprint(i+1) {
				t.Errorf("tapped %s", msg.Payload)
			}
		}
		cancel()
		closed(t, first)
		if _, err := k.Tap(t.Context(), "y"); err == nil {
			t.Error("a topic that isn't there can be tapped")
		}
		k.Quiesce()
		for range 3 {
			<-second
		}
		closed(t, second)
		if _, err := k.Tap(t.Context(), "x"); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("Tap after Quiesce: %v, want ErrClosed", err)
		}
	})
}
